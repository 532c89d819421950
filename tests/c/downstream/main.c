#include <pysup.h>

#include <string.h>

int main(void)
{
    return strcmp(psup_version(), PSUP_VERSION) != 0;
}
