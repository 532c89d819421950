/* The calls of libpysup without Python. usage: capi CASE mode=auto|v2|v1|none tiny=PATH [n=N], see limit/loop.h. */
#include "limit/loop.h"

#include "pysup.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static psup_supervisor *supervisor;
static psup_domain *domain;
static psup_events *events;
static psup_error error;
static psup_metrics metrics = {.size = sizeof metrics};
static const char *tiny;
static int null;

static void good(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, strerror(-result), error.text);
        exit(1);
    }
}

static psup_process *start(const char *name, const char *stays)
{
    const char *argv[] = {tiny, stays, NULL}, *envp[] = {NULL};
    const int fds[] = {null, null, null};
    const psup_spec spec = {.size = sizeof spec,
                            .name = name,
                            .path = tiny,
                            .argv = argv,
                            .envp = envp,
                            .cwd = "/",
                            .fds = fds,
                            .n_fds = 3};
    psup_process *process;
    good(psup_spawn(supervisor, domain, &spec, &process, &error), "spawn");
    return process;
}

static void next_event(void)
{
    static psup_event event[64];
    int n;
    while (!(n = psup_events_read(events, event, 64)))
        good(psup_events_wait(events, PSUP_FOREVER), "wait");
    good(n, "read");
}

static void step_freeze(uint64_t ns[PARTS])
{
    uint64_t begin = now_ns();
    good(psup_domain_freeze(domain, 1000000000u, &metrics, &error), "freeze");
    uint64_t middle = now_ns();
    good(psup_domain_thaw(domain, NULL, &error), "thaw");
    ns[0] = middle - begin;
    ns[1] = now_ns() - middle;
}

static void step_exec(uint64_t ns[PARTS])
{
    uint64_t begin = now_ns();
    psup_process *process = start("one", NULL);
    ns[0] = now_ns() - begin;
    next_event();
    ns[1] = now_ns() - begin;
    psup_process_free(process);
}

static void step_kill(uint64_t ns[PARTS])
{
    psup_process *process = start("one", "stay");
    usleep(200); /* it sleeps by now */
    uint64_t begin = now_ns();
    good(psup_process_kill(process), "kill");
    good(psup_process_wait(process, PSUP_FOREVER), "wait");
    ns[0] = now_ns() - begin;
    psup_process_free(process);
    next_event();
}

static void step_event(uint64_t ns[PARTS])
{
    psup_process *process = start("one", "stay");
    usleep(200);
    uint64_t begin = now_ns();
    good(psup_process_signal(process, SIGTERM), "signal");
    next_event();
    ns[0] = now_ns() - begin;
    psup_process_free(process);
}

static void step_stat(uint64_t ns[PARTS])
{
    uint64_t begin = now_ns();
    good(psup_domain_metrics(domain, &metrics), "metrics");
    ns[0] = now_ns() - begin;
}

static void step_domain(uint64_t ns[PARTS])
{
    uint64_t begin = now_ns();
    good(psup_domain_start(domain, NULL, &error), "start");
    uint64_t middle = now_ns();
    good(psup_domain_stop(domain, PSUP_FOREVER, &metrics, &error), "stop");
    ns[0] = middle - begin;
    ns[1] = now_ns() - middle;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*step)(uint64_t ns[PARTS]);
        int parts, stopped;
    } cases[] = {{"freeze", step_freeze, 2, 0}, {"exec", step_exec, 2, 0}, {"kill", step_kill, 1, 0},
                 {"event", step_event, 1, 0},   {"stat", step_stat, 1, 0}, {"domain", step_domain, 2, 1}};
    const char *mode = argument(argv, "mode", 0), *n = argument(argv, "n", 0);
    psup_options options = {.size = sizeof options};
    options.cgroups = !strcmp(mode, "auto") ? PSUP_CGROUP_V1 | PSUP_CGROUP_V2
                      : !strcmp(mode, "v2") ? PSUP_CGROUP_V2
                      : !strcmp(mode, "v1") ? PSUP_CGROUP_V1
                                            : 0;
    tiny = argument(argv, "tiny", 0);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    good(psup_supervisor_new(&options, &supervisor, &error), "supervisor");
    good(psup_domain_new(supervisor, "capi", &domain, &error), "domain");
    good(psup_events_new(domain, 0, &events), "events");
    for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(argv[1], cases[i].name))
            continue;
        if (!cases[i].stopped)
            good(psup_domain_start(domain, NULL, &error), "start");
        for (int j = 0; j < (n ? atoi(n) : 0); j++) {
            char name[16];
            snprintf(name, sizeof name, "p%d", j);
            psup_process_free(start(name, "stay"));
        }
        converse(cases[i].step, cases[i].parts);
        psup_events_free(events);
        psup_supervisor_free(supervisor);
        return 0;
    }
    return 2;
}
