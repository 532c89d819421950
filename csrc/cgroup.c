/* The cgroups of a supervisor, of its domains and of their processes; limits. Statistics are in metrics.c. */
#include "internal.h"

#include "sweep.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define MAGIC_V1 0x27e0eb   /* CGROUP_SUPER_MAGIC, linux/magic.h */
#define MAGIC_V2 0x63677270 /* CGROUP2_SUPER_MAGIC */

/* Limits of the scheduler's bandwidth control (kernel/sched/core.c, Documentation/scheduler/sched-bwc.rst). */
#define PERIOD_US 100000
#define PERIOD_MAX_US 1000000
#define QUOTA_MIN_US 1000
#define CPUS_MAX 1e6

#define UNLIMITED_V1 (1ull << 62) /* what v1 shows for no limit is a little below 2^63 */

/* ---- small files ---- */

static int write_text(int fd, const char *text)
{
    ssize_t n = pwrite(fd, text, strlen(text), 0);
    return n < 0 ? -errno : 0;
}

static int write_below(int directory, const char *file, const char *text)
{
    int fd = psup__open(directory, file, O_WRONLY);
    if (fd < 0)
        return fd;
    int result = write_text(fd, text);
    close(fd);
    return result;
}

static bool has_file(int directory, const char *file)
{
    return faccessat(directory, file, F_OK, 0) == 0;
}

static ssize_t read_text(int fd, char *buffer, size_t size)
{
    ssize_t n = pread(fd, buffer, size - 1, 0);
    buffer[n > 0 ? n : 0] = 0;
    return n;
}

bool psup__read_number(int fd, uint64_t *ret)
{
    char text[32];
    if (fd < 0 || read_text(fd, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
        return false;
    *ret = strtoull(text, NULL, 10);
    return true;
}

bool psup__read_key(int fd, const char *key, uint64_t *ret)
{
    char text[512];
    size_t n = strlen(key);
    if (fd < 0 || read_text(fd, text, sizeof text) <= 0)
        return false;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, key, n) && line[n] == ' ') {
            *ret = strtoull(line + n + 1, NULL, 10);
            return true;
        }
    }
    return false;
}

/* ---- the supervisor's cgroups ---- */

/* Makes each missing part of a path that the user has named. */
static void make_path(char *path)
{
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            mkdir(path, 0755);
            *at = '/';
        }
    mkdir(path, 0755);
}

static int make_own(struct psup__cgroups *cgroups, int i, bool named)
{
    struct psup__place *place = &cgroups->places[i];
    struct statfs info;
    if (named)
        make_path(place->path);
    int parent = psup__open(AT_FDCWD, place->path, O_RDONLY | O_DIRECTORY);
    if (parent < 0)
        return parent;
    int fd = -EMEDIUMTYPE;
    if (fstatfs(parent, &info) == 0 && (info.f_type == MAGIC_V2) == (i == PSUP__V2) &&
        (info.f_type == MAGIC_V2 || info.f_type == MAGIC_V1)) {
        /* EEXIST: two controllers that share one hierarchy. */
        if (mkdirat(parent, cgroups->name, 0755) == 0 || errno == EEXIST) {
            fd = psup__open(parent, cgroups->name, O_RDONLY | O_DIRECTORY);
            if (fd < 0)
                unlinkat(parent, cgroups->name, AT_REMOVEDIR);
        } else {
            fd = -errno;
        }
    }
    close(parent);
    return fd;
}

/* cgroup v2 lets no process stand beside sub-cgroups that have controllers (no internal processes; the root is exempt):
 * this one moves into a leaf of its own. It can't speak for others. */
static int make_room(struct psup__cgroups *cgroups, int parent)
{
    char text[16];
    snprintf(cgroups->leaf, sizeof cgroups->leaf, "%.50s-host", cgroups->name);
    if (mkdirat(parent, cgroups->leaf, 0755) < 0)
        return -errno;
    int leaf = psup__open(parent, cgroups->leaf, O_RDONLY | O_DIRECTORY);
    snprintf(text, sizeof text, "%d", (int)getpid());
    int result = leaf < 0 ? leaf : write_below(leaf, "cgroup.procs", text);
    psup__shut(leaf);
    return result;
}

static void leave_room(struct psup__cgroups *cgroups, int parent)
{
    char text[16];
    if (!cgroups->leaf[0])
        return;
    snprintf(text, sizeof text, "%d", (int)getpid());
    write_below(parent, "cgroup.procs", text);
    unlinkat(parent, cgroups->leaf, AT_REMOVEDIR);
    cgroups->leaf[0] = 0;
}

static uint32_t read_controllers(int directory, const char *file)
{
    char text[256], *save = NULL;
    uint32_t found = 0;
    int fd = psup__open(directory, file, O_RDONLY);
    if (fd < 0)
        return 0;
    read_text(fd, text, sizeof text);
    close(fd);
    for (char *word = strtok_r(text, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
        found |= !strcmp(word, "cpu") ? PSUP__CONTROLLER_CPU : 0;
        found |= !strcmp(word, "memory") ? PSUP__CONTROLLER_MEMORY : 0;
    }
    return found;
}

/*
 * In one write, all or nothing. One by one, cpu would come through where memory does not: it is a threaded controller,
 * and beside processes it makes the sub-cgroups "domain invalid", in which nothing can be born (cgroups(7)).
 */
static int enable(int directory, uint32_t controllers, bool on)
{
    char text[32];
    snprintf(text, sizeof text, "%s%s",
             !(controllers & PSUP__CONTROLLER_CPU) ? ""
             : on                                  ? "+cpu "
                                                   : "-cpu ",
             !(controllers & PSUP__CONTROLLER_MEMORY) ? ""
             : on                                     ? "+memory"
                                                      : "-memory");
    return controllers ? write_below(directory, "cgroup.subtree_control", text) : 0;
}

/* As enable, but -EBUSY also where it is only the cgroups below that would be unfit for processes. */
static int enable_for_domains(struct psup__cgroups *cgroups, int parent, uint32_t controllers)
{
    char type[32] = "";
    int result = enable(parent, controllers, true);
    if (result)
        return result == -EOPNOTSUPP ? -EBUSY : result;
    int fd = psup__open(cgroups->fds[PSUP__V2], "cgroup.type", O_RDONLY);
    if (fd >= 0)
        read_text(fd, type, sizeof type);
    psup__shut(fd);
    if (!strncmp(type, "domain\n", 7))
        return 0;
    enable(parent, controllers, false);
    return -EBUSY;
}

/* Brings the cpu and memory controllers of v2 down to the domains' cgroups, as far as they can be had. */
static void open_controllers(struct psup__cgroups *cgroups)
{
    const char *path = cgroups->places[PSUP__V2].path;
    int parent = psup__open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    uint32_t there = read_controllers(parent, "cgroup.controllers");
    uint32_t missing = there & ~read_controllers(parent, "cgroup.subtree_control");
    int result = 0;
    if (!there)
        snprintf(cgroups->controllers_reason, sizeof cgroups->controllers_reason,
                 "cgroup v2 has neither the cpu nor the memory controller in %.120s", path);
    if (missing && (result = enable_for_domains(cgroups, parent, missing)) == -EBUSY) {
        if ((result = make_room(cgroups, parent)) == 0)
            result = enable_for_domains(cgroups, parent, missing);
        if (result)
            leave_room(cgroups, parent);
    }
    if (result == -EBUSY)
        snprintf(cgroups->controllers_reason, sizeof cgroups->controllers_reason,
                 "other processes stand in the cgroup %.120s: run this one in a cgroup of its own, as with "
                 "systemd-run --scope -p Delegate=yes",
                 path);
    else if (result)
        snprintf(cgroups->controllers_reason, sizeof cgroups->controllers_reason,
                 "cannot write cgroup.subtree_control in %.120s: %s", path, strerror(-result));
    else
        cgroups->enabled = missing;
    psup__shut(parent);
    there = read_controllers(cgroups->fds[PSUP__V2], "cgroup.controllers");
    if (enable(cgroups->fds[PSUP__V2], there, true) == 0)
        cgroups->controllers = there;
}

static void pick(struct psup__cgroups *cgroups, psup_need need, int from, const char *detail)
{
    cgroups->needs[need].from = (enum psup__hierarchy)from;
    cgroups->needs[need].detail = detail;
}

/* For a need that v2 does not serve: why not, and v1 if it is there. Whether it is. */
static bool pick_v1(struct psup__cgroups *cgroups, psup_need need, int hierarchy, const char *detail,
                    const char *v2_reason)
{
    char *reason = cgroups->needs[need].reason;
    size_t size = sizeof cgroups->needs[need].reason;
    if (cgroups->fds[hierarchy] >= 0) {
        pick(cgroups, need, hierarchy, detail);
        snprintf(reason, size, "%s", v2_reason);
        return true;
    }
    snprintf(reason, size, "%.255s; %.200s", v2_reason, cgroups->places[hierarchy].reason);
    return false;
}

static void pick_providers(struct psup__cgroups *cgroups)
{
    int v2 = cgroups->fds[PSUP__V2];
    const char *no_v2 = cgroups->places[PSUP__V2].reason;
    const char *no_controller = v2 < 0                           ? no_v2
                                : cgroups->controllers_reason[0] ? cgroups->controllers_reason
                                                                 : "cgroup v2 does not have the controller here";

    cgroups->v2_kill = v2 >= 0 && has_file(v2, "cgroup.kill");
    if (v2 >= 0 && has_file(v2, "cgroup.freeze"))
        pick(cgroups, PSUP_NEED_FREEZE, PSUP__V2, "cgroup.freeze");
    else if (!pick_v1(cgroups, PSUP_NEED_FREEZE, PSUP__FREEZER, "freezer.state",
                      v2 < 0 ? no_v2 : "cgroup.freeze needs Linux 5.2"))
        pick(cgroups, PSUP_NEED_FREEZE, PSUP__HIERARCHIES, "SIGSTOP and SIGCONT to each process, seen by its parent");

    if (v2 >= 0)
        pick(cgroups, PSUP_NEED_KILL, PSUP__V2,
             cgroups->v2_kill ? "cgroup.kill" : "frozen, then SIGKILL to each process (cgroup.kill needs Linux 5.14)");
    else if (!pick_v1(cgroups, PSUP_NEED_KILL, PSUP__FREEZER, "freezer.state, then SIGKILL to each process", no_v2))
        pick(cgroups, PSUP_NEED_KILL, PSUP__HIERARCHIES, "SIGSTOP, then SIGKILL to each process");

    if (v2 >= 0) {
        pick(cgroups, PSUP_NEED_TREE, PSUP__V2, "a cgroup for each process");
    } else {
        pick(cgroups, PSUP_NEED_TREE, PSUP__HIERARCHIES, "a subreaper for each process");
        snprintf(cgroups->needs[PSUP_NEED_TREE].reason, sizeof cgroups->needs[PSUP_NEED_TREE].reason, "%s", no_v2);
    }

    if (v2 >= 0)
        pick(cgroups, PSUP_NEED_CPU, PSUP__V2, "cpu.stat, in microseconds");
    else if (!pick_v1(cgroups, PSUP_NEED_CPU, PSUP__CPUACCT, "cpuacct.usage", no_v2))
        pick(cgroups, PSUP_NEED_CPU, PSUP__HIERARCHIES, "CPU clocks of the processes and getrusage of those reaped");

    if (cgroups->controllers & PSUP__CONTROLLER_MEMORY)
        pick(cgroups, PSUP_NEED_MEMORY, PSUP__V2,
             has_file(v2, "memory.peak") ? "memory.peak" : "memory.current at the end (memory.peak needs Linux 5.19)");
    else if (!pick_v1(cgroups, PSUP_NEED_MEMORY, PSUP__MEMORY, "memory.max_usage_in_bytes", no_controller))
        pick(cgroups, PSUP_NEED_MEMORY, PSUP__HIERARCHIES, "the largest resident set of one process since it began");

    if (cgroups->controllers & PSUP__CONTROLLER_CPU)
        pick(cgroups, PSUP_NEED_CPU_LIMIT, PSUP__V2, "cpu.max");
    else if (!pick_v1(cgroups, PSUP_NEED_CPU_LIMIT, PSUP__CPU, "cpu.cfs_quota_us", no_controller))
        pick(cgroups, PSUP_NEED_CPU_LIMIT, PSUP__HIERARCHIES, "refused");

    if (cgroups->controllers & PSUP__CONTROLLER_MEMORY)
        pick(cgroups, PSUP_NEED_MEMORY_LIMIT, PSUP__V2, "memory.max, memory.swap.max");
    else if (!pick_v1(cgroups, PSUP_NEED_MEMORY_LIMIT, PSUP__MEMORY,
                      "memory.limit_in_bytes, memory.memsw.limit_in_bytes", no_controller))
        pick(cgroups, PSUP_NEED_MEMORY_LIMIT, PSUP__HIERARCHIES, "refused");

    if (cgroups->controllers & PSUP__CONTROLLER_MEMORY)
        pick(cgroups, PSUP_NEED_OOM, PSUP__V2, "memory.events of each process's own cgroup");
    else if (!pick_v1(cgroups, PSUP_NEED_OOM, PSUP__MEMORY, "memory.oom_control of the domain", no_controller))
        pick(cgroups, PSUP_NEED_OOM, PSUP__HIERARCHIES, "an OOM kill is reported as signaled");
}

static bool leads_up(const char *path)
{
    for (const char *at = path; (at = strstr(at, "/..")); at += 3)
        if (!at[3] || at[3] == '/')
            return true;
    return false;
}

int psup__cgroups_open(struct psup__cgroups *cgroups, const psup_options *options, psup_error *error)
{
    const char *parent = options->cgroup_parent;
    uint32_t number;
    if (parent && (parent[0] != '/' || leads_up(parent) || strlen(parent) >= 1024))
        return psup__fail(error, EINVAL, "cgroup_parent",
                          "cgroup_parent must be a path from the hierarchy's root, not \"%.80s\"", parent);
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        cgroups->fds[i] = -1;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = (uint32_t)psup__now();
    snprintf(cgroups->name, sizeof cgroups->name, "pysup-%d-%08x", (int)getpid(), number);
    psup__layout_find("", options->cgroups, parent, cgroups->places);

    for (int i = 0; i < PSUP__HIERARCHIES; i++) {
        struct psup__place *place = &cgroups->places[i];
        if (!place->path[0])
            continue;
        int fd = make_own(cgroups, i, parent);
        if (fd < 0) {
            bool rights = fd == -EACCES || fd == -EPERM || fd == -EROFS;
            snprintf(place->reason, sizeof place->reason, "cannot make a cgroup in %.60s: %.40s%s", place->path,
                     fd == -EMEDIUMTYPE ? "no cgroup is mounted there" : strerror(-fd),
                     rights && i == PSUP__V2 ? " (as root, or with systemd-run --user --scope -p Delegate=yes, it can)"
                                             : "");
            place->path[0] = 0;
        } else {
            cgroups->fds[i] = fd;
        }
    }
    if (cgroups->fds[PSUP__V2] >= 0)
        open_controllers(cgroups);
    pick_providers(cgroups);

    /* The kernel switches a static key whenever the first v1 cgroup freezes or the last one thaws, which costs 80 us:
     * an empty cgroup that stays frozen keeps it on (kernel/cgroup/legacy_freezer.c). */
    int freezer = cgroups->fds[PSUP__FREEZER];
    if (cgroups->needs[PSUP_NEED_FREEZE].from == PSUP__FREEZER && mkdirat(freezer, "frozen", 0755) == 0)
        write_below(freezer, "frozen/freezer.state", "FROZEN");
    return 0;
}

void psup__cgroups_close(struct psup__cgroups *cgroups)
{
    for (int i = 0; i < PSUP__HIERARCHIES; i++) {
        if (cgroups->fds[i] < 0)
            continue;
        int parent = psup__open(AT_FDCWD, cgroups->places[i].path, O_RDONLY | O_DIRECTORY);
        if (parent >= 0) {
            psup__sweep_remove(parent, cgroups->name);
            if (i == PSUP__V2 && cgroups->leaf[0]) {
                enable(parent, cgroups->enabled, false);
                leave_room(cgroups, parent);
            }
            close(parent);
        }
        cgroups->fds[i] = psup__shut(cgroups->fds[i]);
    }
}

bool psup__cgroups_any(const struct psup__cgroups *cgroups)
{
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        if (cgroups->fds[i] >= 0)
            return true;
    return false;
}

/* Whether some need of a domain is served from this hierarchy. */
static bool in_use(const struct psup__cgroups *cgroups, int hierarchy)
{
    for (int need = 0; need <= PSUP_NEED_OOM; need++)
        if ((int)cgroups->needs[need].from == hierarchy)
            return true;
    return false;
}

bool psup__cgroups_helper(const struct psup__cgroups *cgroups)
{
    if (psup__cgroups_any(cgroups) && cgroups->needs[PSUP_NEED_MEMORY].from == PSUP__HIERARCHIES)
        return true;
    for (int i = PSUP__V2 + 1; i < PSUP__HIERARCHIES; i++)
        if (in_use(cgroups, i))
            return true;
    return false;
}

/* ---- a domain's cgroups ---- */

static void directory_name(const char *name, char ret[PSUP_NAME_MAX + 8])
{
    /* No name of a control file begins like this. */
    snprintf(ret, PSUP_NAME_MAX + 8, "d-%s", name);
}

void psup__group_init(struct psup__group *group)
{
    memset(group, 0, sizeof *group);
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        group->fds[i] = -1;
    group->freeze = group->events = group->kill = group->self_freezing = -1;
    group->cpu = group->peak = group->oom = -1;
    group->quota = group->period = group->memory = group->swap = -1;
    group->limits.size = sizeof group->limits;
}

void psup__group_close(struct psup__group *group)
{
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        psup__shut(group->fds[i]);
    int fds[] = {group->freeze, group->events, group->kill,   group->self_freezing, group->cpu, group->peak,
                 group->oom,    group->quota,  group->period, group->memory,        group->swap};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        psup__shut(fds[i]);
    psup__group_init(group);
}

static int open_files(const struct psup__cgroups *cgroups, struct psup__group *group, const char **ret_file)
{
    const int *fds = group->fds;
    struct {
        int *fd;
        psup_need need;
        enum psup__hierarchy from;
        const char *file;
        int flags;
    } files[] = {
        {&group->freeze, PSUP_NEED_FREEZE, PSUP__V2, "cgroup.freeze", O_WRONLY},
        {&group->freeze, PSUP_NEED_FREEZE, PSUP__FREEZER, "freezer.state", O_RDWR},
        {&group->self_freezing, PSUP_NEED_FREEZE, PSUP__FREEZER, "freezer.self_freezing", O_RDONLY},
        {&group->events, PSUP_NEED_KILL, PSUP__V2, "cgroup.events", O_RDONLY},
        {&group->cpu, PSUP_NEED_CPU, PSUP__V2, "cpu.stat", O_RDONLY},
        {&group->cpu, PSUP_NEED_CPU, PSUP__CPUACCT, "cpuacct.usage", O_RDONLY},
        {&group->peak, PSUP_NEED_MEMORY, PSUP__MEMORY, "memory.max_usage_in_bytes", O_RDWR},
        {&group->oom, PSUP_NEED_OOM, PSUP__MEMORY, "memory.oom_control", O_RDONLY},
        {&group->quota, PSUP_NEED_CPU_LIMIT, PSUP__V2, "cpu.max", O_RDWR},
        {&group->quota, PSUP_NEED_CPU_LIMIT, PSUP__CPU, "cpu.cfs_quota_us", O_RDWR},
        {&group->period, PSUP_NEED_CPU_LIMIT, PSUP__CPU, "cpu.cfs_period_us", O_RDWR},
        {&group->memory, PSUP_NEED_MEMORY_LIMIT, PSUP__V2, "memory.max", O_RDWR},
        {&group->memory, PSUP_NEED_MEMORY_LIMIT, PSUP__MEMORY, "memory.limit_in_bytes", O_RDWR},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (cgroups->needs[files[i].need].from == files[i].from) {
            int fd = psup__open(fds[files[i].from], files[i].file, files[i].flags);
            if (fd < 0) {
                *ret_file = files[i].file;
                return fd;
            }
            *files[i].fd = fd;
        }

    /* Those that a kernel may lack: cgroup.kill, swap accounting, a peak that can be reset (Linux 6.12). */
    int v2 = fds[PSUP__V2], fd;
    if (cgroups->v2_kill && (fd = psup__open(v2, "cgroup.kill", O_WRONLY)) >= 0)
        group->kill = fd;
    if (cgroups->needs[PSUP_NEED_MEMORY_LIMIT].from == PSUP__V2)
        group->swap = openat(v2, "memory.swap.max", O_RDWR | O_CLOEXEC);
    else if (cgroups->needs[PSUP_NEED_MEMORY_LIMIT].from == PSUP__MEMORY)
        group->swap = openat(fds[PSUP__MEMORY], "memory.memsw.limit_in_bytes", O_RDWR | O_CLOEXEC);
    group->peak_resets = group->peak >= 0;
    if (cgroups->needs[PSUP_NEED_MEMORY].from == PSUP__V2) {
        group->peak = openat(v2, "memory.peak", O_RDWR | O_CLOEXEC);
        group->peak_resets = group->peak >= 0;
        if (group->peak < 0)
            group->peak = openat(v2, "memory.peak", O_RDONLY | O_CLOEXEC);
        if (group->peak < 0)
            group->peak = openat(v2, "memory.current", O_RDONLY | O_CLOEXEC);
    }
    return 0;
}

int psup__group_make(const struct psup__cgroups *cgroups, const char *name, struct psup__group *group,
                     psup_error *error)
{
    char directory[PSUP_NAME_MAX + 8];
    const char *what = directory;
    int result = 0;
    directory_name(name, directory);
    psup__group_init(group);
    for (int i = 0; i < PSUP__HIERARCHIES && !result; i++) {
        if (!in_use(cgroups, i))
            continue;
        if (mkdirat(cgroups->fds[i], directory, 0755) < 0 && errno != EEXIST)
            result = -errno;
        else
            result = group->fds[i] = psup__open(cgroups->fds[i], directory, O_RDONLY | O_DIRECTORY);
        result = result < 0 ? result : 0;
    }
    /* Its leaves get the memory controller, so that an OOM kill can be told from another's. */
    if (!result && cgroups->controllers & PSUP__CONTROLLER_MEMORY &&
        (result = enable(group->fds[PSUP__V2], PSUP__CONTROLLER_MEMORY, true)))
        what = "cgroup.subtree_control";
    if (!result)
        result = open_files(cgroups, group, &what);
    if (result) {
        psup__group_close(group);
        psup__group_remove(cgroups, name);
        return psup__fail(error, -result, what, "cannot make the cgroups of domain \"%s\": %s: %s", name, what,
                          strerror(-result));
    }
    return 0;
}

int psup__group_remove(const struct psup__cgroups *cgroups, const char *name)
{
    char directory[PSUP_NAME_MAX + 8];
    int result = 0;
    directory_name(name, directory);
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        if (cgroups->fds[i] >= 0) {
            int one = psup__sweep_remove(cgroups->fds[i], directory);
            result = result ? result : one;
        }
    return result;
}

/* ---- leaves ---- */

int psup__leaf_make(const struct psup__cgroups *cgroups, const struct psup__group *group, unsigned number,
                    struct psup__leaf **ret)
{
    char name[16];
    int result = 0;
    struct psup__leaf *leaf = malloc(sizeof *leaf);
    if (!leaf)
        return -ENOMEM;
    *leaf = (struct psup__leaf){.directory = -1, .events = -1, .kill = -1, .number = number};
    snprintf(name, sizeof name, "p-%u", number);
    if (mkdirat(group->fds[PSUP__V2], name, 0755) < 0 && errno != EEXIST)
        result = -errno;
    if (!result && (leaf->directory = psup__open(group->fds[PSUP__V2], name, O_RDONLY | O_DIRECTORY)) < 0)
        result = leaf->directory;
    if (!result && (leaf->events = psup__open(leaf->directory, "cgroup.events", O_RDONLY)) < 0)
        result = leaf->events;
    if (!result && cgroups->v2_kill && (leaf->kill = psup__open(leaf->directory, "cgroup.kill", O_WRONLY)) < 0)
        result = leaf->kill;
    if (result) {
        psup__leaf_close(leaf);
        unlinkat(group->fds[PSUP__V2], name, AT_REMOVEDIR);
        return result;
    }
    *ret = leaf;
    return 0;
}

void psup__leaf_close(struct psup__leaf *leaf)
{
    psup__shut(leaf->directory);
    psup__shut(leaf->events);
    psup__shut(leaf->kill);
    free(leaf);
}

bool psup__leaf_populated(const struct psup__leaf *leaf)
{
    uint64_t populated = 1;
    psup__read_key(leaf->events, "populated", &populated);
    return populated;
}

uint64_t psup__leaf_oom_kills(const struct psup__leaf *leaf)
{
    uint64_t kills = 0;
    int fd = psup__open(leaf->directory, "memory.events", O_RDONLY);
    if (fd >= 0) {
        psup__read_key(fd, "oom_kill", &kills);
        close(fd);
    }
    return kills;
}

/* ---- limits ---- */

/* Whether the machine has swap into which a memory limit could be escaped. */
static bool has_swap(void)
{
    char text[512];
    int fd = psup__open(AT_FDCWD, "/proc/swaps", O_RDONLY);
    if (fd < 0)
        return false;
    read_text(fd, text, sizeof text);
    close(fd);
    const char *line = strchr(text, '\n'); /* the first is the heading */
    return line && line[1];
}

int psup__limits_check(const struct psup__cgroups *cgroups, const psup_limits *limits, psup_error *error)
{
    if (!isfinite(limits->cpus) || limits->cpus < 0 || limits->cpus > CPUS_MAX ||
        (limits->cpus > 0 && limits->cpus * PERIOD_MAX_US < QUOTA_MIN_US))
        return psup__fail(error, EINVAL, "cpu_limit", "cpu_limit must be 0 (none) or from %g to %g CPUs, not %g",
                          (double)QUOTA_MIN_US / PERIOD_MAX_US, CPUS_MAX, limits->cpus);
    if (limits->cpus > 0 && cgroups->needs[PSUP_NEED_CPU_LIMIT].from == PSUP__HIERARCHIES)
        return psup__fail(error, ENOTSUP, "cpu_limit", "cpu_limit cannot be had on this machine: %s",
                          cgroups->needs[PSUP_NEED_CPU_LIMIT].reason);
    if (limits->memory_bytes && cgroups->needs[PSUP_NEED_MEMORY_LIMIT].from == PSUP__HIERARCHIES)
        return psup__fail(error, ENOTSUP, "memory_limit_bytes", "memory_limit_bytes cannot be had on this machine: %s",
                          cgroups->needs[PSUP_NEED_MEMORY_LIMIT].reason);
    if (limits->memory_bytes && limits->memory_bytes < (uint64_t)sysconf(_SC_PAGESIZE))
        return psup__fail(error, EINVAL, "memory_limit_bytes",
                          "memory_limit_bytes must be 0 (none) or at least %ld, a page, not %llu",
                          sysconf(_SC_PAGESIZE), (unsigned long long)limits->memory_bytes);
    return 0;
}

static void cpu_share(double cpus, long *ret_quota, long *ret_period)
{
    *ret_period = cpus * PERIOD_US < QUOTA_MIN_US ? PERIOD_MAX_US : PERIOD_US;
    *ret_quota = (long)(cpus * (double)*ret_period + 0.5);
}

static int set_cpu(const struct psup__cgroups *cgroups, const struct psup__group *group, double cpus)
{
    char text[64];
    long quota, period;
    int result;
    cpu_share(cpus, &quota, &period);
    if (cgroups->needs[PSUP_NEED_CPU_LIMIT].from == PSUP__V2) {
        if (cpus > 0)
            snprintf(text, sizeof text, "%ld %ld", quota, period);
        else
            snprintf(text, sizeof text, "max");
        return write_text(group->quota, text);
    }
    /* Without a quota first, for the old one may not fit the new period. */
    if ((result = write_text(group->quota, "-1")) || cpus <= 0)
        return result;
    snprintf(text, sizeof text, "%ld", period);
    if ((result = write_text(group->period, text)))
        return result;
    snprintf(text, sizeof text, "%ld", quota);
    return write_text(group->quota, text);
}

static int set_memory(const struct psup__cgroups *cgroups, const struct psup__group *group, uint64_t bytes)
{
    bool v2 = cgroups->needs[PSUP_NEED_MEMORY_LIMIT].from == PSUP__V2;
    char text[32];
    int result;
    if (bytes)
        snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
    else
        snprintf(text, sizeof text, v2 ? "max" : "-1");
    if (group->swap < 0) {
        if (bytes && has_swap())
            return -ENOTSUP; /* the limit could be escaped into swap */
        return write_text(group->memory, text);
    }
    if (v2) {
        if ((result = write_text(group->swap, bytes ? "0" : "max")))
            return result;
        return write_text(group->memory, text);
    }
    /* v1 wants memory+swap never below memory: which goes first depends on the direction. */
    if (write_text(group->swap, text) == 0)
        return write_text(group->memory, text);
    if ((result = write_text(group->memory, text)))
        return result;
    return write_text(group->swap, text);
}

static int set_both(const struct psup__cgroups *cgroups, struct psup__group *group, const psup_limits *limits,
                    psup_error *error)
{
    int result;
    if (group->memory >= 0 && limits->memory_bytes != group->limits.memory_bytes &&
        (result = set_memory(cgroups, group, limits->memory_bytes)))
        return psup__fail(error, -result, "memory_limit_bytes", "cannot limit memory to %llu bytes: %s",
                          (unsigned long long)limits->memory_bytes,
                          result == -EBUSY     ? "more than that is in use"
                          : result == -ENOTSUP ? "this kernel does not account for swap, into which it would escape"
                                               : strerror(-result));
    if (group->quota >= 0 && (limits->cpus > 0 || group->limits.cpus > 0) &&
        (limits->cpus < group->limits.cpus || limits->cpus > group->limits.cpus || group->quota_lifted) &&
        (result = set_cpu(cgroups, group, limits->cpus)))
        return psup__fail(error, -result, "cpu_limit", "cannot limit CPU time to %g CPUs: %s", limits->cpus,
                          result == -EINVAL ? "more than a cgroup above allows" : strerror(-result));
    return 0;
}

int psup__limits_set(const struct psup__cgroups *cgroups, struct psup__group *group, const psup_limits *limits,
                     psup_error *error)
{
    psup_limits before = group->limits;
    int result = psup__limits_check(cgroups, limits, error);
    if (result)
        return result;
    if ((result = set_both(cgroups, group, limits, error))) {
        if (group->memory >= 0 && limits->memory_bytes != before.memory_bytes)
            set_memory(cgroups, group, before.memory_bytes);
        /* v1 takes the old quota away before it refuses the new one. */
        if (group->quota >= 0 && before.cpus > 0 && !group->quota_lifted)
            set_cpu(cgroups, group, before.cpus);
        return result;
    }
    group->quota_lifted = false;
    group->limits.cpus = limits->cpus;
    group->limits.memory_bytes = limits->memory_bytes;
    return 0;
}

void psup__quota_lift(const struct psup__cgroups *cgroups, struct psup__group *group)
{
    if (group->limits.cpus > 0 && !group->quota_lifted)
        group->quota_lifted = set_cpu(cgroups, group, 0) == 0;
}

void psup__quota_restore(const struct psup__cgroups *cgroups, struct psup__group *group)
{
    if (group->quota_lifted && set_cpu(cgroups, group, group->limits.cpus) == 0)
        group->quota_lifted = false;
}

/* As the kernel has them: it rounds memory to pages and time to microseconds. */
int psup_domain_limits(psup_domain *domain, psup_limits *ret)
{
    psup_limits limits = {.size = sizeof limits};
    int result = psup__supervisor_alive(domain->supervisor);
    if (result)
        return result;
    if (ret->size != sizeof limits)
        return -EINVAL;
    pthread_mutex_lock(&domain->lock);
    const struct psup__group *group = &domain->group;
    uint64_t bytes;
    if (group->limits.memory_bytes && psup__read_number(group->memory, &bytes) && bytes < UNLIMITED_V1)
        limits.memory_bytes = bytes;
    if (group->limits.cpus > 0) {
        long quota, period;
        cpu_share(group->limits.cpus, &quota, &period);
        limits.cpus = (double)quota / (double)period;
    }
    pthread_mutex_unlock(&domain->lock);
    *ret = limits;
    return 0;
}
