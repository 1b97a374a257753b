#include "config.h"

const char *part(void)
{
    return ROUND;
}
