import sys

import adding

print(adding.up_to(int(sys.argv[1])))
