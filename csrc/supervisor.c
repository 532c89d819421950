/* A supervisor: what it needs from the machine, opened once, and closed. */
#include "internal.h"

#include "child.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUEUE_LENGTH 1024u
#define QUEUE_LENGTH_MAX (1u << 20)
#define FREE_TIMEOUT (5 * PSUP__S)
#define ROOM 24 /* descriptors that psup_supervisor_new opens at most, those that it closes again among them */

int psup__supervisor_alive(const psup_supervisor *supervisor)
{
    if (supervisor->owner != getpid())
        return -ESTALE;
    return atomic_load(&supervisor->closed) ? -ESHUTDOWN : 0;
}

int psup__supervisor_check(const psup_supervisor *supervisor, psup_error *error)
{
    int result = psup__supervisor_alive(supervisor);
    if (result == -ESTALE)
        return psup__fail(error, ESTALE, "supervisor", "this supervisor belongs to process %d, which forked this one",
                          (int)supervisor->owner);
    if (result)
        return psup__fail(error, -result, "supervisor", "this supervisor has ended");
    return 0;
}

/* The keeper is told the supervisor's cgroup in each hierarchy, all that there is to kill and remove. */
static int start_keeper(psup_supervisor *supervisor, psup_error *error)
{
    struct psup__cgroups *cgroups = &supervisor->cgroups;
    char *paths[PSUP__HIERARCHIES] = {NULL};
    const char *argv[PSUP__HIERARCHIES + 3] = {"pysup-init", "keep"};
    int n = 0, result = 0;
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        if (cgroups->fds[i] >= 0) {
            if (asprintf(&paths[n], "%s/%s", cgroups->places[i].path, cgroups->name) < 0) {
                paths[n] = NULL;
                result = psup__fail(error, ENOMEM, "memory", "no memory for the supervisor");
                break;
            }
            argv[2 + n] = paths[n];
            n++;
        }
    if (!result && n)
        result = psup__init_start(supervisor, NULL, argv, &supervisor->keeper, error);
    if (!result && n) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &supervisor->keeper_watch};
        supervisor->keeper_watch.kind = PSUP__WATCH_KEEPER;
        epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, supervisor->keeper.pidfd, &event);
    }
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        free(paths[i]);
    return result;
}

void psup__keeper_ended(psup_supervisor *supervisor)
{
    epoll_ctl(supervisor->epoll, EPOLL_CTL_DEL, supervisor->keeper.pidfd, NULL);
    psup__init_end(&supervisor->keeper, 0);
    start_keeper(supervisor, NULL);
}

static int open_descriptors(psup_supervisor *supervisor, psup_error *error)
{
    struct {
        int *fd;
        int value;
        const char *what;
    } made[] = {
        {&supervisor->self, (int)syscall(SYS_pidfd_open, getpid(), 0), "pidfd"},
        {&supervisor->epoll, epoll_create1(EPOLL_CLOEXEC), "epoll"},
        {&supervisor->stop, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"},
        {&supervisor->changed, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"},
        {&supervisor->proc, psup__open(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY), "/proc"},
    };
    int code = errno, failed = -1;
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        *made[i].fd = made[i].value < 0 ? -1 : made[i].value;
        if (made[i].value < 0)
            failed = (int)i;
    }
    if (failed >= 0)
        return psup__fail(error, code ? code : EMFILE, made[failed].what, "cannot open a %s: %s", made[failed].what,
                          strerror(code ? code : EMFILE));
    supervisor->image = psup__init_image_fd(error);
    return supervisor->image < 0 ? supervisor->image : 0;
}

/* What cannot be opened for want of descriptors would look like a machine that does not have it, and be done without. */
static int check_room(const psup_supervisor *supervisor, psup_error *error)
{
    int fds[ROOM], n = 0, code = 0;
    while (n < ROOM && (fds[n] = fcntl(supervisor->proc, F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    if (n < ROOM)
        code = errno;
    for (int i = 0; i < n; i++)
        close(fds[i]);
    return code ? psup__fail(error, code, "descriptors",
                             "a supervisor needs room for %d descriptors, of which %d are missing: %s", ROOM, ROOM - n,
                             strerror(code))
                : 0;
}

/* All but the reaper; also of a half-made supervisor, and of a forked copy, where only what is its own is closed. */
static void close_all(psup_supervisor *supervisor)
{
    bool ours = supervisor->owner == getpid();
    supervisor->keeper.ours = supervisor->keeper.ours && ours;
    psup__init_end(&supervisor->keeper, FREE_TIMEOUT); /* first, for it stands in the leaf that made room, too */
    if (ours)
        psup__cgroups_close(&supervisor->cgroups);
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        supervisor->cgroups.fds[i] = psup__shut(supervisor->cgroups.fds[i]);
    psup__machine_close(&supervisor->machine);
    int *fds[] = {&supervisor->self,    &supervisor->epoll, &supervisor->stop,
                  &supervisor->changed, &supervisor->proc,  &supervisor->image};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        *fds[i] = psup__shut(*fds[i]);
}

void psup__supervisor_release(psup_supervisor *supervisor)
{
    if (atomic_fetch_sub(&supervisor->references, 1) == 1) {
        pthread_mutex_destroy(&supervisor->lock);
        free(supervisor);
    }
}

int psup_supervisor_new(const psup_options *options, psup_supervisor **ret, psup_error *error)
{
    if (options->size != sizeof *options)
        return psup__fail(error, EINVAL, "size", "psup_options of %zu bytes: made for another version", options->size);
    if (options->queue_length > QUEUE_LENGTH_MAX)
        return psup__fail(error, EINVAL, "queue_length", "queue_length is at most %u, not %u", QUEUE_LENGTH_MAX,
                          options->queue_length);
    psup_supervisor *supervisor = calloc(1, sizeof *supervisor);
    if (!supervisor)
        return psup__fail(error, ENOMEM, "memory", "no memory for the supervisor");
    atomic_init(&supervisor->references, 1);
    atomic_init(&supervisor->closing, false);
    atomic_init(&supervisor->closed, false);
    supervisor->owner = getpid();
    supervisor->queue_length = options->queue_length ? options->queue_length : QUEUE_LENGTH;
    supervisor->keeper = (struct psup__init){.socket = -1, .pidfd = -1, .pid = -1};
    supervisor->image = -1;
    for (int i = 0; i < PSUP__HIERARCHIES; i++)
        supervisor->cgroups.fds[i] = -1;
    pthread_mutex_init(&supervisor->lock, NULL);

    int result = open_descriptors(supervisor, error);
    if (!result)
        result = check_room(supervisor, error);
    if (!result)
        result = psup__cgroups_open(&supervisor->cgroups, options, error);
    psup__machine_open(&supervisor->machine, &supervisor->cgroups);
    if (!result)
        result = start_keeper(supervisor, error);
    if (!result && (result = psup__reaper_start(supervisor)))
        psup__fail(error, -result, "thread", "cannot start the thread that waits for processes: %s", strerror(-result));
    if (result) {
        close_all(supervisor);
        psup__supervisor_release(supervisor);
        return result;
    }
    *ret = supervisor;
    return 0;
}

void psup_supervisor_close(psup_supervisor *supervisor)
{
    if (atomic_exchange(&supervisor->closing, true))
        return;
    if (supervisor->owner == getpid()) {
        psup_domain *domain;
        pthread_mutex_lock(&supervisor->lock);
        while ((domain = supervisor->domains)) { /* another thread may free its handle of it meanwhile */
            atomic_fetch_add(&domain->references, 1);
            pthread_mutex_unlock(&supervisor->lock);
            psup__domain_end(domain);
            psup__domain_release(domain);
            pthread_mutex_lock(&supervisor->lock);
        }
        struct psup_process *process;
        while ((process = supervisor->processes)) {
            psup__process_reference(process);
            pthread_mutex_unlock(&supervisor->lock);
            psup_process_kill(process);
            uint64_t deadline = psup__deadline(FREE_TIMEOUT);
            while (psup_process_wait(process, psup__left(deadline)) == -EINTR)
                ;
            pthread_mutex_lock(&supervisor->lock);
            if (process == supervisor->processes)
                psup__process_abandon(process);
            psup__process_release(process);
        }
        pthread_mutex_unlock(&supervisor->lock);
        atomic_store(&supervisor->closed, true);
        psup__reaper_stop(supervisor);
        struct psup_process *abandoned;
        while ((abandoned = supervisor->abandoned)) {
            supervisor->abandoned = abandoned->next;
            psup__process_release(abandoned);
        }
    }
    close_all(supervisor);
}

psup_supervisor *psup_supervisor_free(psup_supervisor *supervisor)
{
    if (supervisor) {
        psup_supervisor_close(supervisor);
        psup__supervisor_release(supervisor);
    }
    return NULL;
}

int psup_supervisor_fd(const psup_supervisor *supervisor)
{
    return supervisor->changed;
}

int psup_supervisor_provider(const psup_supervisor *supervisor, psup_need need, psup_provider *ret)
{
    static const char *const needs[PSUP_NEED_COUNT] = {
        [PSUP_NEED_FREEZE] = "freeze",
        [PSUP_NEED_KILL] = "kill",
        [PSUP_NEED_TREE] = "tree",
        [PSUP_NEED_CPU] = "cpu",
        [PSUP_NEED_MEMORY] = "memory",
        [PSUP_NEED_CPU_LIMIT] = "cpu_limit",
        [PSUP_NEED_MEMORY_LIMIT] = "memory_limit",
        [PSUP_NEED_OOM] = "oom",
        [PSUP_NEED_MACHINE_CPU] = "microvm_cpu",
        [PSUP_NEED_IDLE_CPU] = "idle_cpu",
        [PSUP_NEED_NETWORK] = "network",
    };
    if ((unsigned)need >= PSUP_NEED_COUNT)
        return -EINVAL;
    bool optional = need == PSUP_NEED_CPU_LIMIT || need == PSUP_NEED_MEMORY_LIMIT || need == PSUP_NEED_OOM;
    bool tree = need == PSUP_NEED_FREEZE || need == PSUP_NEED_KILL || need == PSUP_NEED_TREE;
    enum psup__hierarchy from = supervisor->cgroups.needs[need].from;
    *ret = (psup_provider){
        .need = needs[need],
        .choice = from == PSUP__V2            ? "cgroup v2"
                  : from != PSUP__HIERARCHIES ? "cgroup v1"
                  : optional                  ? "none"
                  : tree                      ? "process tree"
                                              : "procfs",
        .detail = supervisor->cgroups.needs[need].detail,
        .reason = supervisor->cgroups.needs[need].reason,
    };
    return 0;
}

int psup_supervisor_check_limits(const psup_supervisor *supervisor, const psup_limits *limits, psup_error *error)
{
    return psup__limits_check(&supervisor->cgroups, limits, error);
}
