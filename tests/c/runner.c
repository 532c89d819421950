#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SKIPPED = 77 };

static struct psup_test *first_test;
static struct psup_test **last_test = &first_test;

void psup_test_register(struct psup_test *test)
{
    *last_test = test;
    last_test = &test->next;
}

void psup_test_skip(const char *reason, ...)
{
    va_list args;

    fputs("    skipped: ", stdout);
    va_start(args, reason);
    vprintf(reason, args);
    va_end(args);
    putchar('\n');
    exit(SKIPPED);
}

void psup_test_fail(const char *file, int line, const char *message, ...)
{
    va_list args;

    printf("    %s:%d: ", file, line);
    va_start(args, message);
    vprintf(message, args);
    va_end(args);
    putchar('\n');
    exit(EXIT_FAILURE);
}

void psup_test_equal(const char *file, int line, const char *expression, long long got, long long expected)
{
    if (got != expected)
        psup_test_fail(file, line, "%s: got %lld (%#llx), expected %lld (%#llx)", expression, got,
                       (unsigned long long)got, expected, (unsigned long long)expected);
}

void psup_test_str_equal(const char *file, int line, const char *expression, const char *got, const char *expected)
{
    if (!got || !expected ? got != expected : strcmp(got, expected) != 0)
        psup_test_fail(file, line, "%s: got \"%s\", expected \"%s\"", expression, got ? got : "(null)",
                       expected ? expected : "(null)");
}

/* The open descriptors as a bit set; those past its end are left out. */
enum { FD_WORDS = 64, FD_WORD_BITS = 64 };

static void open_descriptors(unsigned long long set[FD_WORDS])
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    memset(set, 0, FD_WORDS * sizeof *set);
    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        long fd = strtol(entry->d_name, NULL, 10);

        if (entry->d_name[0] == '.' || fd == dirfd(dir) || fd >= FD_WORDS * FD_WORD_BITS)
            continue;
        set[fd / FD_WORD_BITS] |= 1ULL << (fd % FD_WORD_BITS);
    }
    closedir(dir);
}

static bool descriptors_leaked(const unsigned long long before[FD_WORDS])
{
    unsigned long long after[FD_WORDS];
    bool leaked = false;

    open_descriptors(after);
    for (int fd = 0; fd < FD_WORDS * FD_WORD_BITS; fd++) {
        unsigned long long bit = 1ULL << (fd % FD_WORD_BITS);
        char path[64], target[256];
        ssize_t length;

        if (!(after[fd / FD_WORD_BITS] & bit) || before[fd / FD_WORD_BITS] & bit)
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = '\0';
        printf("    leaked descriptor %d: %s\n", fd, target);
        leaked = true;
    }
    return leaked;
}

static bool child_left(void)
{
    siginfo_t info = {0};

    if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) < 0)
        return false; /* ECHILD */
    printf("    left a child behind%s\n", info.si_pid ? " (a zombie)" : "");
    return true;
}

static _Noreturn void run_here(const struct psup_test *test)
{
    unsigned long long before[FD_WORDS];
    bool leaked;

    open_descriptors(before);
    test->run();
    leaked = descriptors_leaked(before);
    leaked |= child_left();
    exit(leaked ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int wait_for(pid_t pid, int timeout_seconds, bool *timed_out)
{
    struct timespec now, end;
    int status;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += timeout_seconds;
    *timed_out = false;
    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);

        if (got == pid)
            return status;
        if (got < 0 && errno != EINTR) {
            perror("waitpid");
            exit(EXIT_FAILURE);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec >= end.tv_nsec)) {
            *timed_out = true;
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return status;
        }
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static int run_forked(const struct psup_test *test)
{
    bool timed_out;
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        perror("fork");
        return EXIT_FAILURE;
    }
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_here(test);
    }
    setpgid(pid, pid);
    status = wait_for(pid, test->timeout_seconds, &timed_out);
    kill(-pid, SIGKILL); /* whatever the test left in its group */
    if (timed_out) {
        printf("    timed out after %d s\n", test->timeout_seconds);
        return EXIT_FAILURE;
    }
    if (WIFSIGNALED(status)) {
        printf("    died of signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
        return EXIT_FAILURE;
    }
    return WEXITSTATUS(status);
}

static bool selected(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0, skipped = 0;
    bool list = argc > 1 && strcmp(argv[1], "--list") == 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (const struct psup_test *test = first_test; test; test = test->next) {
        if (list) {
            puts(test->name);
            continue;
        }
        if (!selected(test->name, argv + 1))
            continue;
        printf("%s\n", test->name);
        if (getenv("PSUP_TEST_NOFORK")) {
            test->run();
            passed++;
            continue;
        }
        switch (run_forked(test)) {
        case EXIT_SUCCESS:
            passed++;
            break;
        case SKIPPED:
            skipped++;
            break;
        default:
            printf("    FAILED: %s\n", test->name);
            failed++;
        }
    }
    if (list)
        return EXIT_SUCCESS;
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    if (failed || passed + skipped == 0)
        return EXIT_FAILURE;
    return passed ? EXIT_SUCCESS : SKIPPED;
}
