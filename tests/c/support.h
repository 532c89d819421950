/* What the tests of supervisors, domains and processes share. */
#ifndef PSUP_TEST_SUPPORT_H
#define PSUP_TEST_SUPPORT_H

#include "pysup.h"

#include <stdbool.h>
#include <sys/types.h>

#define SECOND 1000000000ull
#define PATIENCE (120 * SECOND) /* in an emulated machine everything takes ten to twenty times as long */

/* The same test with cgroup v2, with cgroup v1 and without cgroups: NAME_v2, NAME_v1, NAME_none. */
#define TEST_MODES(test_name, seconds)       \
    static void test_name(uint32_t cgroups); \
    TEST_TIMEOUT(test_name##_v2, seconds)    \
    {                                        \
        test_name(PSUP_CGROUP_V2);           \
    }                                        \
    TEST_TIMEOUT(test_name##_v1, seconds)    \
    {                                        \
        test_name(PSUP_CGROUP_V1);           \
    }                                        \
    TEST_TIMEOUT(test_name##_none, seconds)  \
    {                                        \
        test_name(0);                        \
    }                                        \
    static void test_name(uint32_t cgroups)

/* Fails the test with what psup_error says. */
#define OK(call)                                                                                                      \
    do {                                                                                                              \
        int ok_result = (call);                                                                                       \
        if (ok_result < 0)                                                                                            \
            psup_test_fail(__FILE__, __LINE__, "%s: %d: %s: %s", #call, ok_result, test_error.step, test_error.text); \
    } while (0)

extern psup_error test_error;

/* A supervisor that freezes by the kind of cgroup that is asked for; skips the test where it is not to be had. */
psup_supervisor *new_supervisor(uint32_t cgroups);
psup_domain *new_domain(psup_supervisor *supervisor, const char *name);
psup_domain *start_domain(psup_supervisor *supervisor, const char *name);

/* Runs a shell script with /dev/null as 0, 1 and 2. */
int try_shell(psup_supervisor *supervisor, psup_domain *domain, const char *name, const char *script,
              psup_process **ret);
psup_process *shell(psup_supervisor *supervisor, psup_domain *domain, const char *name, const char *script);
/* Runs a program; `output`: descriptor 1 and 2, or -1. */
psup_process *run(psup_supervisor *supervisor, psup_domain *domain, const char *const *argv, int output);
/* Waits for the end and gives it. */
psup_event ended(psup_process *process);

psup_metrics stop_domain(psup_domain *domain);
psup_metrics freeze_domain(psup_domain *domain);

/* All that can be read from a descriptor until its end; closes it. Static storage. */
const char *read_all(int fd);
/* One line or byte of a pipe, waited for; false at the end. */
bool read_byte(int fd, char *ret);

/* Whether a process of this number exists (a zombie does not count). */
bool alive(pid_t pid);
/* Waits until it does not. */
void wait_gone(pid_t pid);
/* The CPU time that a process has used, in clock ticks; -1 where it is not there. */
long cpu_ticks(pid_t pid);
void sleep_ms(long milliseconds);
/* How many cgroups of this process's supervisors there are, in all hierarchies. */
int cgroups_left(pid_t pid);

#endif
