/* pysup-init: what happens when the host dies, and when the helper, a shim or the keeper does. */
#include "internal.h"

#include "runner.h"
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the host dies ---- */

enum death { KILLED, EXITED, EXECED, LEAVES_A_COPY, FROZEN, DEATHS };

#define PIDS 3

struct report {
    pid_t pids[PIDS]; /* of a domain's process, its daemon, and a process outside of all domains */
    pid_t copy;       /* LEAVES_A_COPY */
    pid_t inits[3];   /* pysup-init: the keeper and the domain's helper; 0: none */
};

/* Never returns; says what it has made, then dies or waits for its death. */
static _Noreturn void host(uint32_t cgroups, enum death death, int report_fd)
{
    static const char *const argv[] =
        {"/bin/sh", "-c", "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; echo $$ >&3; exec sleep 1000' & wait",
         NULL},
                             *const envp[] = {"PATH=/usr/bin:/bin", NULL};
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process;
    struct report report = {.copy = 0};
    char line[32] = "";
    int out[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    int fds[] = {null, null, null, out[1]};
    psup_spec spec = {.size = sizeof spec,
                      .name = "p",
                      .path = argv[0],
                      .argv = argv,
                      .envp = envp,
                      .cwd = "/",
                      .fds = fds,
                      .n_fds = 4};
    OK(psup_spawn(supervisor, domain, &spec, &process, &test_error));
    for (size_t n = 0; n < sizeof line - 1 && !strchr(line, '\n'); n++)
        ASSERT(read_byte(out[0], &line[n]));
    report.pids[0] = psup_process_pid(process);
    report.pids[1] = atoi(line);
    report.pids[2] = psup_process_pid(shell(supervisor, NULL, "hook", "sleep 1000 & sleep 1000"));
    report.inits[0] = supervisor->keeper.ours ? supervisor->keeper.pid : 0;
    report.inits[1] = domain->helper.ours ? domain->helper.pid : 0;
    report.inits[2] = process->shim.ours ? process->shim.pid : 0;
    if (death == FROZEN)
        freeze_domain(domain);
    if (death == LEAVES_A_COPY && !(report.copy = fork()))
        for (;;)
            pause();
    ASSERT_EQ(write(report_fd, &report, sizeof report), sizeof report);
    if (death == EXITED)
        _exit(0);
    if (death == EXECED)
        execl("/bin/sleep", "sleep", "1000", (char *)NULL);
    for (;;)
        pause();
}

static void dies(uint32_t cgroups, enum death death)
{
    int pipe_fds[2], status;
    struct report report;
    ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        close(pipe_fds[0]);
        host(cgroups, death, pipe_fds[1]);
    }
    close(pipe_fds[1]);
    ssize_t n = read(pipe_fds[0], &report, sizeof report);
    close(pipe_fds[0]);
    if (n != sizeof report) { /* skipped, or failed: the host has said why */
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
    }
    if (death != EXITED && death != EXECED)
        kill(pid, SIGKILL);
    if (death != EXECED)
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
    for (int i = 0; i < PIDS; i++)
        wait_gone(report.pids[i]);
    for (size_t i = 0; i < sizeof report.inits / sizeof *report.inits; i++)
        if (report.inits[i])
            wait_gone(report.inits[i]);
    ASSERT_EQ(cgroups_left(pid), 0);
    if (death == EXECED) {
        kill(pid, SIGKILL);
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
    }
    if (report.copy)
        kill(report.copy, SIGKILL);
}

TEST_MODES(host_is_killed, 240)
{
    dies(cgroups, KILLED);
}

TEST_MODES(host_exits_without_a_word, 240)
{
    dies(cgroups, EXITED);
}

TEST_MODES(host_becomes_another_program, 240)
{
    dies(cgroups, EXECED);
}

/* A child that the host has forked holds copies of all connections. */
TEST_MODES(host_is_killed_but_not_its_fork, 240)
{
    dies(cgroups, LEAVES_A_COPY);
}

TEST_MODES(host_is_killed_while_a_domain_is_frozen, 240)
{
    dies(cgroups, FROZEN);
}

/* ---- one of ours dies ---- */

TEST_MODES(helper_is_replaced, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    if (!domain->helper.ours) {
        psup_domain_free(domain);
        psup_supervisor_free(supervisor);
        SKIP("no helper in this mode");
    }
    psup_process *before = shell(supervisor, domain, "before", "exec sleep 1000");
    for (int round = 0; round < 3; round++) {
        pid_t helper = domain->helper.pid;
        kill(helper, SIGKILL);
        wait_gone(helper);
        psup_process *process = shell(supervisor, domain, "p", "exit 3");
        ASSERT_EQ(ended(process).exit_status, 3);
        ASSERT(domain->helper.pid != helper);
        psup_process_free(process);
    }
    ASSERT(alive(psup_process_pid(before)));
    freeze_domain(domain);
    OK(psup_domain_thaw(domain, NULL, &test_error));
    kill(domain->helper.pid, SIGKILL);
    stop_domain(domain);
    ASSERT_EQ(ended(before).signo, SIGKILL);
    psup_process_free(before);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

TEST_MODES(process_does_not_outlive_its_shim, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process = shell(supervisor, domain, "p", "exec sleep 1000");
    if (!process->shim.ours) {
        psup_process_free(process);
        psup_domain_free(domain);
        psup_supervisor_free(supervisor);
        SKIP("no shim in this mode");
    }
    psup_events *events;
    psup_event event;
    pid_t pid = psup_process_pid(process);
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    kill(process->shim.pid, SIGKILL);
    event = ended(process);
    ASSERT_EQ(event.cause, PSUP_CAUSE_UNKNOWN);
    wait_gone(pid);
    ASSERT_EQ(psup_events_read(events, &event, 1), 1); /* still one event, and only one */
    ASSERT_EQ(event.cause, PSUP_CAUSE_UNKNOWN);
    ASSERT_EQ(psup_events_read(events, &event, 1), 0);
    psup_events_free(events);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* Its pid, or 0; the reaper may be about to replace it. */
static int keeper_of(psup_supervisor *supervisor)
{
    pthread_mutex_lock(&supervisor->lock);
    int pid = supervisor->keeper.ours ? supervisor->keeper.pid : 0;
    pthread_mutex_unlock(&supervisor->lock);
    return pid;
}

TEST_MODES(keeper_is_killed, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    int first = keeper_of(supervisor);
    if (first)
        kill(first, SIGKILL);
    psup_process *process = shell(supervisor, domain, "p", "exit 3");
    ASSERT_EQ(ended(process).exit_status, 3);
    for (int look = 0; first && keeper_of(supervisor) == first; look++) {
        ASSERT(look < 10000);
        usleep(1000);
    }
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

/* ---- what it is ---- */

static int count_descriptors(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    ASSERT(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

TEST_MODES(it_holds_little_and_heeds_no_signal, 240)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2};
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process = shell(supervisor, domain, "p", "exec sleep 1000");
    const struct psup__init *const inits[] = {&supervisor->keeper, &domain->helper, &process->shim};
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        char path[64];
        if (!inits[i]->ours)
            continue;
        int limit = inits[i] == &process->shim ? 4 : 3; /* the shim has a signalfd */
        for (uint64_t deadline = psup__deadline(PATIENCE); count_descriptors(inits[i]->pid) > limit;) {
            ASSERT(psup__left(deadline)); /* it may still be on its way */
            sleep_ms(2);
        }
        for (size_t j = 0; j < sizeof signals / sizeof *signals; j++)
            kill(inits[i]->pid, signals[j]);
        sleep_ms(20);
        ASSERT(alive(inits[i]->pid));
        ASSERT(getsid(inits[i]->pid) != getsid(0));
        /* No program of the host's can be reached and overwritten through it. */
        snprintf(path, sizeof path, "/proc/%d/exe", (int)inits[i]->pid);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ASSERT(fd < 0);
    }
    psup_process *other = shell(supervisor, domain, "q", "exit 3");
    ASSERT_EQ(ended(other).exit_status, 3);
    psup_process_free(other);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST(nothing_to_end_is_well_ended)
{
    ASSERT(!psup_supervisor_free(NULL));
    ASSERT(!psup_domain_free(NULL));
    ASSERT(!psup_process_free(NULL));
    struct psup__init none = {.socket = -1, .pidfd = -1, .pid = -1};
    psup__init_end(&none, 0);
    psup__init_end(&none, PSUP_FOREVER);
}
