/* Freeze and thaw: cgroup v2, cgroup v1, or signals to a process tree. */
#include "internal.h"

#include "tree.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/*
 * How long to read again before sleeping. The kernel's notices of cgroup.events come at most every 10 ms
 * (CGROUP_FILE_NOTIFY_MIN_INTV), a freeze takes tens of microseconds. The CPU is yielded between two reads, for a tight
 * loop would starve the very tasks that it waits for.
 */
#define SPIN_NS (2 * PSUP__MS)
#define NODES_MAX 65536
#define TREE_ROUNDS 4

static bool is_frozen_v2(const psup_domain *domain)
{
    uint64_t frozen = 0;
    return psup__read_key(domain->group.events, "frozen", &frozen) && frozen;
}

static int freeze_v2(psup_domain *domain, uint64_t deadline, bool begin)
{
    if (begin && pwrite(domain->group.freeze, "1", 1, 0) < 0)
        return -errno;
    uint64_t spin = psup__deadline(SPIN_NS);
    for (;;) {
        if (is_frozen_v2(domain))
            return 0;
        uint64_t left = psup__left(deadline);
        if (!left)
            return -EAGAIN;
        if (psup__now() < spin)
            sched_yield();
        else /* a notice without effect, or none in 10 ms: read again in either case */
            psup__poll(domain->group.events, POLLPRI, left < 10 * PSUP__MS ? left : 10 * PSUP__MS);
    }
}

/* FROZEN may be an ancestor's: self_freezing tells whether it is of our own making. */
static bool is_frozen_v1(const psup_domain *domain)
{
    char state[16] = "";
    uint64_t own = 0;
    return pread(domain->group.freeze, state, sizeof state - 1, 0) > 0 && !strncmp(state, "FROZEN", 6) &&
           psup__read_number(domain->group.self_freezing, &own) && own;
}

/* A fork in the middle can leave the cgroup FREEZING for ever: it is told again, and now and then let go for a moment. */
static int freeze_v1(psup_domain *domain, uint64_t deadline, bool begin)
{
    int fd = domain->group.freeze;
    if (begin)
        domain->freeze_rounds = 0;
    for (;; domain->freeze_rounds++) {
        if (pwrite(fd, "FROZEN", 6, 0) < 0)
            return -errno;
        if (is_frozen_v1(domain))
            return 0;
        if (!psup__left(deadline)) {
            domain->freeze_rounds++;
            return -EAGAIN;
        }
        if (domain->freeze_rounds % 50 == 49 && pwrite(fd, "THAWED", 6, 0) < 0)
            return -errno;
        if (domain->freeze_rounds < 100)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, 100000}, NULL);
    }
}

int psup__domain_signal_trees(psup_domain *domain, int signal, unsigned rounds)
{
    int *roots = NULL, n = psup__domain_roots(domain, &roots);
    if (n <= 0)
        return n;
    struct psup__node *nodes = malloc(NODES_MAX * sizeof *nodes);
    long result = nodes
                      ? psup__tree_signal(domain->supervisor->proc, roots, (size_t)n, signal, rounds, nodes, NODES_MAX)
                      : -ENOMEM;
    free(nodes);
    free(roots);
    return (int)result;
}

/* A look at /proc takes as long as there are processes: the clock is the bound, not the number of looks. */
static int freeze_trees(psup_domain *domain, uint64_t deadline)
{
    int result;
    while ((result = psup__domain_signal_trees(domain, SIGSTOP, TREE_ROUNDS)) == -EAGAIN && psup__left(deadline))
        ;
    return result;
}

int psup__freeze(psup_domain *domain, uint64_t wait)
{
    uint64_t deadline = psup__deadline(wait);
    switch (domain->supervisor->cgroups.needs[PSUP_NEED_FREEZE].from) {
    case PSUP__V2:
        return freeze_v2(domain, deadline, domain->state != PSUP__FREEZING);
    case PSUP__FREEZER:
        return freeze_v1(domain, deadline, domain->state == PSUP__STARTED);
    default:
        return freeze_trees(domain, deadline);
    }
}

int psup__unfreeze(psup_domain *domain)
{
    switch (domain->supervisor->cgroups.needs[PSUP_NEED_FREEZE].from) {
    case PSUP__V2:
        return pwrite(domain->group.freeze, "0", 1, 0) < 0 ? -errno : 0;
    case PSUP__FREEZER:
        return pwrite(domain->group.freeze, "THAWED", 6, 0) < 0 ? -errno : 0;
    default:
        return psup__domain_signal_trees(domain, SIGCONT, 1);
    }
}

/* ---- the calls ---- */

/* The domain runs on in the cycle that it was in. */
static void undo(psup_domain *domain)
{
    psup__unfreeze(domain);
    psup__quota_restore(&domain->supervisor->cgroups, &domain->group);
    domain->state = PSUP__STARTED;
}

static int begin(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error)
{
    int result = psup__supervisor_check(domain->supervisor, error);
    if (result)
        return result;
    if (domain->state != PSUP__STARTED && domain->state != PSUP__FREEZING)
        return psup__fail(error, EBUSY, "state", "domain \"%s\" is not running", domain->name);
    if (domain->state == PSUP__STARTED)
        psup__quota_lift(&domain->supervisor->cgroups, &domain->group);
    result = psup__freeze(domain, wait);
    if (result == -EAGAIN) {
        domain->state = PSUP__FREEZING;
        return psup__fail(error, EAGAIN, "freeze", "domain \"%s\" is not frozen yet", domain->name);
    }
    /* A process that was killed in the meantime must not stay until the thaw. */
    if (!result)
        result = psup__domain_let_die(domain);
    if (!result) {
        domain->state = PSUP__FROZEN;
        result = psup__cycle_end(domain, ret);
    }
    if (result) {
        undo(domain);
        return psup__fail(error, -result, "freeze", "cannot freeze domain \"%s\": %s", domain->name, strerror(-result));
    }
    return 0;
}

int psup_domain_freeze_begin(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error)
{
    pthread_mutex_lock(&domain->lock);
    int result = begin(domain, wait, ret, error);
    pthread_mutex_unlock(&domain->lock);
    return result;
}

int psup_domain_freeze(psup_domain *domain, uint64_t timeout, psup_metrics *ret, psup_error *error)
{
    pthread_mutex_lock(&domain->lock);
    int result = begin(domain, timeout, ret, error);
    if (result == -EAGAIN) {
        undo(domain);
        result = psup__fail(error, ETIMEDOUT, "freeze",
                            "the kernel did not freeze domain \"%s\" within %.3f s; it runs again", domain->name,
                            (double)timeout / (double)PSUP__S);
    }
    pthread_mutex_unlock(&domain->lock);
    return result;
}

static int thaw(psup_domain *domain, const psup_limits *limits, psup_error *error)
{
    const struct psup__cgroups *cgroups = &domain->supervisor->cgroups;
    int result = psup__supervisor_check(domain->supervisor, error);
    if (result)
        return result;
    if (domain->state == PSUP__FREEZING) {
        undo(domain);
        return 0;
    }
    if (domain->state != PSUP__STARTED && domain->state != PSUP__FROZEN)
        return psup__fail(error, EBUSY, "state", "domain \"%s\" is not started", domain->name);
    if (limits && (result = psup__limits_set(cgroups, &domain->group, limits, error)))
        return result;
    psup__quota_restore(cgroups, &domain->group);
    /* Before it runs, so that nothing of it is missed. */
    if ((result = psup__cycle_begin(domain)))
        return psup__fail(error, -result, "metrics", "cannot read the counters of domain \"%s\": %s", domain->name,
                          strerror(-result));
    if (domain->state == PSUP__FROZEN && (result = psup__unfreeze(domain)))
        return psup__fail(error, -result, "thaw", "cannot thaw domain \"%s\": %s", domain->name, strerror(-result));
    domain->state = PSUP__STARTED;
    return 0;
}

int psup_domain_thaw(psup_domain *domain, const psup_limits *limits, psup_error *error)
{
    pthread_mutex_lock(&domain->lock);
    int result = thaw(domain, limits, error);
    pthread_mutex_unlock(&domain->lock);
    return result;
}
