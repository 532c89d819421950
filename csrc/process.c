/* Processes: started, signalled, killed with all that descends from them, and waited for. */
#include "internal.h"

#include "child.h"
#include "init.h"
#include "sweep.h"
#include "tree.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIDFD_SIGNAL_GROUP 4u /* PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9 */
#define NODES_MAX 65536
#define TREE_ROUNDS 8
#define LET_DIE_NS (100 * PSUP__MS) /* how long to wait for the domain's lock where v1 holds SIGKILL back */
#define LOOK_MAX_NS (10 * PSUP__MS)
#define LOOKS 8                 /* after so many a kill is repeated, for it need not be atomic */
#define SHIM_NS (300 * 1000ull) /* how long to wait for the end of a shim before its tree is looked for */
#define SPIN_NS (100 * 1000ull) /* how long to wait awake for the end of what was killed */
#define LOOK_NS (50 * 1000ull) /* how soon to look whether the killed descendants are gone; doubled up to LOOK_MAX_NS */

static const char *const STEPS[] = {
    [PSUP__STEP_NONE] = "",
    [PSUP__STEP_CLONE] = "clone",
    [PSUP__STEP_CGROUP] = "cgroup",
    [PSUP__STEP_SESSION] = "session",
    [PSUP__STEP_DESCRIPTORS] = "descriptors",
    [PSUP__STEP_GROUPS] = "groups",
    [PSUP__STEP_GID] = "gid",
    [PSUP__STEP_UID] = "uid",
    [PSUP__STEP_CWD] = "cwd",
    [PSUP__STEP_EXEC] = "exec",
};

/* ---- the task ---- */

static size_t words_size(const char *const *words, size_t *ret_count)
{
    size_t size = 0, count = 0;
    for (; words[count]; count++)
        size += strlen(words[count]) + 1;
    *ret_count = count;
    return size;
}

size_t psup__task_size(const psup_spec *spec)
{
    size_t n_argv, n_envp;
    size_t size = words_size(spec->argv, &n_argv) + words_size(spec->envp, &n_envp);
    return sizeof(struct psup__task) + (n_argv + n_envp + 2) * sizeof(uint64_t) + size + strlen(spec->path) + 1 +
           strlen(spec->cwd) + 1;
}

static uint64_t put(char *base, size_t *at, const char *text)
{
    size_t n = strlen(text) + 1, place = *at;
    memcpy(base + place, text, n);
    *at += n;
    return place;
}

int psup__task_lay_out(const psup_spec *spec, struct psup__task *ret, size_t size)
{
    size_t need = psup__task_size(spec), n_argv, n_envp;
    if (need > size)
        return -E2BIG;
    words_size(spec->argv, &n_argv);
    words_size(spec->envp, &n_envp);
    char *base = (char *)ret;
    uint64_t *argv = (uint64_t *)(void *)(base + sizeof *ret), *envp = argv + n_argv + 1;
    size_t at = sizeof *ret + (n_argv + n_envp + 2) * sizeof(uint64_t);
    *ret = (struct psup__task){
        .size = need,
        .flags = (spec->flags & PSUP_SET_UID ? PSUP__TASK_UID : 0u) |
                 (spec->flags & PSUP_SET_GID ? PSUP__TASK_GID : 0u) |
                 (spec->flags & PSUP_DROP_GROUPS ? PSUP__TASK_GROUPS : 0u),
        .uid = spec->uid,
        .gid = spec->gid,
        .n_fds = (uint32_t)spec->n_fds,
        .argv = sizeof *ret,
        .envp = sizeof *ret + (n_argv + 1) * sizeof(uint64_t),
    };
    ret->path = put(base, &at, spec->path);
    ret->cwd = put(base, &at, spec->cwd);
    for (size_t i = 0; i < n_argv; i++)
        argv[i] = put(base, &at, spec->argv[i]);
    for (size_t i = 0; i < n_envp; i++)
        envp[i] = put(base, &at, spec->envp[i]);
    argv[n_argv] = envp[n_envp] = 0;
    return 0;
}

static int check(const psup_spec *spec, psup_error *error)
{
    if (spec->size != sizeof *spec)
        return psup__fail(error, EINVAL, "size", "psup_spec of %zu bytes: made for another version", spec->size);
    size_t n = spec->name ? strlen(spec->name) : 0;
    if (!n || n > PSUP_NAME_MAX)
        return psup__fail(error, EINVAL, "name", "a name has 1 to %d bytes, not %zu", PSUP_NAME_MAX, n);
    if (!spec->path || spec->path[0] != '/')
        return psup__fail(error, EINVAL, "path", "path must be absolute, not \"%.200s\"", spec->path ? spec->path : "");
    if (!spec->cwd || spec->cwd[0] != '/')
        return psup__fail(error, EINVAL, "cwd", "cwd must be absolute, not \"%.200s\"", spec->cwd ? spec->cwd : "");
    if (!spec->argv || !spec->argv[0] || !spec->envp)
        return psup__fail(error, EINVAL, "argv", "argv must hold argv[0], and envp must be there");
    if (!spec->fds || spec->n_fds < 3 || spec->n_fds > PSUP_FDS_MAX)
        return psup__fail(error, EINVAL, "fds", "a process has 3 to %d descriptors, not %zu", PSUP_FDS_MAX,
                          spec->n_fds);
    for (size_t i = 0; i < spec->n_fds; i++)
        if (spec->fds[i] < 0 || fcntl(spec->fds[i], F_GETFD) < 0)
            return psup__fail(error, EBADF, "fds", "descriptor %d for %zu is not open", spec->fds[i], i);
    if ((spec->flags & PSUP_SET_UID && spec->uid == UINT32_MAX) ||
        (spec->flags & PSUP_SET_GID && spec->gid == UINT32_MAX))
        return psup__fail(error, EINVAL, "uid", "user and group ids go up to %u", UINT32_MAX - 1);
    return 0;
}

/* ---- lists and references; all under the supervisor's lock, but for the counting ---- */

void psup__process_reference(struct psup_process *process)
{
    atomic_fetch_add(&process->references, 1);
}

void psup__process_release(struct psup_process *process)
{
    if (atomic_fetch_sub(&process->references, 1) != 1)
        return;
    psup__shut(process->pidfd);
    if (process->domain)
        psup__domain_release(process->domain);
    psup__supervisor_release(process->supervisor);
    free(process);
}

static void link_process(struct psup_process *process)
{
    struct psup_process **list = process->domain ? &process->domain->processes : &process->supervisor->processes;
    process->next = *list;
    process->previous = list;
    if (process->next)
        process->next->previous = &process->next;
    *list = process;
}

static void unlink_process(struct psup_process *process)
{
    *process->previous = process->next;
    if (process->next)
        process->next->previous = process->previous;
    process->previous = NULL;
}

void psup__process_changed(struct psup_process *process)
{
    atomic_fetch_add(&process->changes, 1);
    syscall(SYS_futex, &process->changes, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    eventfd_write(process->supervisor->changed, 1);
}

void psup__process_settle(struct psup_process *process)
{
    if (!process->ended || process->gone)
        return;
    if (process->leaf) {
        if (psup__leaf_populated(process->leaf))
            return;
        psup__domain_leaf_free(process->domain, process->leaf);
        process->leaf = NULL;
    } else if (process->shim.ours) {
        return;
    }
    process->gone = true;
    unlink_process(process);
    psup__process_changed(process);
    psup__process_release(process);
}

/* The reaper may have taken an event of it from its epoll set already, and reaps it should it end after all: its
 * reference is let go when the thread is. */
void psup__process_abandon(struct psup_process *process)
{
    psup_supervisor *supervisor = process->supervisor;
    if (process->shim.ours)
        epoll_ctl(supervisor->epoll, EPOLL_CTL_DEL, process->shim.socket, NULL);
    psup__init_end(&process->shim, 0);
    if (process->leaf)
        process->leaf->owner = NULL;
    process->leaf = NULL;
    process->ended = process->gone = true;
    process->result.cause = PSUP_CAUSE_UNKNOWN;
    unlink_process(process);
    process->next = supervisor->abandoned;
    supervisor->abandoned = process;
    psup__process_changed(process);
}

/* ---- start ---- */

static int fail_spawn(const psup_spec *spec, const struct psup__born *born, psup_error *error)
{
    const char *why = strerror(born->error), *step = STEPS[born->step];
    struct stat info;
    if (born->step == PSUP__STEP_EXEC && born->error == ENOENT && stat(spec->path, &info) == 0)
        why = "the interpreter that it names does not exist";
    else if (born->step == PSUP__STEP_EXEC && born->error == ENOEXEC)
        why = "not a program that the kernel can run; a script begins with a #! line";
    else if (born->step == PSUP__STEP_EXEC && born->error == EACCES && stat(spec->path, &info) == 0 &&
             S_ISDIR(info.st_mode))
        why = "it is a directory";
    switch (born->step) {
    case PSUP__STEP_EXEC:
        return psup__fail(error, born->error, step, "cannot execute \"%.200s\": %s", spec->path, why);
    case PSUP__STEP_CWD:
        return psup__fail(error, born->error, step, "cannot enter the working directory \"%.200s\": %s", spec->cwd,
                          why);
    case PSUP__STEP_UID:
        return psup__fail(error, born->error, step, "cannot become user %u: %s", spec->uid, why);
    case PSUP__STEP_GID:
        return psup__fail(error, born->error, step, "cannot become group %u: %s", spec->gid, why);
    default:
        return psup__fail(error, born->error, step, "cannot start \"%.200s\": %s: %s", spec->path, step, why);
    }
}

/* A child that failed before execve is dead, and ours to reap; a shim reaps its own. */
static void bury(const struct psup__born *born, bool reap)
{
    siginfo_t info;
    if (born->pidfd < 0)
        return;
    while (reap && waitid((idtype_t)3 /* P_PIDFD */, (id_t)born->pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
    close(born->pidfd);
}

/*
 * From the helper that stands in the domain's v1 cgroups. It may have been killed from inside, or for lack of memory:
 * then there is a new one, and the request is made again if the first can't have heard it. If it may have, the leaf is
 * emptied instead, for a process could be in it that no one knows.
 */
static int spawn_by_helper(psup_domain *domain, const psup_spec *spec, struct psup__leaf *leaf, struct psup__born *ret,
                           psup_error *error)
{
    psup_error ignored;
    int result = -ENOTCONN;
    for (int attempt = 0; result == -ENOTCONN && attempt < 2; attempt++) {
        if (attempt && (result = psup__domain_start_helper(domain, error)))
            return result;
        if (psup__task_lay_out(spec, domain->helper.task, PSUP__TASK_SPACE) < 0)
            return psup__fail(error, E2BIG, "exec",
                              "arguments and environment of \"%.200s\" are larger than the kernel takes", spec->path);
        result = psup__init_spawn(&domain->helper, spec->fds, spec->n_fds, leaf->directory, ret);
    }
    if (!result)
        return 0;
    if (result == -EPIPE || result == -ECONNRESET || result == -ETIMEDOUT) {
        leaf->killed = true;
        psup__sweep_kill(leaf->directory);
        psup__domain_start_helper(domain, &ignored); /* a late answer must not be taken for the next */
    }
    return psup__fail(error, -result, "pysup-init", "the helper of domain \"%s\" could not start \"%.200s\": %s",
                      domain->name, spec->path,
                      result == -ETIMEDOUT ? "it does not answer"
                      : result == -EPIPE || result == -ECONNRESET || result == -ENOTCONN
                          ? "it was killed, perhaps for lack of memory"
                          : strerror(-result));
}

static int spawn_directly(const psup_spec *spec, int cgroup_fd, struct psup__born *ret, psup_error *error)
{
    size_t size = psup__task_size(spec);
    struct psup__task *task = malloc(size);
    if (!task)
        return psup__fail(error, ENOMEM, "memory", "no memory for the arguments of \"%.200s\"", spec->path);
    psup__task_lay_out(spec, task, size);
    psup__task_resolve(task);
    psup__spawn(task, spec->fds, cgroup_fd, 0, ret);
    free(task);
    return 0;
}

/* Below a shim of its own, which in a domain with v1 cgroups is itself born of the helper. */
static int spawn_by_shim(struct psup_process *process, const psup_spec *spec, struct psup__born *ret, psup_error *error)
{
    const char *argv[] = {"pysup-init", "shim", process->domain ? process->domain->name : spec->name, NULL};
    struct psup__init *from = process->domain && process->domain->helper.task ? &process->domain->helper : NULL;
    int result = psup__init_start(process->supervisor, from, argv, &process->shim, error);
    if (from && result == -ENOTCONN) { /* the helper was killed from inside */
        if ((result = psup__domain_start_helper(process->domain, error)) == 0)
            result = psup__init_start(process->supervisor, from, argv, &process->shim, error);
    }
    if (result)
        return result;
    if (psup__task_lay_out(spec, process->shim.task, PSUP__TASK_SPACE) < 0)
        result = psup__fail(error, E2BIG, "exec",
                            "arguments and environment of \"%.200s\" are larger than the kernel takes", spec->path);
    else if ((result = psup__init_spawn(&process->shim, spec->fds, spec->n_fds, -1, ret)))
        psup__fail(error, -result, "pysup-init", "the shim of \"%.200s\" cannot start it: %s", spec->path,
                   strerror(-result));
    if (result) {
        /* It kills what it has started, if it has, when the connection ends. */
        syscall(SYS_pidfd_send_signal, process->shim.pidfd, SIGCONT, NULL, 0);
        psup__init_end(&process->shim, PSUP__S);
    }
    return result;
}

static int start(struct psup_process *process, const psup_spec *spec, struct psup__born *born, psup_error *error)
{
    psup_supervisor *supervisor = process->supervisor;
    psup_domain *domain = process->domain;
    int result;
    /* Where a helper could not be replaced, no process may be started around it: it would escape the limits. */
    if (domain && !domain->helper.task && psup__cgroups_helper(&supervisor->cgroups) &&
        (result = psup__domain_start_helper(domain, error)))
        return result;
    if (!domain || supervisor->cgroups.needs[PSUP_NEED_TREE].from != PSUP__V2) {
        result = spawn_by_shim(process, spec, born, error);
    } else {
        pthread_mutex_lock(&supervisor->lock);
        result = psup__domain_leaf(domain, process, &process->leaf);
        pthread_mutex_unlock(&supervisor->lock);
        if (result)
            return psup__fail(error, -result, "cgroup", "cannot make a cgroup for \"%s\" in domain \"%s\": %s",
                              spec->name, domain->name, strerror(-result));
        if (domain->helper.task)
            result = spawn_by_helper(domain, spec, process->leaf, born, error);
        else
            result = spawn_directly(spec, process->leaf->directory, born, error);
    }
    if (!result && born->error) {
        bury(born, !process->shim.ours);
        result = fail_spawn(spec, born, error);
    }
    return result;
}

/* Nothing of it is in any list yet. */
static void discard(struct psup_process *process)
{
    if (process->leaf) {
        pthread_mutex_lock(&process->supervisor->lock);
        psup__domain_leaf_free(process->domain, process->leaf);
        pthread_mutex_unlock(&process->supervisor->lock);
    }
    if (process->shim.ours)
        psup__init_end(&process->shim, PSUP__S);
    psup__process_release(process);
}

static int watch(struct psup_process *process)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &process->watch};
    int fd = process->pidfd;
    if (process->shim.ours) {
        event.data.ptr = &process->shim_watch;
        fd = process->shim.socket;
    }
    return epoll_ctl(process->supervisor->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int spawn(psup_supervisor *supervisor, psup_domain *domain, const psup_spec *spec, psup_process **ret,
                 psup_error *error)
{
    struct psup__born born = {-1, -1, 0, PSUP__STEP_NONE};
    struct psup_process *process = calloc(1, sizeof *process);
    if (!process)
        return psup__fail(error, ENOMEM, "memory", "no memory for process \"%s\"", spec->name);
    atomic_init(&process->references, 1);
    process->supervisor = supervisor;
    process->domain = domain;
    atomic_fetch_add(&supervisor->references, 1);
    if (domain)
        atomic_fetch_add(&domain->references, 1);
    process->pidfd = process->shim.socket = process->shim.pidfd = -1;
    process->watch = (struct psup__watch){PSUP__WATCH_PROCESS, process};
    process->shim_watch = (struct psup__watch){PSUP__WATCH_SHIM, process};
    process->result.type = PSUP_EVENT_TERMINATION;
    snprintf(process->result.name, sizeof process->result.name, "%s", spec->name);
    snprintf(process->result.domain, sizeof process->result.domain, "%s", domain ? domain->name : "");

    /* What was counted before its birth does not explain its death. Before the start: it may die at once. */
    pthread_mutex_lock(&supervisor->lock);
    if (domain)
        process->oom_kills = psup__domain_oom_kills(domain);
    if (domain && !domain->processes)
        domain->oom_kills = process->oom_kills;
    pthread_mutex_unlock(&supervisor->lock);

    int result = start(process, spec, &born, error);
    if (result) {
        discard(process);
        return result;
    }
    process->pid = born.pid;
    process->pidfd = born.pidfd;
    if (process->shim.task) { /* it has been read */
        munmap(process->shim.task, PSUP__TASK_SPACE);
        process->shim.task = NULL;
    }

    pthread_mutex_lock(&supervisor->lock);
    psup__process_reference(process); /* the reaper's, until it is gone */
    link_process(process);
    if ((result = watch(process))) {
        unlink_process(process);
        psup__process_release(process);
    }
    pthread_mutex_unlock(&supervisor->lock);
    if (result) {
        syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
        if (!process->shim.ours) {
            bury(&born, true);
            process->pidfd = -1;
        }
        discard(process);
        return psup__fail(error, -result, "epoll", "cannot watch process \"%s\": %s", spec->name, strerror(-result));
    }
    *ret = process;
    return 0;
}

int psup_spawn(psup_supervisor *supervisor, psup_domain *domain, const psup_spec *spec, psup_process **ret,
               psup_error *error)
{
    int result = psup__supervisor_check(supervisor, error);
    if (result)
        return result;
    if ((result = check(spec, error)))
        return result;
    if (!domain)
        return spawn(supervisor, NULL, spec, ret, error);
    if (domain->supervisor != supervisor)
        return psup__fail(error, EINVAL, "domain", "domain \"%s\" belongs to another supervisor", domain->name);
    pthread_mutex_lock(&domain->lock);
    if (domain->state == PSUP__STARTED) {
        /* The quota is the domain's, and who starts the process may stand in it: it would wait for its share. */
        psup__quota_lift(&supervisor->cgroups, &domain->group);
        result = spawn(supervisor, domain, spec, ret, error);
        psup__quota_restore(&supervisor->cgroups, &domain->group);
    } else
        result = psup__fail(error, EBUSY, "state", "domain \"%s\" is not running", domain->name);
    pthread_mutex_unlock(&domain->lock);
    return result;
}

/* ---- signals ---- */

int psup_process_signal(psup_process *process, int signal)
{
    psup_supervisor *supervisor = process->supervisor;
    int result = psup__supervisor_alive(supervisor);
    if (result)
        return result;
    if (signal < 1 || signal > 64)
        return -EINVAL;
    pthread_mutex_lock(&supervisor->lock);
    if (!process->ended) {
        result = syscall(SYS_pidfd_send_signal, process->pidfd, signal, NULL, PIDFD_SIGNAL_GROUP) < 0 ? -errno : 0;
        if (result == -EINVAL && process->shim.ours) {
            /* Before Linux 6.9 a group is named by number, which holds only while its leader is not reaped: its parent
             * sees to that, here the shim, else this process's reaper, which takes the lock that is held now. */
            struct psup__request request = {.type = PSUP__REQUEST_SIGNAL, .signal = (uint32_t)signal};
            result = send(process->shim.socket, &request, sizeof request, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
        } else if (result == -EINVAL) {
            result = syscall(SYS_pidfd_send_signal, process->pidfd, 0, NULL, 0) < 0 ? -errno : 0;
            if (!result && kill(-process->pid, signal) < 0)
                result = -errno;
        }
        if (result == -ESRCH || result == -EPIPE || result == -ECONNRESET)
            result = 0; /* it ends just now */
    }
    pthread_mutex_unlock(&supervisor->lock);
    return result;
}

/* Under the supervisor's lock, on a process that may have left descendants. */
static void kill_all(struct psup_process *process)
{
    psup_supervisor *supervisor = process->supervisor;
    if (process->leaf) {
        process->leaf->killed = true;
        if (process->leaf->kill < 0 || pwrite(process->leaf->kill, "1", 1, 0) < 0)
            psup__sweep_kill(process->leaf->directory);
        if (!process->ended) /* who may write to cgroupfs can have moved itself out of its leaf */
            syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
        return;
    }
    if (!process->ended)
        syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
    if (process->shim.ours) /* someone may have stopped it, but it has to reap */
        syscall(SYS_pidfd_send_signal, process->shim.pidfd, SIGCONT, NULL, 0);
    /* A shim ends when nothing is left below it: no need then to look through /proc, which costs milliseconds. */
    if (process->shim.ours && psup__poll(process->shim.pidfd, POLLIN, SHIM_NS) > 0)
        return;
    struct psup__node *nodes = process->shim.ours ? malloc(NODES_MAX * sizeof *nodes) : NULL;
    if (nodes)
        psup__tree_signal(supervisor->proc, &process->shim.pid, 1, SIGKILL, TREE_ROUNDS, nodes, NODES_MAX);
    free(nodes);
}

/* v1 holds even SIGKILL back until the thaw. */
static void let_die(struct psup_process *process, uint64_t wait)
{
    if (process->domain && process->supervisor->cgroups.needs[PSUP_NEED_FREEZE].from == PSUP__FREEZER)
        psup__domain_let_die_soon(process->domain, wait);
}

int psup_process_kill(psup_process *process)
{
    psup_supervisor *supervisor = process->supervisor;
    int result = psup__supervisor_alive(supervisor);
    if (result)
        return result;
    pthread_mutex_lock(&supervisor->lock);
    psup__process_settle(process);
    bool sent = !process->gone; /* what it has left behind is its descendants, too */
    if (sent) {
        process->killed = true;
        kill_all(process);
    }
    pthread_mutex_unlock(&supervisor->lock);
    if (sent)
        let_die(process, LET_DIE_NS);
    return 0;
}

/* Whether there is nothing left to wait for; repeats a kill that is not atomic. */
static bool is_over(struct psup_process *process, bool *ret_killed)
{
    psup_supervisor *supervisor = process->supervisor;
    pthread_mutex_lock(&supervisor->lock);
    psup__process_settle(process);
    bool over = process->ended && (process->gone || !process->killed);
    bool again = !over && process->killed && ++process->looks % LOOKS == 0;
    if (again)
        kill_all(process);
    *ret_killed = process->killed;
    pthread_mutex_unlock(&supervisor->lock);
    if (again)
        let_die(process, 0);
    return over;
}

int psup_process_wait(psup_process *process, uint64_t timeout)
{
    uint64_t deadline = psup__deadline(timeout), pause = LOOK_NS;
    int result = psup__supervisor_alive(process->supervisor);
    if (result)
        return result;
    for (bool looked = false, killed;;) {
        uint32_t seen = atomic_load(&process->changes);
        if (is_over(process, &killed))
            return 0;
        uint64_t left = psup__left(deadline);
        if (!left)
            return -ETIMEDOUT;
        /* The end is announced, but what a killed process leaves behind is looked for. */
        if (killed) {
            if (!looked) {
                /* To sleep and be woken takes as long as to die: the CPU is yielded to those who do. */
                uint64_t end = psup__deadline(left < SPIN_NS ? left : SPIN_NS);
                while (atomic_load(&process->changes) == seen && psup__now() < end)
                    sched_yield();
                looked = true;
                continue;
            }
            left = left < pause ? left : pause;
            pause = pause * 2 < LOOK_MAX_NS ? pause * 2 : LOOK_MAX_NS;
        }
        struct timespec time = {(time_t)(left / PSUP__S), (long)(left % PSUP__S)};
        if (syscall(SYS_futex, &process->changes, FUTEX_WAIT_PRIVATE, seen, left == PSUP_FOREVER ? NULL : &time, NULL,
                    0) < 0 &&
            errno == EINTR)
            return -EINTR;
    }
}

/* ---- what is known of it ---- */

psup_process *psup_process_free(psup_process *process)
{
    if (process)
        psup__process_release(process);
    return NULL;
}

int psup_process_pid(const psup_process *process)
{
    return process->pid;
}

int psup_process_result(psup_process *process, psup_event *ret)
{
    int result = psup__supervisor_alive(process->supervisor);
    if (result)
        return result;
    pthread_mutex_lock(&process->supervisor->lock);
    if (process->ended)
        *ret = process->result;
    else
        result = -EAGAIN;
    pthread_mutex_unlock(&process->supervisor->lock);
    return result;
}
