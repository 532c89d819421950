/* Processes: started in every mode, what they are given, how they end, killed with all that descends from them. */
#include "internal.h"

#include "runner.h"
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const no_environment[] = {NULL};

/* A spec for `argv` with /dev/null three times; the caller closes fds[0]. */
static psup_spec make_spec(const char *const *argv, int fds[3])
{
    fds[0] = fds[1] = fds[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
    return (psup_spec){.size = sizeof(psup_spec),
                       .name = "p",
                       .path = argv[0],
                       .argv = argv,
                       .envp = no_environment,
                       .cwd = "/",
                       .fds = fds,
                       .n_fds = 3};
}

/* ---- how a process ends ---- */

TEST_MODES(exit_status_and_signal, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    static const struct {
        const char *script;
        uint32_t cause;
        int status, signo;
    } cases[] = {{"exit 0", PSUP_CAUSE_EXITED, 0, 0},
                 {"exit 7", PSUP_CAUSE_EXITED, 7, 0},
                 {"exit 255", PSUP_CAUSE_EXITED, 255, 0},
                 {"kill -TERM $$", PSUP_CAUSE_SIGNALED, 0, SIGTERM},
                 {"kill -KILL $$", PSUP_CAUSE_SIGNALED, 0, SIGKILL},
                 {"ulimit -c 0; kill -SEGV $$", PSUP_CAUSE_SIGNALED, 0, SIGSEGV}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        psup_process *process = shell(supervisor, domain, "p", cases[i].script);
        ASSERT(psup_process_pid(process) > 0);
        psup_event event = ended(process);
        ASSERT_EQ(event.type, PSUP_EVENT_TERMINATION);
        ASSERT_EQ(event.cause, cases[i].cause);
        ASSERT_EQ(event.exit_status, cases[i].status);
        ASSERT_EQ(event.signo, cases[i].signo);
        ASSERT_STR_EQ(event.domain, "d");
        ASSERT_STR_EQ(event.name, "p");
        ASSERT(event.timestamp_ms / 1000 >= (uint64_t)time(NULL) - 120 &&
               event.timestamp_ms / 1000 <= (uint64_t)time(NULL) + 1);
        psup_process_free(process);
    }
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(without_a_domain, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_process *process = shell(supervisor, NULL, "hook", "exit 3");
    psup_event event = ended(process);
    ASSERT_EQ(event.exit_status, 3);
    ASSERT_STR_EQ(event.domain, "");
    psup_process_free(process);
    /* One that is left running goes with the supervisor. */
    process = shell(supervisor, NULL, "hook", "sleep 1000 & sleep 1000");
    pid_t pid = psup_process_pid(process);
    ASSERT(alive(pid));
    psup_process_free(process);
    psup_supervisor_free(supervisor);
    ASSERT(!alive(pid));
}

TEST_MODES(failing_steps, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    char text[] = "/tmp/psup-test-text-XXXXXX", script[] = "/tmp/psup-test-script-XXXXXX";
    int text_fd = mkostemp(text, O_CLOEXEC), script_fd = mkostemp(script, O_CLOEXEC);
    ASSERT(write(text_fd, "hello\n", 6) == 6 && fchmod(text_fd, 0755) == 0);
    ASSERT(write(script_fd, "#!/no/such/interpreter\n", 23) == 23 && fchmod(script_fd, 0755) == 0);
    close(text_fd);
    close(script_fd);
    const struct {
        const char *path, *cwd, *step;
        int code;
        const char *words;
    } cases[] = {{"/no/such/program", "/", "exec", ENOENT, "/no/such/program"},
                 {"/bin/sh", "/no/such/directory", "cwd", ENOENT, "/no/such/directory"},
                 {"/bin/sh", "/dev/null", "cwd", ENOTDIR, "/dev/null"},
                 {"/tmp", "/", "exec", EACCES, "it is a directory"},
                 {text, "/", "exec", ENOEXEC, "#!"},
                 {script, "/", "exec", ENOENT, "interpreter"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const argv[] = {cases[i].path, NULL};
        psup_process *process = NULL;
        int fds[3];
        psup_spec spec = make_spec(argv, fds);
        spec.cwd = cases[i].cwd;
        ASSERT_EQ(psup_spawn(supervisor, domain, &spec, &process, &test_error), -cases[i].code);
        ASSERT(!process);
        ASSERT_EQ(test_error.code, cases[i].code);
        ASSERT_STR_EQ(test_error.step, cases[i].step);
        if (!strstr(test_error.text, cases[i].words))
            FAIL("\"%s\" does not speak of \"%s\"", test_error.text, cases[i].words);
        ASSERT_EQ(psup_spawn(supervisor, domain, &spec, &process, NULL), -cases[i].code);
        ASSERT_EQ(psup_spawn(supervisor, NULL, &spec, &process, &test_error), -cases[i].code);
        close(fds[0]);
    }
    unlink(text);
    unlink(script);
    /* It all still works. */
    psup_process *process = shell(supervisor, domain, "p", "exit 4");
    ASSERT_EQ(ended(process).exit_status, 4);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(too_many_words, 120)
{
    enum { SIZE = 4 << 20 };
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    char *word = malloc(SIZE);
    memset(word, 'x', SIZE);
    word[SIZE - 1] = 0;
    const char *const argv[] = {"/bin/true", word, word, word, NULL}, *const less[] = {"/bin/true", word, NULL};
    psup_process *process;
    int fds[3];
    psup_spec spec = make_spec(argv, fds);
    ASSERT_EQ(psup_spawn(supervisor, domain, &spec, &process, &test_error), -E2BIG);
    spec.argv = less;
    ASSERT_EQ(psup_spawn(supervisor, domain, &spec, &process, &test_error), -E2BIG);
    ASSERT_STR_EQ(test_error.step, "exec");
    close(fds[0]);
    free(word);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST(what_is_checked_before)
{
    psup_supervisor *supervisor = new_supervisor(0), *other = new_supervisor(0);
    psup_domain *domain = new_domain(supervisor, "d"), *foreign = start_domain(other, "d");
    static const char *const argv[] = {"/bin/true", NULL};
    char name[PSUP_NAME_MAX + 2];
    int fds[3], many[PSUP_FDS_MAX + 1];
    psup_spec good = make_spec(argv, fds), spec = good;
    psup_process *process = NULL;
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = fds[0];

#define REFUSED(step_name, result, ...)                                                \
    do {                                                                               \
        spec = good;                                                                   \
        __VA_ARGS__;                                                                   \
        ASSERT_EQ(psup_spawn(supervisor, NULL, &spec, &process, &test_error), result); \
        ASSERT_STR_EQ(test_error.step, step_name);                                     \
    } while (0)
    REFUSED("size", -EINVAL, spec.size--);
    REFUSED("name", -EINVAL, spec.name = NULL);
    REFUSED("name", -EINVAL, spec.name = "");
    REFUSED("name", -EINVAL, spec.name = name);
    REFUSED("path", -EINVAL, spec.path = "true");
    REFUSED("path", -EINVAL, spec.path = NULL);
    REFUSED("cwd", -EINVAL, spec.cwd = "");
    REFUSED("argv", -EINVAL, spec.argv = no_environment);
    REFUSED("argv", -EINVAL, spec.envp = NULL);
    REFUSED("fds", -EINVAL, spec.n_fds = 2);
    REFUSED("fds", -EINVAL, spec.fds = many; spec.n_fds = PSUP_FDS_MAX + 1);
    REFUSED("fds", -EBADF, fds[1] = -1);
    REFUSED("fds", -EBADF, fds[1] = 9999);
    fds[1] = fds[0];
    REFUSED("uid", -EINVAL, spec.flags = PSUP_SET_UID; spec.uid = UINT32_MAX);
    ASSERT_EQ(psup_spawn(supervisor, domain, &good, &process, &test_error), -EBUSY);
    ASSERT_STR_EQ(test_error.step, "state");
    ASSERT_EQ(psup_spawn(supervisor, foreign, &good, &process, &test_error), -EINVAL);
    ASSERT(!process);
    close(fds[0]);
    psup_domain_free(domain);
    psup_domain_free(foreign);
    psup_supervisor_free(supervisor);
    psup_supervisor_free(other);
}

/* ---- what it is given ---- */

static int named_file(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    ASSERT(fd >= 0);
    return fd;
}

/* Whether "`fd` -> `target`…" is in what ls -l has printed. */
static bool shows(const char *list, int fd, const char *target)
{
    char line[64];
    snprintf(line, sizeof line, " %d -> %s", fd, target);
    return strstr(list, line);
}

TEST_MODES(descriptors_that_overlap, 120)
{
    enum { N = 8 };
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    int saved[3], out[2], x = named_file("psup-x"), y = named_file("psup-y");
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    fflush(NULL);
    for (int i = 0; i < 3; i++)
        saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
    /* The host's 0, 1 and 2 are the pipe, x and y; the child has them in another order, and twice. */
    dup2(out[1], 0);
    dup2(x, 1);
    dup2(y, 2);
    static const char *const argv[] = {"/bin/ls", "-l", "/proc/self/fd", NULL};
    const int fds[N] = {2, 0, 1, 1, 0, 2, 2, x};
    psup_spec spec = {.size = sizeof spec,
                      .name = "ls",
                      .path = argv[0],
                      .argv = argv,
                      .envp = no_environment,
                      .cwd = "/",
                      .fds = fds,
                      .n_fds = N};
    psup_process *process;
    int result = psup_spawn(supervisor, domain, &spec, &process, &test_error);
    for (int i = 0; i < 3; i++) {
        dup2(saved[i], i);
        close(saved[i]);
    }
    close(out[1]);
    close(x);
    close(y);
    OK(result);
    const char *list = read_all(out[0]);
    ASSERT_EQ(ended(process).exit_status, 0);
    static const char *const expected[N] = {"/memfd:psup-y", "pipe:",         "/memfd:psup-x", "/memfd:psup-x",
                                            "pipe:",         "/memfd:psup-y", "/memfd:psup-y", "/memfd:psup-x"};
    for (int i = 0; i < N; i++)
        if (!shows(list, i, expected[i]))
            FAIL("descriptor %d is not %s in\n%s", i, expected[i], list);
    /* Nothing else: the directory that ls has opened is the next. */
    ASSERT(shows(list, N, "/proc/"));
    ASSERT(!strstr(list, " 9 -> "));
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(as_many_descriptors_as_there_can_be, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    static const char *const argv[] = {"/bin/ls", "/proc/self/fd", NULL};
    int out[2], fds[PSUP_FDS_MAX];
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    for (int i = 0; i < PSUP_FDS_MAX; i++)
        fds[i] = out[1];
    psup_spec spec = {.size = sizeof spec,
                      .name = "ls",
                      .path = argv[0],
                      .argv = argv,
                      .envp = no_environment,
                      .cwd = "/",
                      .fds = fds,
                      .n_fds = PSUP_FDS_MAX};
    psup_process *process;
    OK(psup_spawn(supervisor, domain, &spec, &process, &test_error));
    close(out[1]);
    const char *list = read_all(out[0]);
    int lines = 0;
    for (; *list; list++)
        lines += *list == '\n';
    ASSERT_EQ(lines, PSUP_FDS_MAX + 1); /* and that of the directory */
    ASSERT_EQ(ended(process).exit_status, 0);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(signals_session_and_directory, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    static const char *const argv[] = {"/bin/sh", "-c", "cat /proc/self/status; cat /proc/self/stat; pwd; echo $A",
                                       NULL};
    static const char *const envp[] = {"A=one two", "PATH=/usr/bin:/bin", NULL};
    sigset_t block, before;
    int out[2];
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigaddset(&block, SIGCHLD);
    sigprocmask(SIG_BLOCK, &block, &before);
    int fds[] = {out[1], out[1], out[1]};
    psup_spec spec = {.size = sizeof spec,
                      .name = "sh",
                      .path = argv[0],
                      .argv = argv,
                      .envp = envp,
                      .cwd = "/usr/bin",
                      .fds = fds,
                      .n_fds = 3};
    psup_process *process;
    OK(psup_spawn(supervisor, domain, &spec, &process, &test_error));
    close(out[1]);
    sigset_t after;
    sigprocmask(SIG_SETMASK, &before, &after);
    ASSERT(sigismember(&after, SIGUSR1) && !sigismember(&after, SIGUSR2));
    const char *text = read_all(out[0]);
    char session[32];
    snprintf(session, sizeof session, " %d %d 0 -1 ", psup_process_pid(process), psup_process_pid(process));
    ASSERT_EQ(ended(process).exit_status, 0);
    if (!strstr(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n"))
        FAIL("signals are not as by default:\n%s", text);
    if (!strstr(text, session))
        FAIL("no session of its own (%s):\n%s", session, text);
    ASSERT(strstr(text, "\n/usr/bin\none two\n"));
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(identity, 120)
{
    if (getuid())
        SKIP("needs root, to become someone else");
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    static const char *const argv[] = {"/usr/bin/id", NULL};
    char directory[] = "/tmp/psup-test-private-XXXXXX";
    int out[2];
    psup_process *process;
    ASSERT(mkdtemp(directory)); /* 0700 */
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    int fds[] = {out[1], out[1], out[1]};
    psup_spec spec = {.size = sizeof spec,
                      .name = "id",
                      .path = argv[0],
                      .argv = argv,
                      .envp = no_environment,
                      .cwd = "/",
                      .fds = fds,
                      .n_fds = 3,
                      .flags = PSUP_SET_UID | PSUP_SET_GID | PSUP_DROP_GROUPS,
                      .uid = 54321,
                      .gid = 54322};
    OK(psup_spawn(supervisor, domain, &spec, &process, &test_error));
    close(out[1]);
    ASSERT_STR_EQ(read_all(out[0]), "uid=54321 gid=54322 groups=54322\n");
    ASSERT_EQ(ended(process).exit_status, 0);
    psup_process_free(process);
    /* As that user, a directory that it may not enter is not entered for it. */
    fds[0] = fds[1] = fds[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
    spec.cwd = directory;
    ASSERT_EQ(psup_spawn(supervisor, domain, &spec, &process, &test_error), -EACCES);
    ASSERT_STR_EQ(test_error.step, "cwd");
    close(fds[0]);
    rmdir(directory);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* ---- waits and signals ---- */

static void no_action(int signal)
{
    (void)signal;
}

TEST_MODES(waits, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process = shell(supervisor, domain, "p", "exec sleep 1000");
    psup_event event;
    ASSERT_EQ(psup_process_result(process, &event), -EAGAIN);
    ASSERT_EQ(psup_process_wait(process, 0), -ETIMEDOUT);
    uint64_t before = psup__now();
    ASSERT_EQ(psup_process_wait(process, SECOND / 20), -ETIMEDOUT);
    ASSERT(psup__now() - before >= SECOND / 20);

    struct sigaction action = {.sa_handler = no_action};
    struct itimerval timer = {.it_value = {.tv_usec = 20000}, .it_interval = {.tv_usec = 20000}}, none = {0};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    ASSERT_EQ(psup_process_wait(process, PSUP_FOREVER), -EINTR);
    setitimer(ITIMER_REAL, &none, NULL);

    OK(psup_process_signal(process, SIGTERM));
    ASSERT_EQ(ended(process).signo, SIGTERM);
    ASSERT_EQ(psup_process_wait(process, 0), 0);
    ASSERT_EQ(psup_process_signal(process, SIGTERM), 0);
    ASSERT_EQ(psup_process_kill(process), 0);
    ASSERT_EQ(psup_process_wait(process, PSUP_FOREVER), 0);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(signals_go_to_the_group, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    int out[2];
    char byte;
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    /* Both write; the end of the pipe says that both are gone. */
    static const char *const argv[] = {"/bin/sh", "-c", "sh -c 'echo; exec sleep 1000' & echo; wait; exec sleep 1000",
                                       NULL};
    psup_process *process = run(supervisor, domain, argv, out[1]);
    close(out[1]);
    ASSERT(read_byte(out[0], &byte) && read_byte(out[0], &byte));
    ASSERT_EQ(psup_process_signal(process, 0), -EINVAL);
    ASSERT_EQ(psup_process_signal(process, 65), -EINVAL);
    ASSERT_EQ(psup_process_signal(process, SIGTERM), 0);
    ASSERT_EQ(ended(process).signo, SIGTERM);
    ASSERT_STR_EQ(read_all(out[0]), "");
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* ---- kill ---- */

/* Writes the pids of a tree that has left the group, the session and the parent, and ignores what can be ignored. */
#define TREE                                                                                                   \
    "trap '' TERM HUP INT; echo $$;"                                                                           \
    "setsid sh -c 'echo $$; (sleep 1000 & echo $!) ; setsid sh -c \"echo \\$\\$; exec sleep 1000\" & wait' & " \
    "sh -c 'setsid sh -c \"echo \\$\\$; exec sleep 1000\" &'; echo ok; wait"
#define TREE_PIDS 5

static psup_process *plant(psup_supervisor *supervisor, psup_domain *domain, pid_t pids[TREE_PIDS])
{
    static const char *const argv[] = {"/bin/sh", "-c", TREE, NULL};
    int out[2], n = 0;
    char line[32];
    bool said = false;
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    psup_process *process = run(supervisor, domain, argv, out[1]);
    close(out[1]);
    FILE *file = fdopen(out[0], "r");
    while ((n < TREE_PIDS || !said) && fgets(line, sizeof line, file)) {
        if (!strcmp(line, "ok\n"))
            said = true;
        else if (n < TREE_PIDS && (pids[n++] = atoi(line)) <= 0)
            FAIL("the tree says: %s", line);
    }
    fclose(file);
    ASSERT_EQ(n, TREE_PIDS);
    for (int i = 0; i < n; i++)
        if (!alive(pids[i]))
            FAIL("process %d, the %dth of the tree, has gone by itself", (int)pids[i], i);
    return process;
}

static void all_gone(const pid_t pids[TREE_PIDS])
{
    for (int i = 0; i < TREE_PIDS; i++)
        if (alive(pids[i]))
            FAIL("process %d of the tree is alive", (int)pids[i]);
}

TEST_MODES(kill_of_a_tree, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *other = shell(supervisor, domain, "other", "exec sleep 1000");
    for (int round = 0; round < 3; round++) {
        pid_t pids[TREE_PIDS];
        psup_process *process = plant(supervisor, domain, pids);
        OK(psup_process_kill(process));
        psup_event event = ended(process);
        ASSERT_EQ(event.cause, PSUP_CAUSE_SIGNALED);
        ASSERT_EQ(event.signo, SIGKILL);
        all_gone(pids);
        ASSERT(alive(psup_process_pid(other)));
        psup_process_free(process);
    }
    psup_process_free(other);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(kill_of_a_frozen_tree, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *other = shell(supervisor, domain, "other", "while :; do :; done");
    pid_t pids[TREE_PIDS], pid = psup_process_pid(other);
    psup_process *process = plant(supervisor, domain, pids);
    freeze_domain(domain);
    OK(psup_process_kill(process));
    ASSERT_EQ(ended(process).signo, SIGKILL);
    all_gone(pids);
    /* The other is still there and still frozen. */
    long ticks = cpu_ticks(pid);
    sleep_ms(100);
    ASSERT_EQ(cpu_ticks(pid), ticks);
    OK(psup_domain_thaw(domain, NULL, &test_error));
    uint64_t deadline = psup__deadline(PATIENCE);
    while (cpu_ticks(pid) == ticks && psup__left(deadline))
        sleep_ms(10);
    ASSERT(cpu_ticks(pid) > ticks);
    psup_process_free(process);
    psup_process_free(other);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(kill_of_a_fork_bomb, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    /* Each lives for a moment only, so that the machine lives. */
    psup_process *process = shell(supervisor, domain, "bomb",
                                  "f() { while :; do (exec sleep 0.01) & (exec sleep 0.02) & wait; done; };"
                                  "for i in 1 2 3 4 5 6; do f & done; f");
    sleep_ms(100);
    OK(psup_process_kill(process));
    ASSERT_EQ(ended(process).signo, SIGKILL);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* A cgroup whose process was killed is not used again; what refers to it must know. */
TEST_MODES(start_after_kill_without_a_wait, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    for (int round = 0; round < 20; round++) {
        /* Many descendants, so that some are still dying when their ancestor has been reaped. */
        psup_process *process = shell(supervisor, domain, "p",
                                      "i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done; exec sleep 1000"),
                     *next;
        psup_event event;
        sleep_ms(10);
        OK(psup_process_kill(process));
        while (psup_process_result(process, &event) == -EAGAIN)
            ;
        OK(try_shell(supervisor, domain, "next", "exit 5", &next));
        ASSERT_EQ(ended(next).exit_status, 5);
        psup_process_free(next);
        psup_process_free(process);
    }
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* ---- life times ---- */

TEST_MODES(free_in_any_order, 240)
{
    for (int order = 0; order < 24; order++) {
        psup_supervisor *supervisor = new_supervisor(cgroups);
        psup_domain *domain = start_domain(supervisor, "d");
        psup_events *events;
        psup_event event;
        ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
        psup_process *process = shell(supervisor, domain, "p", order % 2 ? "exit 0" : "exec sleep 1000");
        pid_t pid = psup_process_pid(process);
        if (order % 4 == 1)
            ended(process);
        int places[] = {0, 1, 2, 3}, rest = order;
        bool supervisor_there = true;
        for (int i = 0; i < 4; i++) {
            int pick = i + rest % (4 - i), what = places[pick];
            rest /= 4 - i;
            places[pick] = places[i];
            switch (what) {
            case 0:
                psup_supervisor_free(supervisor);
                supervisor_there = false;
                break;
            case 1:
                psup_domain_free(domain);
                break;
            case 2:
                if (!supervisor_there) {
                    ASSERT_EQ(psup_process_result(process, &event), -ESHUTDOWN);
                    ASSERT_EQ(psup_process_wait(process, 0), -ESHUTDOWN);
                    ASSERT_EQ(psup_process_kill(process), -ESHUTDOWN);
                    ASSERT_EQ(psup_process_signal(process, SIGTERM), -ESHUTDOWN);
                    ASSERT_EQ(psup_process_pid(process), pid);
                }
                psup_process_free(process);
                break;
            default:
                psup_events_free(events);
            }
        }
        ASSERT(!alive(pid));
        ASSERT_EQ(cgroups_left(getpid()), 0);
    }
}

TEST_MODES(a_copy_after_fork_is_dead, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process = shell(supervisor, domain, "p", "exec sleep 1000");
    psup_events *events;
    int go[2], status;
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    ASSERT_EQ(pipe2(go, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t copy = fork();
    if (!copy) {
        psup_metrics metrics = {.size = sizeof metrics};
        psup_process *none;
        psup_event event;
        psup_domain *new;
        ASSERT_EQ(psup_domain_freeze(domain, SECOND, &metrics, &test_error), -ESTALE);
        ASSERT_EQ(psup_domain_stop(domain, SECOND, &metrics, &test_error), -ESTALE);
        ASSERT_EQ(psup_domain_new(supervisor, "e", &new, &test_error), -ESTALE);
        ASSERT_EQ(try_shell(supervisor, domain, "q", "exit 0", &none), -ESTALE);
        ASSERT_EQ(psup_process_kill(process), -ESTALE);
        ASSERT_EQ(psup_process_wait(process, 0), -ESTALE);
        ASSERT_EQ(psup_events_read(events, &event, 1), -ESTALE);
        psup_events_free(events);
        psup_process_free(process);
        psup_domain_free(domain);
        psup_supervisor_free(supervisor);
        _exit(0);
    }
    ASSERT_EQ(waitpid(copy, &status, 0), copy);
    ASSERT_EQ(status, 0);
    ASSERT(alive(psup_process_pid(process)));

    /* One that keeps its copies of all descriptors must not hold up the end of what they lead to. */
    copy = fork();
    if (!copy) {
        char byte;
        close(go[1]);
        _exit(read_byte(go[0], &byte));
    }
    uint64_t begin = psup__now();
    psup_events_free(events);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    uint64_t took = psup__now() - begin;
    close(go[0]);
    close(go[1]);
    ASSERT_EQ(waitpid(copy, &status, 0), copy);
    if (took > 4 * SECOND)
        FAIL("the end took %llu ms", (unsigned long long)(took / 1000000));
}

/* ---- the host ---- */

TEST_MODES(host_that_waits_for_anything, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    signal(SIGCHLD, SIG_IGN); /* then the kernel keeps no status */
    psup_process *process = shell(supervisor, domain, "p", "exit 6");
    psup_event event = ended(process);
    if (event.cause != PSUP_CAUSE_UNKNOWN) {
        ASSERT_EQ(event.cause, PSUP_CAUSE_EXITED);
        ASSERT_EQ(event.exit_status, 6);
    }
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    signal(SIGCHLD, SIG_DFL);
}

static int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -1; /* its own */
    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

/* However few descriptors there are, a process is started, or it is said why not and nothing is left. */
TEST_MODES(out_of_descriptors, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    static const char *const argv[] = {"/bin/true", NULL};
    struct rlimit limit, before;
    int fds[3], used = count_descriptors();
    psup_spec spec = make_spec(argv, fds);
    getrlimit(RLIMIT_NOFILE, &before);
    for (int more = 0; more < 24; more++) {
        psup_process *process = NULL;
        limit = before;
        limit.rlim_cur = (rlim_t)(used + 1 + more);
        setrlimit(RLIMIT_NOFILE, &limit);
        int result = psup_spawn(supervisor, more % 2 ? domain : NULL, &spec, &process, &test_error);
        setrlimit(RLIMIT_NOFILE, &before);
        if (!result) {
            ASSERT_EQ(ended(process).exit_status, 0);
            psup_process_free(process);
        } else if (result != -EMFILE) {
            FAIL("with %d more descriptors: %d: %s: %s", more, result, test_error.step, test_error.text);
        }
    }
    psup_process *process = shell(supervisor, domain, "p", "exit 8");
    ASSERT_EQ(ended(process).exit_status, 8);
    psup_process_free(process);
    close(fds[0]);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* ---- threads ---- */

#define SPAWNERS 4
#define EACH 50

struct spawner {
    psup_supervisor *supervisor;
    psup_domain *domain;
    int number;
};

static void *spawn_many(void *argument)
{
    const struct spawner *spawner = argument;
    for (int i = 0; i < EACH; i++) {
        char name[32];
        psup_process *process;
        psup_error error;
        const char *const argv[] = {"/bin/sh", "-c", i % 5 ? "exit 9" : "exec sleep 1000", NULL};
        int fds[3];
        psup_spec spec = make_spec(argv, fds);
        static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};
        spec.envp = envp;
        spec.name = name;
        snprintf(name, sizeof name, "%d", spawner->number * EACH + i);
        int result = psup_spawn(spawner->supervisor, spawner->domain, &spec, &process, &error);
        if (result)
            FAIL("%d: %s: %s", result, error.step, error.text);
        close(fds[0]);
        if (i % 5 == 0)
            ASSERT_EQ(psup_process_kill(process), 0);
        if (i % 2)
            ASSERT_EQ(psup_process_wait(process, PATIENCE), 0);
        psup_process_free(process);
    }
    return NULL;
}

TEST_MODES(many_at_once, 400)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    struct spawner spawners[SPAWNERS];
    pthread_t threads[SPAWNERS];
    static bool seen[SPAWNERS * EACH];
    psup_events *events;
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    for (int i = 0; i < SPAWNERS; i++) {
        spawners[i] = (struct spawner){supervisor, domain, i};
        ASSERT_EQ(pthread_create(&threads[i], NULL, spawn_many, &spawners[i]), 0);
    }
    for (int n = 0; n < SPAWNERS * EACH;) {
        psup_event got[16];
        ASSERT_EQ(psup_events_wait(events, 2 * PATIENCE), 0);
        int count = psup_events_read(events, got, 16);
        for (int i = 0; i < count; i++, n++) {
            int number = atoi(got[i].name);
            ASSERT(!seen[number]);
            seen[number] = true;
            ASSERT_EQ(got[i].type, PSUP_EVENT_TERMINATION);
            if (number % EACH % 5) {
                ASSERT_EQ(got[i].exit_status, 9);
            } else {
                ASSERT_EQ(got[i].signo, SIGKILL);
            }
        }
    }
    for (int i = 0; i < SPAWNERS; i++)
        pthread_join(threads[i], NULL);
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

static void *kill_and_wait(void *argument)
{
    psup_process *process = argument;
    for (int i = 0; i < 50; i++) {
        ASSERT_EQ(psup_process_kill(process), 0);
        int result = psup_process_wait(process, SECOND / 1000);
        ASSERT(result == 0 || result == -ETIMEDOUT);
    }
    return NULL;
}

TEST_MODES(many_wait_for_one, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    for (int round = 0; round < 5; round++) {
        psup_process *process = shell(supervisor, domain, "p", "sleep 1000 & exec sleep 1000");
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            ASSERT_EQ(pthread_create(&threads[i], NULL, kill_and_wait, process), 0);
        ASSERT_EQ(ended(process).signo, SIGKILL);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        psup_process_free(process);
    }
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}
