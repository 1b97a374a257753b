#include <string.h>
#include "config.h"

const char *generated(void);
const char *part(void);
void say(const char *first, const char *second);

int main(void)
{
    say(generated(), part());
    return strcmp(part(), ROUND);
}
