/* Domains: made, started, stopped; their leaves, helper and event queues. */
#include "internal.h"

#include "child.h"
#include "sweep.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK_NS (50 * 1000ull) /* how soon to look again whether all are gone; doubled up to … */
#define LOOK_MAX_NS (10 * PSUP__MS)
#define LEAVES_KEPT 16 /* idle ones: each holds three descriptors */
#define FREE_TIMEOUT (5 * PSUP__S)
#define TREE_ROUNDS 8
#define SPARE_ROUNDS 50 /* of LOOK_MAX_NS: a fork bomb needs several, and the shims have its status to tell */
#define LET_DIE_NS (100 * PSUP__MS)
#define FREEZE_AGAIN_NS PSUP__S

/* ---- made and freed ---- */

int psup_domain_new(psup_supervisor *supervisor, const char *name, psup_domain **ret, psup_error *error)
{
    int result = psup__supervisor_check(supervisor, error);
    if (result)
        return result;
    size_t n = name ? strlen(name) : 0;
    if (!n || n > PSUP_NAME_MAX || strchr(name, '/') || strchr(name, '\n') || !strcmp(name, ".") || !strcmp(name, ".."))
        return psup__fail(error, EINVAL, "name",
                          "a domain's name has 1 to %d bytes, none of them \"/\" or a line's end, not %zu",
                          PSUP_NAME_MAX, n);
    psup_domain *domain = calloc(1, sizeof *domain);
    if (!domain || psup__queue_init(&domain->backlog, supervisor->queue_length)) {
        free(domain);
        return psup__fail(error, ENOMEM, "memory", "no memory for domain \"%s\"", name);
    }
    atomic_init(&domain->references, 1);
    domain->supervisor = supervisor;
    domain->helper = (struct psup__init){.socket = -1, .pidfd = -1, .pid = -1};
    snprintf(domain->name, sizeof domain->name, "%s", name);
    psup__group_init(&domain->group);
    pthread_mutex_init(&domain->lock, NULL);

    pthread_mutex_lock(&supervisor->lock);
    for (psup_domain *other = supervisor->domains; other; other = other->next)
        if (!strcmp(other->name, name))
            result = -EEXIST;
    if (!result) {
        domain->next = supervisor->domains;
        supervisor->domains = domain;
    }
    pthread_mutex_unlock(&supervisor->lock);
    if (result) {
        psup__queue_free(&domain->backlog);
        pthread_mutex_destroy(&domain->lock);
        free(domain);
        return psup__fail(error, EEXIST, "name", "there is a domain \"%s\" already", name);
    }
    atomic_fetch_add(&supervisor->references, 1);
    *ret = domain;
    return 0;
}

static void close_leaves(psup_domain *domain)
{
    for (size_t i = 0; i < domain->n_leaves; i++)
        psup__leaf_close(domain->leaves[i]);
    free(domain->leaves);
    domain->leaves = NULL;
    domain->n_leaves = domain->leaves_room = 0;
}

void psup__domain_end(psup_domain *domain)
{
    psup_supervisor *supervisor = domain->supervisor;
    if (psup__supervisor_alive(supervisor))
        return;
    psup_metrics metrics = {.size = sizeof metrics};
    uint64_t deadline = psup__deadline(FREE_TIMEOUT); /* however often a signal interrupts */
    while (psup_domain_stop(domain, psup__left(deadline), &metrics, NULL) == -EINTR)
        ;
    pthread_mutex_lock(&domain->lock);
    pthread_mutex_lock(&supervisor->lock);
    for (psup_domain **at = &supervisor->domains; *at; at = &(*at)->next)
        if (*at == domain) {
            *at = domain->next;
            break;
        }
    while (domain->processes) /* what even SIGKILL did not end: no one waits for it any more */
        psup__process_abandon(domain->processes);
    domain->ended = true;
    while (domain->subscribers)
        psup__events_end(domain->subscribers);
    pthread_mutex_unlock(&supervisor->lock);
    domain->state = PSUP__ENDED;
    close_leaves(domain);
    psup__group_close(&domain->group);
    psup__init_end(&domain->helper, PSUP__S);
    pthread_mutex_unlock(&domain->lock);
}

void psup_domain_close(psup_domain *domain)
{
    psup__domain_end(domain);
}

psup_domain *psup_domain_free(psup_domain *domain)
{
    if (!domain)
        return NULL;
    psup__domain_end(domain);
    psup__queue_free(&domain->backlog); /* what it holds refers to the domain */
    psup__domain_release(domain);
    return NULL;
}

void psup__domain_release(psup_domain *domain)
{
    if (atomic_fetch_sub(&domain->references, 1) != 1)
        return;
    psup__cycle_free(&domain->cycle);
    close_leaves(domain); /* a forked copy's: descriptors and memory only */
    psup__group_close(&domain->group);
    domain->helper.ours = false;
    psup__init_end(&domain->helper, 0);
    pthread_mutex_destroy(&domain->lock);
    free(domain->interfaces);
    psup__supervisor_release(domain->supervisor);
    free(domain);
}

/* ---- started ---- */

int psup__domain_start_helper(psup_domain *domain, psup_error *error)
{
    const char *argv[] = {"pysup-init", "spawn", domain->name, NULL};
    char pid[16];
    psup__init_end(&domain->helper, 0);
    int result = psup__init_start(domain->supervisor, NULL, argv, &domain->helper, error);
    if (result)
        return result;
    /* This is what waits for the kernel (an RCU grace period, 7 ms), once for all processes to come. */
    snprintf(pid, sizeof pid, "%d", domain->helper.pid);
    for (int i = PSUP__V2 + 1; i < PSUP__HIERARCHIES; i++) {
        int fd = domain->group.fds[i] < 0 ? -1 : psup__open(domain->group.fds[i], "cgroup.procs", O_WRONLY);
        if (domain->group.fds[i] < 0)
            continue;
        result = fd < 0 ? fd : write(fd, pid, strlen(pid)) < 0 ? -errno : 0;
        psup__shut(fd);
        if (result) {
            psup__init_end(&domain->helper, 0);
            return psup__fail(error, -result, "cgroup.procs",
                              "cannot move the helper of domain \"%s\" into its cgroup: %s", domain->name,
                              strerror(-result));
        }
    }
    return 0;
}

/* Undoes what Start has made; nothing runs in it yet or any more. */
static int take_down(psup_domain *domain)
{
    close_leaves(domain);
    psup__init_end(&domain->helper, PSUP__S);
    psup__group_close(&domain->group);
    return psup__group_remove(&domain->supervisor->cgroups, domain->name);
}

static int start(psup_domain *domain, const psup_limits *limits, psup_error *error)
{
    const struct psup__cgroups *cgroups = &domain->supervisor->cgroups;
    int result = psup__supervisor_check(domain->supervisor, error);
    if (result)
        return result;
    if (domain->state != PSUP__STOPPED)
        return psup__fail(error, EBUSY, "state", "domain \"%s\" is started already", domain->name);
    if (limits && (result = psup__limits_check(cgroups, limits, error)))
        return result;
    if ((result = psup__group_make(cgroups, domain->name, &domain->group, error)))
        return result;
    if (limits)
        result = psup__limits_set(cgroups, &domain->group, limits, error);
    if (!result && psup__cgroups_helper(cgroups))
        result = psup__domain_start_helper(domain, error);
    if (!result) {
        pthread_mutex_lock(&domain->supervisor->lock);
        domain->ended_cpu = domain->ended_peak = domain->oom_kills = 0;
        if (cgroups->needs[PSUP_NEED_TREE].from == PSUP__V2) /* one leaf made before it is asked for */
            result = psup__domain_leaf(domain, NULL, NULL);
        pthread_mutex_unlock(&domain->supervisor->lock);
        if (!result)
            result = psup__cycle_begin(domain);
        if (result)
            psup__fail(error, -result, "start", "cannot start domain \"%s\": %s", domain->name, strerror(-result));
    }
    if (result)
        take_down(domain);
    else
        domain->state = PSUP__STARTED;
    return result;
}

int psup_domain_start(psup_domain *domain, const psup_limits *limits, psup_error *error)
{
    pthread_mutex_lock(&domain->lock);
    int result = start(domain, limits, error);
    pthread_mutex_unlock(&domain->lock);
    return result;
}

/* ---- stopped ---- */

/* `again`: it was not enough before, time after time. */
static void kill_all(psup_domain *domain, bool again)
{
    const struct psup__group *group = &domain->group;
    /* One by one too: who may write to cgroupfs can have moved itself out. */
    pthread_mutex_lock(&domain->supervisor->lock);
    for (const struct psup_process *process = domain->processes; process && group->fds[PSUP__V2] >= 0;
         process = process->next)
        if (!process->ended)
            syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
    pthread_mutex_unlock(&domain->supervisor->lock);
    if (group->kill >= 0 && pwrite(group->kill, "1", 1, 0) == 1)
        return;
    if (group->fds[PSUP__V2] >= 0) {
        psup__sweep_kill(group->fds[PSUP__V2]);
    } else if (group->fds[PSUP__FREEZER] >= 0) {
        /* Frozen, so that nothing can fork itself out of reach. The shims live in the cgroup too and are spared, for
         * they have the statuses to tell; one that was killed from inside has left its tree to the cgroup. */
        psup__freeze(domain, LOOK_MAX_NS);
        psup__domain_signal_trees(domain, SIGKILL, 2);
        psup__unfreeze(domain);
        if (again)
            psup__sweep_kill(group->fds[PSUP__FREEZER]);
    } else {
        psup__domain_signal_trees(domain, SIGKILL, TREE_ROUNDS);
    }
}

/* Under the supervisor's lock. */
static void settle_all(psup_domain *domain)
{
    for (struct psup_process *process = domain->processes, *next; process; process = next) {
        next = process->next;
        psup__process_settle(process);
    }
}

static bool is_empty(psup_domain *domain)
{
    psup_supervisor *supervisor = domain->supervisor;
    uint64_t populated = 0;
    pthread_mutex_lock(&supervisor->lock);
    settle_all(domain);
    bool empty = !domain->processes;
    pthread_mutex_unlock(&supervisor->lock);
    return empty && !(psup__read_key(domain->group.events, "populated", &populated) && populated);
}

/* A shim that was killed from inside has left its tree to the v1 cgroups: kills what is in them, and tells if it did. */
static bool kill_strays(psup_domain *domain)
{
    bool any = false;
    for (int i = PSUP__V2 + 1; i < PSUP__HIERARCHIES; i++)
        if (domain->group.fds[i] >= 0 && psup__sweep_populated(domain->group.fds[i]) == 1) {
            psup__sweep_kill(domain->group.fds[i]);
            any = true;
        }
    return any;
}

static void begin_stop(psup_domain *domain)
{
    psup__quota_lift(&domain->supervisor->cgroups, &domain->group); /* the throttled die slowly */
    pthread_mutex_lock(&domain->supervisor->lock);
    for (struct psup_process *process = domain->processes; process; process = process->next)
        if (!process->ended)
            process->killed = true;
    pthread_mutex_unlock(&domain->supervisor->lock);
    domain->rounds = 0;
    domain->measured = domain->state == PSUP__FROZEN;
    domain->state = PSUP__STOPPING;
}

/* 0, -EINTR, or -EAGAIN when the deadline is past. */
static int pause_for(uint64_t *pause, uint64_t deadline)
{
    uint64_t left = psup__left(deadline), time = left < *pause ? left : *pause;
    if (!left)
        return -EAGAIN;
    *pause = *pause * 2 < LOOK_MAX_NS ? *pause * 2 : LOOK_MAX_NS;
    return nanosleep(&(struct timespec){0, (long)time}, NULL) < 0 ? -EINTR : 0;
}

static int stop(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error)
{
    uint64_t deadline = psup__deadline(wait), pause = LOOK_NS;
    int result = psup__supervisor_check(domain->supervisor, error), paused;
    if (result)
        return result;
    if (domain->state == PSUP__STOPPED || domain->state == PSUP__ENDED)
        return psup__fail(error, EBUSY, "state", "domain \"%s\" is not started", domain->name);
    if (domain->state != PSUP__STOPPING)
        begin_stop(domain);

    kill_all(domain, domain->rounds++ > SPARE_ROUNDS);
    while (!is_empty(domain)) {
        if ((paused = pause_for(&pause, deadline)))
            return psup__fail(error, -paused, "stop", "processes of domain \"%s\" are still there", domain->name);
        if (pause == LOOK_MAX_NS)
            kill_all(domain, domain->rounds++ > SPARE_ROUNDS);
    }
    if (!domain->measured) {
        result = psup__cycle_end(domain, NULL);
        domain->measured = !result;
    }
    psup__init_end(&domain->helper, PSUP__S); /* it stands in the cgroups as well */
    while (kill_strays(domain))
        if ((paused = pause_for(&pause, deadline)))
            return psup__fail(error, -paused, "stop", "processes of domain \"%s\" are still there", domain->name);
    /* What is dying is hidden from cgroup.procs but still counted: rmdir says EBUSY for a while. */
    while ((paused = take_down(domain))) {
        int removed = paused;
        if (removed != -EBUSY && removed != -EINTR) /* for lack of descriptors, say: to be tried again */
            return psup__fail(error, -removed, "rmdir",
                              "domain \"%s\" has ended, but its cgroups cannot be removed: %s", domain->name,
                              strerror(-removed));
        if ((paused = pause_for(&pause, deadline)))
            return psup__fail(error, -paused, "rmdir", "the cgroups of domain \"%s\" cannot be removed yet: %s",
                              domain->name, strerror(-removed));
    }
    domain->state = PSUP__STOPPED;
    if (result)
        return psup__fail(error, -result, "stop", "domain \"%s\" is stopped, but something is left: %s", domain->name,
                          strerror(-result));
    return psup__cycle_last(domain, ret);
}

int psup_domain_stop(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error)
{
    pthread_mutex_lock(&domain->lock);
    int result = stop(domain, wait, ret, error);
    pthread_mutex_unlock(&domain->lock);
    return result;
}

/* Whether a process that was killed is still there, or something that descends from it. */
static bool any_dying(psup_domain *domain)
{
    bool any = false;
    pthread_mutex_lock(&domain->supervisor->lock);
    settle_all(domain);
    for (const struct psup_process *process = domain->processes; process && !any; process = process->next)
        any = process->killed;
    pthread_mutex_unlock(&domain->supervisor->lock);
    return any;
}

int psup__domain_let_die(psup_domain *domain)
{
    /* The shims are in the freezer too: nothing is reported, and nothing gone, before they have run. */
    uint64_t deadline = psup__deadline(LET_DIE_NS), pause = LOOK_NS;
    if (domain->supervisor->cgroups.needs[PSUP_NEED_FREEZE].from != PSUP__FREEZER || !any_dying(domain))
        return 0;
    psup__unfreeze(domain);
    while (any_dying(domain) && pause_for(&pause, deadline) != -EAGAIN)
        ;
    return psup__freeze(domain, FREEZE_AGAIN_NS);
}

void psup__domain_let_die_soon(psup_domain *domain, uint64_t wait)
{
    uint64_t deadline = psup__deadline(wait), pause = LOOK_NS;
    /* Who has the lock may keep it for long. If it is held for a freeze, that lets die too. */
    while (pthread_mutex_trylock(&domain->lock))
        if (pause_for(&pause, deadline) == -EAGAIN)
            return;
    if (domain->state == PSUP__FROZEN)
        psup__domain_let_die(domain);
    else if (domain->state == PSUP__FREEZING)
        psup__unfreeze(domain); /* the next look at the freeze begins it anew */
    pthread_mutex_unlock(&domain->lock);
}

/* ---- process trees ---- */

int psup__domain_roots(psup_domain *domain, int **ret)
{
    int n = 0, *roots = NULL;
    pthread_mutex_lock(&domain->supervisor->lock);
    for (const struct psup_process *process = domain->processes; process; process = process->next)
        n += process->shim.ours;
    if (n && (roots = malloc((size_t)n * sizeof *roots))) {
        n = 0;
        for (const struct psup_process *process = domain->processes; process; process = process->next)
            if (process->shim.ours)
                roots[n++] = process->shim.pid;
    } else if (n) {
        n = -ENOMEM;
    }
    pthread_mutex_unlock(&domain->supervisor->lock);
    *ret = roots;
    return n;
}

/* ---- under the supervisor's lock ---- */

uint64_t psup__domain_oom_kills(psup_domain *domain)
{
    uint64_t kills = 0;
    psup__read_key(domain->group.oom, "oom_kill", &kills);
    return kills;
}

/* A free leaf; one whose last process has left nothing behind by now; or a new one. */
static int find_leaf(psup_domain *domain, struct psup__leaf **ret)
{
    for (size_t i = 0; i < domain->n_leaves; i++)
        if (!domain->leaves[i]->owner) {
            *ret = domain->leaves[i];
            return 0;
        }
    for (size_t i = 0, n; i < domain->n_leaves;) {
        struct psup__leaf *leaf = domain->leaves[i];
        n = domain->n_leaves;
        psup__process_settle(leaf->owner);
        if (domain->n_leaves < n)
            continue; /* one that was killed: it is no more, and another has its place */
        if (!leaf->owner) {
            *ret = leaf;
            return 0;
        }
        i++;
    }
    if (domain->n_leaves == domain->leaves_room) {
        size_t room = domain->leaves_room ? domain->leaves_room * 2 : 8;
        struct psup__leaf **more = realloc(domain->leaves, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        domain->leaves = more;
        domain->leaves_room = room;
    }
    int result = psup__leaf_make(&domain->supervisor->cgroups, &domain->group, domain->leaves_made++, ret);
    if (!result)
        domain->leaves[domain->n_leaves++] = *ret;
    return result;
}

int psup__domain_leaf(psup_domain *domain, struct psup_process *process, struct psup__leaf **ret)
{
    struct psup__leaf *leaf;
    int result = find_leaf(domain, &leaf);
    if (result || !process)
        return result;
    if (domain->supervisor->cgroups.controllers & PSUP__CONTROLLER_MEMORY)
        leaf->oom_kills = psup__leaf_oom_kills(leaf);
    leaf->owner = process;
    *ret = leaf;
    return 0;
}

/*
 * A leaf that was killed is not used again. A process that is born into it by CLONE_INTO_CGROUP would be killed at birth
 * on some kernels (seen on 6.18): the count of kills that a fork compares is first read from the cgroup of its creator
 * (kernel/cgroup/cgroup.c, kill_seq).
 */
void psup__domain_leaf_free(psup_domain *domain, struct psup__leaf *leaf)
{
    char name[16];
    size_t idle = 0;
    leaf->owner = NULL;
    for (size_t i = 0; i < domain->n_leaves; i++)
        idle += !domain->leaves[i]->owner;
    if (!leaf->killed && idle <= LEAVES_KEPT)
        return;
    for (size_t i = 0; i < domain->n_leaves; i++)
        if (domain->leaves[i] == leaf) {
            domain->leaves[i] = domain->leaves[--domain->n_leaves];
            break;
        }
    snprintf(name, sizeof name, "p-%u", leaf->number);
    unlinkat(domain->group.fds[PSUP__V2], name, AT_REMOVEDIR); /* if something is left in it, Stop removes it */
    psup__leaf_close(leaf);
}

void psup__domain_publish(psup_domain *domain, struct psup_process *process)
{
    uint64_t now = process->result.timestamp_ms;
    if (!domain->subscribers)
        psup__queue_push(&domain->backlog, process, now);
    for (struct psup_events *events = domain->subscribers; events; events = events->next) {
        psup__queue_push(&events->queue, process, now);
        eventfd_write(events->fd, 1);
    }
}
