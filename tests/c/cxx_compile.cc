// The public header compiles as C++, and its functions link.
#include "pysup.h"

#include <cstring>

int main()
{
    return std::strcmp(psup_version(), PSUP_VERSION) == 0 ? 0 : 1;
}
