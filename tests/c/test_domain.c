/* Domains: started, frozen, thawed, metered, limited, stopped and started again. */
#include "internal.h"

#include "runner.h"
#include "support.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY "while :; do :; done"

/* Waits until it uses CPU time. */
static void wait_runs(pid_t pid)
{
    uint64_t deadline = psup__deadline(PATIENCE);
    long ticks = cpu_ticks(pid);
    while (cpu_ticks(pid) <= ticks) {
        if (!psup__left(deadline))
            FAIL("process %d does not run", (int)pid);
        sleep_ms(5);
    }
}

static void does_not_run(pid_t pid)
{
    long ticks = cpu_ticks(pid);
    sleep_ms(100);
    ASSERT(ticks >= 0);
    ASSERT_EQ(cpu_ticks(pid), ticks);
}

/* ---- the states ---- */

TEST_MODES(freeze_and_thaw, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process = shell(supervisor, domain, "p", BUSY " & " BUSY), *other;
    psup_metrics metrics = {.size = sizeof metrics}, again = metrics;
    pid_t pid = psup_process_pid(process);
    for (int round = 0; round < 5; round++) {
        wait_runs(pid);
        metrics = freeze_domain(domain);
        ASSERT(metrics.domain_cpu_run_ns > 0);
        ASSERT(metrics.domain_run_ns > 0 && metrics.domain_run_ns <= psup__now());
        ASSERT(metrics.domain_max_memory_usage_bytes > 0);
        does_not_run(pid);
        ASSERT_EQ(psup_domain_freeze(domain, 0, &again, &test_error), -EBUSY);
        ASSERT_EQ(try_shell(supervisor, domain, "q", "exit 0", &other), -EBUSY);
        ASSERT_EQ(psup_domain_metrics(domain, &again), 0);
        ASSERT_EQ(again.domain_run_ns, metrics.domain_run_ns);
        ASSERT_EQ(again.domain_cpu_run_ns, metrics.domain_cpu_run_ns);
        OK(psup_domain_thaw(domain, NULL, &test_error));
    }
    wait_runs(pid);
    OK(psup_domain_thaw(domain, NULL, &test_error)); /* a new cycle */
    ASSERT_EQ(psup_domain_metrics(domain, &again), 0);
    ASSERT(again.domain_run_ns < SECOND * 60);
    metrics = stop_domain(domain);
    ASSERT(metrics.domain_run_ns > 0);
    ASSERT(!alive(pid));
    ASSERT_EQ(ended(process).signo, SIGKILL);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

TEST_MODES(what_a_state_does_not_allow, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = new_domain(supervisor, "d");
    psup_metrics metrics = {.size = sizeof metrics, .domain_run_ns = 77};
    psup_process *process = NULL;
    for (int round = 0; round < 2; round++) { /* configured, and after a stop */
        ASSERT_EQ(psup_domain_freeze(domain, SECOND, &metrics, &test_error), -EBUSY);
        ASSERT_EQ(psup_domain_freeze_begin(domain, SECOND, &metrics, NULL), -EBUSY);
        ASSERT_EQ(psup_domain_thaw(domain, NULL, &test_error), -EBUSY);
        ASSERT_EQ(psup_domain_stop(domain, SECOND, &metrics, &test_error), -EBUSY);
        ASSERT_EQ(psup_domain_metrics(domain, &metrics), -EINVAL);
        ASSERT_EQ(try_shell(supervisor, domain, "p", "exit 0", &process), -EBUSY);
        ASSERT_EQ(metrics.domain_run_ns, 77);
        OK(psup_domain_start(domain, NULL, &test_error));
        ASSERT_EQ(psup_domain_start(domain, NULL, &test_error), -EBUSY);
        stop_domain(domain);
    }
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(stop_and_start_again, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = new_domain(supervisor, "d");
    psup_events *events;
    psup_event event;
    ASSERT_EQ(psup_events_new(domain, 0, &events), 0);
    for (int round = 0; round < 4; round++) {
        OK(psup_domain_start(domain, NULL, &test_error));
        psup_process *process = shell(supervisor, domain, "p", "trap '' TERM; setsid sleep 1000 & sleep 1000");
        if (round & 1)
            freeze_domain(domain);
        stop_domain(domain);
        ASSERT(!alive(psup_process_pid(process)));
        ASSERT_EQ(psup_events_read(events, &event, 1), 1);
        ASSERT_EQ(event.cause, PSUP_CAUSE_SIGNALED);
        ASSERT_EQ(event.signo, SIGKILL);
        ASSERT_EQ(psup_events_read(events, &event, 1), 0);
        psup_process_free(process);
    }
    psup_events_free(events);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(stop_in_the_middle_of_a_freeze, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process = shell(supervisor, domain, "p", BUSY);
    psup_metrics metrics = {.size = sizeof metrics};
    int result = psup_domain_freeze_begin(domain, 0, &metrics, &test_error);
    ASSERT(result == 0 || result == -EAGAIN);
    OK(psup_process_kill(process));
    ASSERT_EQ(ended(process).signo, SIGKILL);
    stop_domain(domain);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(names, 120)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    static const char *const bad[] = {"", ".", "..", "a/b", "/", "a\nb", NULL};
    char name[PSUP_NAME_MAX + 2];
    psup_domain *domain = NULL, *other;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ASSERT_EQ(psup_domain_new(supervisor, bad[i], &domain, &test_error), -EINVAL);
        ASSERT_STR_EQ(test_error.step, "name");
    }
    memset(name, 'n', sizeof name);
    name[PSUP_NAME_MAX + 1] = 0;
    ASSERT_EQ(psup_domain_new(supervisor, name, &domain, &test_error), -EINVAL);
    ASSERT(!domain);
    name[PSUP_NAME_MAX] = 0;
    domain = start_domain(supervisor, name);
    ASSERT_EQ(psup_domain_new(supervisor, name, &other, &test_error), -EEXIST);
    psup_process *process = shell(supervisor, domain, name, "exit 2");
    psup_event event = ended(process);
    ASSERT_STR_EQ(event.domain, name);
    ASSERT_STR_EQ(event.name, name);
    psup_process_free(process);
    psup_domain_free(domain);
    /* Those that look like a control file or its own cgroups; free again after the domain's end. */
    static const char *const odd[] = {"cgroup.procs", "p-0", "frozen", "tasks", " ", "\xff\xfe", "..."};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int twice = 0; twice < 2; twice++) {
            domain = start_domain(supervisor, odd[i]);
            process = shell(supervisor, domain, "p", "exit 2");
            ASSERT_EQ(ended(process).exit_status, 2);
            psup_process_free(process);
            psup_domain_free(domain);
        }
    psup_supervisor_free(supervisor);
}

TEST_MODES(many_domains, 240)
{
    enum { N = 12 };
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domains[N];
    psup_process *processes[N];
    char name[16];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "d%d", i);
        domains[i] = start_domain(supervisor, name);
        processes[i] = shell(supervisor, domains[i], "p", "exec sleep 1000");
    }
    for (int i = 0; i < N; i += 2)
        freeze_domain(domains[i]);
    for (int i = 0; i < N; i++)
        ASSERT(alive(psup_process_pid(processes[i])));
    /* The supervisor ends all of them, frozen or not. */
    psup_supervisor_free(supervisor);
    for (int i = 0; i < N; i++) {
        ASSERT(!alive(psup_process_pid(processes[i])));
        psup_process_free(processes[i]);
        psup_domain_free(domains[i]);
    }
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

/* ---- freezing what does not want to ---- */

TEST_MODES(freeze_of_what_forks, 400)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *process =
        shell(supervisor, domain, "p", "f() { while :; do (:) & (:) & wait; done; }; f & f & f & f & f");
    for (int round = 0; round < 20; round++) {
        psup_metrics metrics = {.size = sizeof metrics};
        sleep_ms(5);
        OK(psup_domain_freeze(domain, PATIENCE, &metrics, &test_error));
        OK(psup_domain_thaw(domain, NULL, &test_error));
    }
    freeze_domain(domain);
    stop_domain(domain);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

/* A v1 freezer of the test's own holds a process where neither a v2 freeze nor SIGKILL reaches it. */
struct ice {
    char path[PATH_MAX + 64];
};

static void write_ice(const struct ice *ice, const char *file, const char *text)
{
    char path[PATH_MAX + 128];
    snprintf(path, sizeof path, "%s/%s", ice->path, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ASSERT(fd >= 0);
    ASSERT(write(fd, text, strlen(text)) > 0 || errno == ESRCH);
    close(fd);
}

static void put_on_ice(struct ice *ice, pid_t pid)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    char text[16];
    psup__layout_find("", PSUP_CGROUP_V1, NULL, places);
    if (!places[PSUP__FREEZER].path[0])
        SKIP("needs the v1 freezer beside v2, to make a process that cannot be frozen");
    snprintf(ice->path, sizeof ice->path, "%s/psup-test-ice-%d", places[PSUP__FREEZER].path, (int)getpid());
    if (mkdir(ice->path, 0755) < 0)
        SKIP("cannot make a v1 freezer cgroup in %s: %s", places[PSUP__FREEZER].path, strerror(errno));
    snprintf(text, sizeof text, "%d", (int)pid);
    write_ice(ice, "cgroup.procs", text);
    write_ice(ice, "freezer.state", "FROZEN");
    char state[16] = "";
    for (uint64_t deadline = psup__deadline(PATIENCE); strncmp(state, "FROZEN", 6);) {
        char path[PATH_MAX + 128];
        snprintf(path, sizeof path, "%s/freezer.state", ice->path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ASSERT(read(fd, state, sizeof state - 1) > 0);
        close(fd);
        ASSERT(psup__left(deadline));
    }
}

static void melt(const struct ice *ice, pid_t pid)
{
    char text[16];
    write_ice(ice, "freezer.state", "THAWED");
    snprintf(text, sizeof text, "%d", (int)pid);
    write_ice(ice, "../cgroup.procs", text); /* where it came from, if it is still there */
    for (uint64_t deadline = psup__deadline(PATIENCE); rmdir(ice->path) < 0;) {
        ASSERT(psup__left(deadline));
        sleep_ms(5);
    }
}

TEST_TIMEOUT(a_freeze_that_times_out_is_undone, 240)
{
    psup_supervisor *supervisor = new_supervisor(PSUP_CGROUP_V2);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *stuck = shell(supervisor, domain, "stuck", BUSY), *other = shell(supervisor, domain, "other", BUSY);
    psup_metrics metrics = {.size = sizeof metrics, .domain_run_ns = 77};
    struct ice ice;
    put_on_ice(&ice, psup_process_pid(stuck));
    ASSERT_EQ(psup_domain_freeze(domain, SECOND / 5, &metrics, &test_error), -ETIMEDOUT);
    ASSERT_STR_EQ(test_error.step, "freeze");
    ASSERT_EQ(metrics.domain_run_ns, 77);
    wait_runs(psup_process_pid(other));

    /* The same in two steps, let go of in the middle. */
    ASSERT_EQ(psup_domain_freeze_begin(domain, SECOND / 100, &metrics, &test_error), -EAGAIN);
    ASSERT_EQ(psup_domain_freeze_begin(domain, SECOND / 100, &metrics, &test_error), -EAGAIN);
    ASSERT_EQ(try_shell(supervisor, domain, "p", "exit 0", &(psup_process *){NULL}), -EBUSY);
    OK(psup_domain_thaw(domain, NULL, &test_error));
    wait_runs(psup_process_pid(other));

    /* And in two steps that come to an end. */
    ASSERT_EQ(psup_domain_freeze_begin(domain, SECOND / 100, &metrics, &test_error), -EAGAIN);
    melt(&ice, psup_process_pid(stuck));
    OK(psup_domain_freeze_begin(domain, PATIENCE, &metrics, &test_error));
    does_not_run(psup_process_pid(other));
    does_not_run(psup_process_pid(stuck));
    OK(psup_domain_thaw(domain, NULL, &test_error));
    wait_runs(psup_process_pid(stuck)); /* the kernel does not freeze it late */
    psup_process_free(stuck);
    psup_process_free(other);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

static void no_action(int signal)
{
    (void)signal;
}

/* What even SIGKILL does not end must not hold up the end of its domain, nor be touched once that is freed. */
TEST_TIMEOUT(what_cannot_be_killed, 240)
{
    psup_supervisor *supervisor = new_supervisor(PSUP_CGROUP_V2);
    psup_domain *domain = start_domain(supervisor, "d");
    psup_process *stuck = shell(supervisor, domain, "stuck", "exec sleep 1000");
    psup_metrics metrics = {.size = sizeof metrics};
    pid_t pid = psup_process_pid(stuck);
    psup_event event;
    struct ice ice;
    put_on_ice(&ice, pid);
    ASSERT_EQ(psup_domain_stop(domain, SECOND / 10, &metrics, &test_error), -EAGAIN);
    ASSERT_EQ(psup_domain_stop(domain, 0, &metrics, &test_error), -EAGAIN);

    /* Signals that come all the time do not make it wait for ever. */
    struct sigaction action = {.sa_handler = no_action};
    timer_t timer;
    struct itimerspec often = {.it_value = {.tv_nsec = 5000000}, .it_interval = {.tv_nsec = 5000000}};
    sigaction(SIGALRM, &action, NULL);
    ASSERT_EQ(timer_create(CLOCK_MONOTONIC, NULL, &timer), 0);
    ASSERT_EQ(timer_settime(timer, 0, &often, NULL), 0);
    psup_domain_free(domain);
    timer_delete(timer);

    ASSERT_EQ(psup_process_result(stuck, &event), 0);
    ASSERT_EQ(event.cause, PSUP_CAUSE_UNKNOWN);
    ASSERT_EQ(psup_process_wait(stuck, 0), 0);
    psup_process_free(stuck);
    melt(&ice, pid);
    wait_gone(pid);
    /* It is reaped although no handle of it is left (the runner looks for zombies). */
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    for (uint64_t deadline = psup__deadline(PATIENCE); access(path, F_OK) == 0;) {
        ASSERT(psup__left(deadline));
        sleep_ms(5);
    }
    psup_supervisor_free(supervisor);
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

/* ---- what is left behind ---- */

TEST_TIMEOUT(stop_kills_what_a_killed_shim_has_left, 240)
{
    psup_supervisor *supervisor = new_supervisor(PSUP_CGROUP_V1);
    psup_domain *domain = start_domain(supervisor, "d");
    static const char *const argv[] = {
        "/bin/sh", "-c",
        "setsid sleep 1000 >/dev/null 2>&1 & echo $!; exec >/dev/null 2>&1; sleep 1; kill -9 $PPID; sleep 1000", NULL};
    int out[2];
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    psup_process *process = run(supervisor, domain, argv, out[1]);
    close(out[1]);
    pid_t left = atoi(read_all(out[0]));
    psup_event event = ended(process);
    ASSERT(event.cause == PSUP_CAUSE_UNKNOWN);
    ASSERT(alive(left));
    stop_domain(domain);
    wait_gone(left);
    psup_process_free(process);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

/* ---- limits ---- */

static bool has_limits(const psup_supervisor *supervisor)
{
    psup_provider cpu, memory;
    ASSERT_EQ(psup_supervisor_provider(supervisor, PSUP_NEED_CPU_LIMIT, &cpu), 0);
    ASSERT_EQ(psup_supervisor_provider(supervisor, PSUP_NEED_MEMORY_LIMIT, &memory), 0);
    return strcmp(cpu.choice, "none") && strcmp(memory.choice, "none");
}

TEST_MODES(limits, 240)
{
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_domain *domain = new_domain(supervisor, "d");
    psup_limits limits = {.size = sizeof limits, .cpus = 0.25, .memory_bytes = 64 << 20}, got = {.size = sizeof got};
    const double bad[] = {-1, 0.0005, 1e7, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        limits.cpus = bad[i];
        ASSERT_EQ(psup_supervisor_check_limits(supervisor, &limits, &test_error), -EINVAL);
        ASSERT_STR_EQ(test_error.step, "cpu_limit");
    }
    limits.cpus = 0.25;
    if (!has_limits(supervisor)) {
        ASSERT_EQ(psup_supervisor_check_limits(supervisor, &limits, &test_error), -ENOTSUP);
        ASSERT_EQ(psup_domain_start(domain, &limits, &test_error), -ENOTSUP);
        OK(psup_domain_start(domain, NULL, &test_error));
    } else {
        limits.memory_bytes = 1;
        ASSERT_EQ(psup_supervisor_check_limits(supervisor, &limits, &test_error), -EINVAL);
        limits.memory_bytes = 64 << 20;
        OK(psup_domain_start(domain, &limits, &test_error));
        ASSERT_EQ(psup_domain_limits(domain, &got), 0);
        ASSERT(got.cpus > 0.249 && got.cpus < 0.251);
        ASSERT_EQ(got.memory_bytes, 64 << 20);
        psup_process *process = shell(supervisor, domain, "p", BUSY);
        wait_runs(psup_process_pid(process));
        freeze_domain(domain);
        limits.cpus = 0.5;
        limits.memory_bytes = 128 << 20;
        OK(psup_domain_thaw(domain, &limits, &test_error));
        limits.cpus = 0;
        limits.memory_bytes = 32 << 20;
        OK(psup_domain_thaw(domain, &limits, &test_error));
        ASSERT_EQ(psup_domain_limits(domain, &got), 0);
        ASSERT(got.cpus <= 0);
        ASSERT_EQ(got.memory_bytes, 32 << 20);
        limits.memory_bytes = 0;
        OK(psup_domain_thaw(domain, &limits, &test_error));
        ASSERT_EQ(psup_domain_limits(domain, &got), 0);
        ASSERT_EQ(got.memory_bytes, 0);
        psup_process_free(process);
    }
    stop_domain(domain);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

TEST_MODES(out_of_memory, 240)
{
    static const char *const argv[] = {"/usr/bin/tail", "/dev/zero", NULL};
    psup_supervisor *supervisor = new_supervisor(cgroups);
    psup_limits limits = {.size = sizeof limits, .memory_bytes = 32 << 20};
    psup_provider provider;
    ASSERT_EQ(psup_supervisor_provider(supervisor, PSUP_NEED_OOM, &provider), 0);
    if (!strcmp(provider.choice, "none") || !has_limits(supervisor)) {
        psup_supervisor_free(supervisor);
        SKIP("no memory limits here");
    }
    psup_domain *domain = new_domain(supervisor, "d");
    OK(psup_domain_start(domain, &limits, &test_error));
    psup_process *other = shell(supervisor, domain, "other", "exec sleep 1000");
    psup_process *process = run(supervisor, domain, argv, -1);
    psup_event event = ended(process);
    ASSERT_EQ(event.cause, PSUP_CAUSE_OOM_KILLED);
    ASSERT_EQ(event.signo, SIGKILL);
    OK(psup_process_kill(other));
    ASSERT_EQ(ended(other).cause, PSUP_CAUSE_SIGNALED);
    psup_process_free(process);
    psup_process_free(other);
    ASSERT(stop_domain(domain).domain_max_memory_usage_bytes > 16 << 20);
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
}

static bool read_file(const char *directory, const char *file, char *text, size_t size)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    text[n > 0 ? n : 0] = 0;
    if (fd >= 0)
        close(fd);
    return n > 0;
}

/* v1 refuses a share above the parent's, but only after the old one has been taken away. */
TEST_TIMEOUT(a_limit_that_is_refused_leaves_the_old_one, 120)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    static const char *const last[] = {"cpu", "cpuacct", "memory", "freezer"};
    char parent[64], quota[PATH_MAX + 64], text[32];
    psup_supervisor *supervisor = new_supervisor(PSUP_CGROUP_V1);
    if (!has_limits(supervisor)) {
        psup_supervisor_free(supervisor);
        SKIP("no limits here");
    }
    psup_supervisor_free(supervisor);
    snprintf(parent, sizeof parent, "/psup-test-parent-%d", (int)getpid());
    psup_options options = {.size = sizeof options, .cgroups = PSUP_CGROUP_V1, .cgroup_parent = parent};
    OK(psup_supervisor_new(&options, &supervisor, &test_error));
    psup__layout_find("", PSUP_CGROUP_V1, parent, places);
    snprintf(quota, sizeof quota, "%s/cpu.cfs_quota_us", places[PSUP__CPU].path);
    int fd = open(quota, O_WRONLY | O_CLOEXEC);
    ASSERT(fd >= 0 && write(fd, "50000", 5) == 5);
    close(fd);

    psup_domain *domain = new_domain(supervisor, "d");
    psup_limits limits = {.size = sizeof limits, .cpus = 0.2, .memory_bytes = 64 << 20}, got = {.size = sizeof got};
    OK(psup_domain_start(domain, &limits, &test_error));
    ASSERT(read_file(places[PSUP__CPU].path, "cpu.cfs_quota_us", text, sizeof text));
    ASSERT_STR_EQ(text, "50000\n");
    limits.cpus = 4;
    limits.memory_bytes = 32 << 20;
    ASSERT_EQ(psup_domain_thaw(domain, &limits, &test_error), -EINVAL);
    ASSERT_STR_EQ(test_error.step, "cpu_limit");
    ASSERT_EQ(psup_domain_limits(domain, &got), 0);
    ASSERT_EQ(got.memory_bytes, 64 << 20);
    char own[PATH_MAX];
    snprintf(own, sizeof own, "%.3000s/%s/d-d", places[PSUP__CPU].path, supervisor->cgroups.name);
    ASSERT(read_file(own, "cpu.cfs_quota_us", text, sizeof text));
    ASSERT_STR_EQ(text, "20000\n");
    psup_domain_free(domain);
    psup_supervisor_free(supervisor);
    for (size_t i = 0; i < sizeof last / sizeof *last; i++)
        rmdir(places[PSUP__CPU + i].path);
}

/* ---- threads ---- */

struct shared {
    psup_supervisor *supervisor;
    psup_domain *domain;
    _Atomic bool over;
};

static bool is_one_of(int result, const int *allowed, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (result == allowed[i])
            return true;
    return false;
}

#define ALLOWED(call, ...)                                                               \
    do {                                                                                 \
        const int allowed[] = {__VA_ARGS__};                                             \
        int result = (call);                                                             \
        if (!is_one_of(result, allowed, sizeof allowed / sizeof *allowed))               \
            psup_test_fail(__FILE__, __LINE__, "%s: %d: %s", #call, result, error.text); \
    } while (0)

static void *freeze_often(void *argument)
{
    struct shared *shared = argument;
    psup_metrics metrics = {.size = sizeof metrics};
    psup_error error = {.code = 0};
    while (!atomic_load(&shared->over)) {
        ALLOWED(psup_domain_freeze(shared->domain, PATIENCE, &metrics, &error), 0, -EBUSY);
        ALLOWED(psup_domain_thaw(shared->domain, NULL, &error), 0, -EBUSY);
    }
    return NULL;
}

static void *look_often(void *argument)
{
    struct shared *shared = argument;
    psup_metrics metrics = {.size = sizeof metrics};
    psup_limits limits = {.size = sizeof limits};
    psup_event got[8];
    psup_error error = {.code = 0};
    while (!atomic_load(&shared->over)) {
        psup_events *events;
        ALLOWED(psup_domain_metrics(shared->domain, &metrics), 0, -EINVAL);
        ALLOWED(psup_domain_limits(shared->domain, &limits), 0);
        ASSERT_EQ(psup_events_new(shared->domain, 2, &events), 0);
        ASSERT(psup_events_read(events, got, 8) >= 0);
        psup_events_free(events);
    }
    return NULL;
}

static void *start_often(void *argument)
{
    struct shared *shared = argument;
    psup_error error = {.code = 0};
    static const char *const argv[] = {"/bin/sleep", "1000", NULL}, *const envp[] = {NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int fds[] = {null, null, null};
    psup_spec spec = {.size = sizeof spec,
                      .name = "p",
                      .path = argv[0],
                      .argv = argv,
                      .envp = envp,
                      .cwd = "/",
                      .fds = fds,
                      .n_fds = 3};
    while (!atomic_load(&shared->over)) {
        psup_process *process = NULL;
        ALLOWED(psup_spawn(shared->supervisor, shared->domain, &spec, &process, &error), 0, -EBUSY);
        if (process) {
            ASSERT_EQ(psup_process_kill(process), 0);
            ASSERT_EQ(psup_process_wait(process, PATIENCE), 0);
        }
        psup_process_free(process);
    }
    close(null);
    return NULL;
}

TEST_MODES(all_at_once, 600)
{
    static void *(*const work[])(void *) = {freeze_often, look_often, start_often, start_often};
    enum { N = sizeof work / sizeof *work };
    psup_supervisor *supervisor = new_supervisor(cgroups);
    struct shared shared = {supervisor, start_domain(supervisor, "d"), false};
    psup_process *process = shell(supervisor, shared.domain, "busy", BUSY);
    pthread_t threads[N];
    for (int i = 0; i < N; i++)
        ASSERT_EQ(pthread_create(&threads[i], NULL, work[i], &shared), 0);
    for (int round = 0; round < 10; round++) {
        psup_metrics metrics = {.size = sizeof metrics};
        sleep_ms(100);
        OK(psup_domain_stop(shared.domain, PATIENCE, &metrics, &test_error));
        OK(psup_domain_start(shared.domain, NULL, &test_error));
    }
    atomic_store(&shared.over, true);
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    psup_process_free(process);
    psup_domain_free(shared.domain);
    psup_supervisor_free(supervisor);
    ASSERT_EQ(cgroups_left(getpid()), 0);
}

static void *free_domain(void *argument)
{
    psup_domain_free(argument);
    return NULL;
}

static void *subscribe(void *argument)
{
    psup_events *events;
    psup_event event;
    int result;
    while (!(result = psup_events_new(argument, 1, &events))) {
        if (psup_events_wait(events, SECOND / 1000) == 0)
            while ((result = psup_events_read(events, &event, 1)) > 0)
                ;
        psup_events_free(events);
    }
    ASSERT_EQ(result, -ESHUTDOWN);
    return NULL;
}

/* The end of the supervisor in one thread, that of its domains, and a subscription, in others. */
TEST_MODES(ends_at_once, 240)
{
    for (int round = 0; round < 10; round++) {
        psup_supervisor *supervisor = new_supervisor(cgroups);
        psup_domain *domains[] = {start_domain(supervisor, "a"), start_domain(supervisor, "b"),
                                  start_domain(supervisor, "c")};
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) {
            psup_process_free(shell(supervisor, domains[i], "p", "exec sleep 1000"));
            ASSERT_EQ(pthread_create(&threads[i], NULL, i < 2 ? free_domain : subscribe, domains[i]), 0);
        }
        psup_supervisor_free(supervisor);
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        psup_domain_free(domains[2]);
    }
}
