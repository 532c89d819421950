#include "support.h"

#include "internal.h"
#include "runner.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

psup_error test_error;

psup_supervisor *new_supervisor(uint32_t cgroups)
{
    static const char *const choices[] = {"process tree", "cgroup v1", "cgroup v2", "cgroup v2"};
    psup_options options = {.size = sizeof options, .cgroups = cgroups};
    psup_supervisor *supervisor;
    psup_provider provider;
    OK(psup_supervisor_new(&options, &supervisor, &test_error));
    ASSERT_EQ(psup_supervisor_provider(supervisor, PSUP_NEED_FREEZE, &provider), 0);
    if (strcmp(provider.choice, choices[cgroups])) {
        char reason[sizeof test_error.text];
        snprintf(reason, sizeof reason, "%s", provider.reason);
        psup_supervisor_free(supervisor);
        SKIP("no writable %s: %s", choices[cgroups], reason);
    }
    return supervisor;
}

psup_domain *new_domain(psup_supervisor *supervisor, const char *name)
{
    psup_domain *domain;
    OK(psup_domain_new(supervisor, name, &domain, &test_error));
    return domain;
}

psup_domain *start_domain(psup_supervisor *supervisor, const char *name)
{
    psup_domain *domain = new_domain(supervisor, name);
    OK(psup_domain_start(domain, NULL, &test_error));
    return domain;
}

static int spawn(psup_supervisor *supervisor, psup_domain *domain, const char *name, const char *const *argv,
                 int output, psup_process **ret)
{
    static const char *const envp[] = {"PATH=/usr/local/bin:/usr/bin:/bin", NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fds[] = {null, output < 0 ? null : output, output < 0 ? null : output};
    psup_spec spec = {.size = sizeof spec,
                      .name = name,
                      .path = argv[0],
                      .argv = argv,
                      .envp = envp,
                      .cwd = "/",
                      .fds = fds,
                      .n_fds = 3};
    int result = psup_spawn(supervisor, domain, &spec, ret, &test_error);
    close(null);
    return result;
}

int try_shell(psup_supervisor *supervisor, psup_domain *domain, const char *name, const char *script,
              psup_process **ret)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    return spawn(supervisor, domain, name, argv, -1, ret);
}

psup_process *shell(psup_supervisor *supervisor, psup_domain *domain, const char *name, const char *script)
{
    psup_process *process;
    OK(try_shell(supervisor, domain, name, script, &process));
    return process;
}

psup_process *run(psup_supervisor *supervisor, psup_domain *domain, const char *const *argv, int output)
{
    psup_process *process;
    OK(spawn(supervisor, domain, argv[0], argv, output, &process));
    return process;
}

psup_event ended(psup_process *process)
{
    psup_event event;
    ASSERT_EQ(psup_process_wait(process, PATIENCE), 0);
    ASSERT_EQ(psup_process_result(process, &event), 0);
    return event;
}

psup_metrics stop_domain(psup_domain *domain)
{
    psup_metrics metrics = {.size = sizeof metrics};
    OK(psup_domain_stop(domain, PATIENCE, &metrics, &test_error));
    return metrics;
}

psup_metrics freeze_domain(psup_domain *domain)
{
    psup_metrics metrics = {.size = sizeof metrics};
    OK(psup_domain_freeze(domain, PATIENCE, &metrics, &test_error));
    return metrics;
}

const char *read_all(int fd)
{
    static char text[65536];
    size_t length = 0;
    ssize_t n;
    while (length < sizeof text - 1 && (n = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)n;
    text[length] = 0;
    close(fd);
    return text;
}

bool read_byte(int fd, char *ret)
{
    return read(fd, ret, 1) == 1;
}

/* From the state on: what stands behind the last ')' of /proc/PID/stat. */
static const char *stat_of(pid_t pid, char *text, size_t size)
{
    char path[64], *end;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    size_t n = fread(text, 1, size - 1, file);
    fclose(file);
    text[n] = 0;
    end = strrchr(text, ')');
    return end && end[1] ? end + 2 : NULL;
}

bool alive(pid_t pid)
{
    char text[1024];
    const char *stat = stat_of(pid, text, sizeof text);
    return stat && *stat != 'Z' && *stat != 'X';
}

void wait_gone(pid_t pid)
{
    uint64_t deadline = psup__deadline(PATIENCE);
    while (alive(pid)) {
        if (!psup__left(deadline))
            FAIL("process %d is still there", (int)pid);
        sleep_ms(2);
    }
}

long cpu_ticks(pid_t pid)
{
    char text[1024];
    const char *at = stat_of(pid, text, sizeof text);
    unsigned long user, system;
    /* state is the third field; user and system time are the 14th and the 15th */
    for (int field = 3; at && field < 14; field++)
        at = (at = strchr(at, ' ')) ? at + 1 : NULL;
    return at && sscanf(at, "%lu %lu", &user, &system) == 2 ? (long)(user + system) : -1;
}

void sleep_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) < 0)
        ;
}

int cgroups_left(pid_t pid)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    char start[32];
    int n = 0;
    snprintf(start, sizeof start, "pysup-%d-", (int)pid);
    psup__layout_find("", PSUP_CGROUP_V1 | PSUP_CGROUP_V2, NULL, places);
    for (int i = 0; i < PSUP__HIERARCHIES; i++) {
        DIR *dir = places[i].path[0] ? opendir(places[i].path) : NULL;
        struct dirent *entry;
        while (dir && (entry = readdir(dir)))
            n += !strncmp(entry->d_name, start, strlen(start));
        if (dir)
            closedir(dir);
    }
    return n;
}
