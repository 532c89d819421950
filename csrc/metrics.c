/* What a cycle cost: counters of the domain, of this process and of the machine, and the differences between two looks. */
#include "internal.h"

#include "sweep.h"
#include "tree.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODES_MAX 65536
#define LINE_MAX_BYTES 512 /* of /proc/net/dev: a name and sixteen numbers */

/* ---- the machine ---- */

void psup__machine_open(struct psup__machine *machine, struct psup__cgroups *cgroups)
{
    char mount[PATH_MAX + 32];
    const char *detail = "/proc/stat, in clock ticks";
    machine->tick_ns = (long)PSUP__S / sysconf(_SC_CLK_TCK);
    machine->cpu_kind = PSUP__MACHINE_NONE;

    /* The root cgroup of cpuacct counts all, in nanoseconds; of a namespace or a container, the root is not in sight. */
    machine->cpu = -1;
    if (cgroups->places[PSUP__CPUACCT].path[0]) {
        char *path = cgroups->places[PSUP__CPUACCT].path;
        struct stat root, here;
        snprintf(mount, sizeof mount, "%s/release_agent", path); /* only the true root has it (cgroups(7)) */
        if (stat(mount, &root) == 0 && stat(path, &here) == 0) {
            snprintf(mount, sizeof mount, "%s/cpuacct.usage", path);
            machine->cpu = open(mount, O_RDONLY | O_CLOEXEC);
            machine->cpu_kind = PSUP__MACHINE_USAGE;
            detail = "cpuacct.usage of the root cgroup";
        }
    }
    if (machine->cpu < 0) {
        machine->cpu = open("/proc/stat", O_RDONLY | O_CLOEXEC);
        machine->cpu_kind = machine->cpu < 0 ? PSUP__MACHINE_NONE : PSUP__MACHINE_STAT;
    }
    machine->idle = open("/proc/uptime", O_RDONLY | O_CLOEXEC);
    machine->network = open("/proc/self/net/dev", O_RDONLY | O_CLOEXEC);

    struct {
        psup_need need;
        int fd;
        const char *detail;
    } needs[] = {{PSUP_NEED_MACHINE_CPU, machine->cpu, detail},
                 {PSUP_NEED_IDLE_CPU, machine->idle, "/proc/uptime, in hundredths of a second"},
                 {PSUP_NEED_NETWORK, machine->network, "/proc/self/net/dev"}};
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        bool cgroup = needs[i].need == PSUP_NEED_MACHINE_CPU && machine->cpu_kind == PSUP__MACHINE_USAGE;
        cgroups->needs[needs[i].need].from = cgroup ? PSUP__CPUACCT : PSUP__HIERARCHIES;
        cgroups->needs[needs[i].need].detail = needs[i].fd < 0 ? "always 0" : needs[i].detail;
        if (needs[i].fd < 0)
            snprintf(cgroups->needs[needs[i].need].reason, sizeof cgroups->needs[0].reason, "%s cannot be read",
                     needs[i].detail);
    }
}

void psup__machine_close(struct psup__machine *machine)
{
    psup__shut(machine->cpu);
    psup__shut(machine->idle);
    psup__shut(machine->network);
}

/* The first line of /proc/stat (proc(5)): all that is neither idle (4th) nor waiting for a disk (5th). Guest time (9th
 * and 10th) is within user time already. */
static uint64_t busy_time(const struct psup__machine *machine, const char *text)
{
    uint64_t ticks = 0;
    char *at = strchr(text, ' ');
    for (int field = 1; at && field <= 8; field++) {
        uint64_t value = strtoull(at, &at, 10);
        if (field != 4 && field != 5)
            ticks += value;
    }
    return ticks * (uint64_t)machine->tick_ns;
}

static uint64_t machine_cpu(const struct psup__machine *machine)
{
    char text[256];
    uint64_t value = 0;
    if (machine->cpu_kind == PSUP__MACHINE_USAGE) {
        psup__read_number(machine->cpu, &value);
    } else if (machine->cpu_kind == PSUP__MACHINE_STAT) {
        ssize_t n = pread(machine->cpu, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        value = busy_time(machine, text);
    }
    return value;
}

/* The second number of /proc/uptime: seconds with two digits behind the point. */
static uint64_t idle_cpu(const struct psup__machine *machine)
{
    char text[64], *at;
    ssize_t n = machine->idle < 0 ? 0 : pread(machine->idle, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = 0;
    if (!(at = strchr(text, ' ')))
        return 0;
    uint64_t seconds = strtoull(at, &at, 10), hundredths = *at == '.' ? strtoull(at + 1, NULL, 10) : 0;
    return seconds * PSUP__S + hundredths * (PSUP__S / 100);
}

/* One line of /proc/net/dev: "  eth0: received-bytes … (8 numbers) sent-bytes …". */
static bool read_interface(char *line, psup_interface *ret)
{
    char *colon = strchr(line, ':');
    if (!colon)
        return false;
    *colon = 0;
    line += strspn(line, " ");
    memset(ret, 0, sizeof *ret);
    snprintf(ret->name, sizeof ret->name, "%s", line);
    char *at = colon + 1;
    ret->received_bytes = strtoull(at, &at, 10);
    for (int field = 0; field < 7; field++)
        strtoull(at, &at, 10);
    ret->transmitted_bytes = strtoull(at, NULL, 10);
    return true;
}

static int network(const struct psup__machine *machine, struct psup__sample *sample)
{
    char text[4096];
    off_t offset = 0;
    ssize_t n;
    sample->n_interfaces = 0;
    while (machine->network >= 0 && (n = pread(machine->network, text, sizeof text - 1, offset)) > 0) {
        text[n] = 0;
        char *line = text, *end;
        for (; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            if (sample->n_interfaces == sample->room) {
                size_t room = sample->room ? sample->room * 2 : 8;
                psup_interface *more = realloc(sample->interfaces, room * sizeof *more);
                if (!more)
                    return -ENOMEM;
                sample->interfaces = more;
                sample->room = room;
            }
            if (read_interface(line, &sample->interfaces[sample->n_interfaces]))
                sample->n_interfaces++;
        }
        /* The kernel ends a read early only where the next line does not fit. */
        if (line == text || n < (ssize_t)sizeof text - LINE_MAX_BYTES)
            break;
        offset += line - text;
    }
    return 0;
}

/* ---- the domain ---- */

/* The CPU clock of another process, as clock_getcpuclockid(3) makes it. */
static uint64_t process_cpu(int pid)
{
    struct timespec time;
    clockid_t clock = (clockid_t)((~(unsigned)pid << 3) | 2);
    return clock_gettime(clock, &time) == 0 ? (uint64_t)time.tv_sec * PSUP__S + (uint64_t)time.tv_nsec : 0;
}

static uint64_t process_peak(int proc, int pid)
{
    char path[32], text[16384]; /* VmHWM stands behind the groups, of which there may be many */
    snprintf(path, sizeof path, "%d/status", pid);
    int fd = psup__open(proc, path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *at = strstr(text, "\nVmHWM:");
    return at ? strtoull(at + 7, NULL, 10) * 1024 : 0;
}

/* The largest resident set of those that live in the domain's cgroup, where there is no memory controller. */
static uint64_t group_peak(psup_domain *domain)
{
    enum { ROOM = 4096 };
    uint64_t peak = 0;
    int *pids = malloc(ROOM * sizeof *pids);
    int count = pids ? psup__sweep_list(domain->group.fds[PSUP__V2], pids, ROOM) : 0;
    for (int i = 0; i < count && i < ROOM; i++) {
        uint64_t one = process_peak(domain->supervisor->proc, pids[i]);
        peak = one > peak ? one : peak;
    }
    free(pids);
    return peak;
}

/* Without cgroups: those that live below the shims. To list /proc is the dear part, so both figures are taken at once;
 * `ret_peak` NULL: not asked for. */
static void tree_figures(psup_domain *domain, uint64_t *ret_cpu, uint64_t *ret_peak)
{
    psup_supervisor *supervisor = domain->supervisor;
    struct psup__node *nodes = malloc(NODES_MAX * sizeof *nodes);
    int *roots = NULL, n_roots = psup__domain_roots(domain, &roots);
    long count = nodes && n_roots > 0 ? psup__tree_list(supervisor->proc, roots, (size_t)n_roots, nodes, NODES_MAX) : 0;
    uint64_t cpu = 0, peak = 0;
    for (long i = 0; i < count; i++) {
        cpu += process_cpu(nodes[i].pid) + nodes[i].ticks * (uint64_t)supervisor->machine.tick_ns;
        uint64_t one = ret_peak ? process_peak(supervisor->proc, nodes[i].pid) : 0;
        peak = one > peak ? one : peak;
    }
    *ret_cpu = cpu;
    if (ret_peak)
        *ret_peak = peak;
    free(roots);
    free(nodes);
}

/* With what was told of those that have ended. */
static void add_ended(psup_domain *domain, uint64_t *cpu, uint64_t *peak)
{
    pthread_mutex_lock(&domain->supervisor->lock);
    *cpu += domain->ended_cpu;
    *peak = domain->ended_peak > *peak ? domain->ended_peak : *peak;
    pthread_mutex_unlock(&domain->supervisor->lock);
}

/* CPU time and, where it is asked for, the peak of memory. */
static void domain_figures(psup_domain *domain, uint64_t *ret_cpu, uint64_t *ret_peak)
{
    const struct psup__group *group = &domain->group;
    uint64_t cpu = 0, peak = 0, ignored = 0;
    bool tree = false;
    switch (domain->supervisor->cgroups.needs[PSUP_NEED_CPU].from) {
    case PSUP__V2:
        psup__read_key(group->cpu, "usage_usec", &cpu);
        cpu *= 1000;
        break;
    case PSUP__CPUACCT:
        psup__read_number(group->cpu, &cpu);
        break;
    default:
        tree = true;
        tree_figures(domain, &cpu, ret_peak && group->peak < 0 ? &peak : NULL);
        add_ended(domain, &cpu, &peak);
    }
    *ret_cpu = cpu;
    if (!ret_peak)
        return;
    if (group->peak >= 0) {
        psup__read_number(group->peak, &peak);
    } else if (!tree) {
        if (group->fds[PSUP__V2] >= 0)
            peak = group_peak(domain);
        else
            tree_figures(domain, &ignored, &peak);
        add_ended(domain, &ignored, &peak);
    }
    *ret_peak = peak;
}

static int take_sample(psup_domain *domain, struct psup__sample *sample, uint64_t *ret_peak)
{
    const struct psup__machine *machine = &domain->supervisor->machine;
    struct timespec time;
    sample->wall = psup__now();
    domain_figures(domain, &sample->domain_cpu, ret_peak);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    sample->service_cpu = (uint64_t)time.tv_sec * PSUP__S + (uint64_t)time.tv_nsec;
    sample->machine_cpu = machine_cpu(machine);
    sample->idle_cpu = idle_cpu(machine);
    return network(machine, sample);
}

/* ---- the cycle ---- */

int psup__cycle_begin(psup_domain *domain)
{
    if (domain->group.peak_resets && pwrite(domain->group.peak, "0", 1, 0) < 0)
        domain->group.peak_resets = false; /* then the peak is that since the domain's start */
    int result = take_sample(domain, &domain->cycle.begin, NULL);
    /* A task counts as frozen a moment before it leaves the CPU, so the last of its time may be booked after the freeze:
     * it belongs to the next cycle, rather than to none. */
    if (!result && domain->state == PSUP__FROZEN)
        domain->cycle.begin.domain_cpu = domain->cycle.end.domain_cpu;
    return result;
}

static uint64_t since(uint64_t begin, uint64_t end)
{
    return end > begin ? end - begin : 0;
}

/* An interface that came, or began anew, in the cycle counts from zero. */
static uint64_t counted(uint64_t begin, uint64_t end)
{
    return end >= begin ? end - begin : end;
}

static const psup_interface *find_interface(const struct psup__sample *sample, const char *name)
{
    for (size_t i = 0; i < sample->n_interfaces; i++)
        if (!strcmp(sample->interfaces[i].name, name))
            return &sample->interfaces[i];
    return NULL;
}

/* Differences of two samples into the domain's own array. */
static int compare_interfaces(psup_domain *domain)
{
    const struct psup__sample *begin = &domain->cycle.begin, *end = &domain->cycle.end;
    if (end->n_interfaces > domain->interfaces_room) {
        psup_interface *more = realloc(domain->interfaces, end->n_interfaces * sizeof *more);
        if (!more)
            return -ENOMEM;
        domain->interfaces = more;
        domain->interfaces_room = end->n_interfaces;
    }
    for (size_t i = 0; i < end->n_interfaces; i++) {
        psup_interface *to = &domain->interfaces[i];
        const psup_interface *before = find_interface(begin, end->interfaces[i].name);
        *to = end->interfaces[i];
        if (before) {
            to->received_bytes = counted(before->received_bytes, to->received_bytes);
            to->transmitted_bytes = counted(before->transmitted_bytes, to->transmitted_bytes);
        }
    }
    return 0;
}

static int fill(psup_domain *domain, psup_metrics *ret)
{
    const struct psup__cycle *cycle = &domain->cycle;
    int result = compare_interfaces(domain);
    if (result || !ret)
        return result;
    if (ret->size != sizeof *ret)
        return -EINVAL;
    *ret = (psup_metrics){
        .size = sizeof *ret,
        .domain_cpu_run_ns = since(cycle->begin.domain_cpu, cycle->end.domain_cpu),
        .domain_run_ns = since(cycle->begin.wall, cycle->end.wall),
        .service_cpu_run_ns = since(cycle->begin.service_cpu, cycle->end.service_cpu),
        .domain_max_memory_usage_bytes = cycle->peak,
        .microvm_cpu_run_ns = since(cycle->begin.machine_cpu, cycle->end.machine_cpu),
        .idle_cpu_run_ns = since(cycle->begin.idle_cpu, cycle->end.idle_cpu),
        .interfaces = domain->interfaces,
        .n_interfaces = cycle->end.n_interfaces,
    };
    return 0;
}

int psup__cycle_end(psup_domain *domain, psup_metrics *ret)
{
    int result = take_sample(domain, &domain->cycle.end, &domain->cycle.peak);
    return result ? result : fill(domain, ret);
}

int psup__cycle_last(psup_domain *domain, psup_metrics *ret)
{
    return fill(domain, ret);
}

void psup__cycle_free(struct psup__cycle *cycle)
{
    free(cycle->begin.interfaces);
    free(cycle->end.interfaces);
    memset(cycle, 0, sizeof *cycle);
}

int psup_domain_metrics(psup_domain *domain, psup_metrics *ret)
{
    int result = psup__supervisor_alive(domain->supervisor);
    if (result)
        return result;
    pthread_mutex_lock(&domain->lock);
    if (domain->state == PSUP__STOPPED || domain->state == PSUP__ENDED)
        result = -EINVAL;
    else if (domain->state == PSUP__STARTED)
        result = psup__cycle_end(domain, ret);
    else
        result = psup__cycle_last(domain, ret);
    pthread_mutex_unlock(&domain->lock);
    return result;
}
