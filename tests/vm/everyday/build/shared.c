#include <stdio.h>
#include "config.h"

void say(const char *first, const char *second)
{
    printf("%s%s\n", first, second);
    fflush(stdout);
}

const char *shared_round = ROUND;
