/*
 * A small test runner. Each TEST runs in a forked process group of its own, with a time-out, and fails when
 * it leaves a descriptor open or a child behind.
 *
 *     TEST(name) {
 *         if (!feature)
 *             SKIP("needs the feature");
 *         ASSERT_EQ(function(), 0);
 *     }
 *
 *     TEST_TIMEOUT(slow_name, 60) { ... }
 *
 * The program: `test_x [--list] [NAME...]`; PSUP_TEST_NOFORK=1 runs the tests in the calling process, for a
 * debugger. It exits with 0, 1 when a test failed, or 77 when all were skipped.
 */
#ifndef PSUP_TEST_RUNNER_H
#define PSUP_TEST_RUNNER_H

#include <stdbool.h>

struct psup_test {
    const char *name;
    void (*run)(void);
    int timeout_seconds;
    struct psup_test *next;
};

void psup_test_register(struct psup_test *test);
_Noreturn void psup_test_skip(const char *reason, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void psup_test_fail(const char *file, int line, const char *message, ...)
    __attribute__((format(printf, 3, 4)));
void psup_test_equal(const char *file, int line, const char *expression, long long got, long long expected);
void psup_test_str_equal(const char *file, int line, const char *expression, const char *got, const char *expected);

#define TEST_TIMEOUT(test_name, seconds)                                             \
    static void test_##test_name(void);                                              \
    __attribute__((constructor)) static void register_##test_name(void)              \
    {                                                                                \
        static struct psup_test test = {#test_name, test_##test_name, (seconds), 0}; \
        psup_test_register(&test);                                                   \
    }                                                                                \
    static void test_##test_name(void)

#define TEST(test_name) TEST_TIMEOUT(test_name, 20)

#define SKIP(...) psup_test_skip(__VA_ARGS__)
#define FAIL(...) psup_test_fail(__FILE__, __LINE__, __VA_ARGS__)

#define ASSERT(expression)                                                  \
    do {                                                                    \
        if (!(expression))                                                  \
            psup_test_fail(__FILE__, __LINE__, "%s is false", #expression); \
    } while (0)
#define ASSERT_EQ(got, expected) \
    psup_test_equal(__FILE__, __LINE__, #got " == " #expected, (long long)(got), (long long)(expected))
#define ASSERT_STR_EQ(got, expected) psup_test_str_equal(__FILE__, __LINE__, #got " == " #expected, (got), (expected))

#endif
