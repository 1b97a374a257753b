#include <stdio.h>
#include "config.h"

int main(void)
{
    printf("const char *generated(void) { return \"built in round \"; }\nconst char *unused = \"%s\";\n", ROUND);
    return 0;
}
