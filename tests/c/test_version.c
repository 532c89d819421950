#include "pysup.h"

#include "runner.h"

TEST(version_of_library_is_version_of_header)
{
    ASSERT_STR_EQ(psup_version(), PSUP_VERSION);
}
