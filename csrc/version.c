#include "pysup.h"

const char *psup_version(void)
{
    return PSUP_VERSION;
}
