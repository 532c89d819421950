/* What the files of libpysup share with each other. Nothing here is exported. */
#ifndef PSUP_INTERNAL_H
#define PSUP_INTERNAL_H

#include "pysup.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

#define PSUP__MS 1000000ull
#define PSUP__S 1000000000ull

/* ---- error.c ---- */

/* Fills `error` (or nothing, where it is NULL) and gives -code. */
__attribute__((format(printf, 4, 5))) int psup__fail(psup_error *error, int code, const char *step, const char *format,
                                                     ...);

/* The monotonic clock, and the time at which a time-out that begins now is over. */
uint64_t psup__now(void);
uint64_t psup__deadline(uint64_t timeout);
/* What is left until a deadline; 0 when it is past. */
uint64_t psup__left(uint64_t deadline);

/* poll(2) on one descriptor for at most `timeout` ns; 1, 0 at the time-out, or a negative errno (-EINTR too). */
int psup__poll(int fd, short events, uint64_t timeout);

/* Closes a descriptor that may be -1, and gives -1. */
int psup__shut(int fd);

/* Opens below a directory, close-on-exec; a descriptor or a negative errno. */
int psup__open(int directory, const char *path, int flags);

/* ---- layout.c ---- */

/* The hierarchies that matter here. A v1 controller has its own, or shares one with another. */
enum psup__hierarchy { PSUP__V2, PSUP__CPU, PSUP__CPUACCT, PSUP__MEMORY, PSUP__FREEZER, PSUP__HIERARCHIES };

#define PSUP__CONTROLLER_CPU 1u
#define PSUP__CONTROLLER_MEMORY 2u

struct psup__place {
    char path[PATH_MAX]; /* of the cgroup in which the supervisor makes its own; "" where there is none */
    char reason[224];    /* why there is none */
};

/* Finds where this process stands in each hierarchy, by mountinfo and /proc/self/cgroup below `prefix` ("" but in
 * tests). Only reads. */
void psup__layout_find(const char *prefix, uint32_t allowed, const char *parent,
                       struct psup__place places[PSUP__HIERARCHIES]);

/* ---- cgroup.c ---- */

/* A supervisor's own cgroup in each hierarchy; the cgroups of its domains stand in it. */
struct psup__cgroups {
    struct psup__place places[PSUP__HIERARCHIES];
    char name[64];                /* of the supervisor's cgroup, the same everywhere */
    int fds[PSUP__HIERARCHIES];   /* its directory, or -1 */
    uint32_t controllers;         /* that v2 can give to domains */
    uint32_t enabled;             /* of them, for which this supervisor has seen to it */
    char controllers_reason[256]; /* why not more */
    bool v2_kill;                 /* cgroup.kill is there (Linux 5.14) */
    char leaf[64];                /* where this process was moved to make room for controllers; "" where it was not */
    struct {
        enum psup__hierarchy from; /* PSUP__HIERARCHIES: not from a cgroup */
        const char *detail;
        char reason[512];
    } needs[PSUP_NEED_COUNT];
};

int psup__cgroups_open(struct psup__cgroups *cgroups, const psup_options *options, psup_error *error);
void psup__cgroups_close(struct psup__cgroups *cgroups);
bool psup__cgroups_any(const struct psup__cgroups *cgroups);
/* Whether a domain's processes must be started by a helper: one that stands in its v1 cgroups, or, where the peak of
 * memory comes from getrusage(2), one that is small, for a process's peak begins with that of who started it. */
bool psup__cgroups_helper(const struct psup__cgroups *cgroups);

/* A pre-made cgroup v2 below a domain's, for one process and what descends from it. */
struct psup__leaf {
    int directory, events, kill; /* descriptors; kill: -1 before Linux 5.14 */
    unsigned number;
    uint64_t oom_kills;         /* counted before its process began */
    struct psup_process *owner; /* NULL: free */
    bool killed;                /* by cgroup.kill, see psup__domain_leaf_free */
};

/* A domain's cgroups; descriptors are -1 where there is none. */
struct psup__group {
    int fds[PSUP__HIERARCHIES];
    int freeze, events, kill;        /* v2: cgroup.freeze, cgroup.events, cgroup.kill; v1: freezer.state */
    int self_freezing;               /* v1 */
    int cpu, peak, oom;              /* statistics */
    int quota, period, memory, swap; /* limits */
    bool peak_resets;
    bool quota_lifted;
    psup_limits limits;
};

void psup__group_init(struct psup__group *group);
int psup__group_make(const struct psup__cgroups *cgroups, const char *name, struct psup__group *group,
                     psup_error *error);
void psup__group_close(struct psup__group *group);
/* Removes the cgroups of a domain; 0 or the first negative errno. */
int psup__group_remove(const struct psup__cgroups *cgroups, const char *name);

int psup__leaf_make(const struct psup__cgroups *cgroups, const struct psup__group *group, unsigned number,
                    struct psup__leaf **ret);
void psup__leaf_close(struct psup__leaf *leaf);
bool psup__leaf_populated(const struct psup__leaf *leaf);
uint64_t psup__leaf_oom_kills(const struct psup__leaf *leaf);

/* Which part of an "oom_kill N" or "usage_usec N" file is wanted; false where it is not there. */
bool psup__read_key(int fd, const char *key, uint64_t *ret);
bool psup__read_number(int fd, uint64_t *ret);

int psup__limits_check(const struct psup__cgroups *cgroups, const psup_limits *limits, psup_error *error);
/* Sets the limits, or leaves those that were. */
int psup__limits_set(const struct psup__cgroups *cgroups, struct psup__group *group, const psup_limits *limits,
                     psup_error *error);
void psup__quota_lift(const struct psup__cgroups *cgroups, struct psup__group *group);
void psup__quota_restore(const struct psup__cgroups *cgroups, struct psup__group *group);

/* ---- metrics.c ---- */

/* What of the machine a cycle needs; the descriptors stay open. */
struct psup__machine {
    int cpu, idle, network;
    enum { PSUP__MACHINE_NONE, PSUP__MACHINE_USAGE, PSUP__MACHINE_STAT, PSUP__MACHINE_V2 } cpu_kind;
    long tick_ns;
};

void psup__machine_open(struct psup__machine *machine, struct psup__cgroups *cgroups);
void psup__machine_close(struct psup__machine *machine);

/* All counters at one moment. */
struct psup__sample {
    uint64_t domain_cpu, wall, service_cpu, machine_cpu, idle_cpu;
    psup_interface *interfaces;
    size_t n_interfaces, room;
};

struct psup__cycle {
    struct psup__sample begin, end;
    uint64_t peak; /* kept at the freeze, for the domain may be gone afterwards */
};

int psup__cycle_begin(psup_domain *domain);
int psup__cycle_end(psup_domain *domain, psup_metrics *ret);
/* The figures of the last psup__cycle_end. */
int psup__cycle_last(psup_domain *domain, psup_metrics *ret);
void psup__cycle_free(struct psup__cycle *cycle);

/* ---- freezer.c ---- */

/* Begins a freeze, or goes on with one, for at most `wait` ns; 0 when all is frozen, or -EAGAIN. */
int psup__freeze(psup_domain *domain, uint64_t wait);
int psup__unfreeze(psup_domain *domain);

/* ---- init_process.c ---- */

/* A pysup-init of ours: the helper of a domain, the shim of a process, or the keeper. */
struct psup__init {
    int socket, pidfd, pid;
    void *task; /* the memory shared with it; NULL for a keeper */
    bool ours;  /* not yet reaped */
};

struct psup__task;
struct psup__born;

int psup__init_image_fd(psup_error *error);
/* Its arguments with argv[0]. It stands in the caller's cgroups or, where a helper `from` starts it, in that one's. */
int psup__init_start(psup_supervisor *supervisor, struct psup__init *from, const char *const *argv,
                     struct psup__init *ret, psup_error *error);
/* Lets it start `task`; its answer. -ENOTCONN when it had ended before; -EPIPE, … when it ended while at it. */
int psup__init_spawn(struct psup__init *init, const int *fds, size_t n_fds, int cgroup_fd, struct psup__born *ret);
/* Closes the connection, waits until it has ended, at most `timeout`, then kills it; reaps it. */
void psup__init_end(struct psup__init *init, uint64_t timeout);

/* The block of a task: its size, and how it is laid out (0 or -E2BIG); offsets, see psup__task_resolve. */
size_t psup__task_size(const psup_spec *spec);
int psup__task_lay_out(const psup_spec *spec, struct psup__task *ret, size_t size);

/* ---- supervisor.c, domain.c, process.c, reaper.c, queue.c ---- */

/* What the reaper's epoll set points at. */
struct psup__watch {
    enum { PSUP__WATCH_STOP, PSUP__WATCH_KEEPER, PSUP__WATCH_PROCESS, PSUP__WATCH_SHIM } kind;
    struct psup_process *process;
};

struct psup_process {
    _Atomic unsigned references; /* the caller's, the reaper's while it lives, and one for each place in a queue */
    psup_supervisor *supervisor;
    psup_domain *domain;                   /* NULL: none */
    struct psup_process *next, **previous; /* in the domain's or the supervisor's list, while not gone */
    struct psup__watch watch, shim_watch;
    int pid, pidfd;
    struct psup__init shim;   /* where trees stand in for leaves */
    struct psup__leaf *leaf;  /* NULL when it has been given back */
    uint64_t oom_kills;       /* v1: of its domain, counted before it was born */
    bool killed;              /* by us */
    unsigned looks;           /* whether it is over, since it was killed */
    bool ended, gone;         /* its event is queued; nothing is left that descends from it */
    _Atomic uint32_t changes; /* futex: raised when `ended` or `gone` becomes true */
    psup_event result;        /* filled before `ended` */
};

/* A bounded queue of terminations. A loss is remembered where it happened. */
struct psup__slot {
    struct psup_process *process;
    uint64_t lost, lost_since; /* before this one */
};

struct psup__queue {
    struct psup__slot *slots;
    uint32_t length, first, count;
    uint64_t lost, lost_since; /* behind the last one */
};

int psup__queue_init(struct psup__queue *queue, uint32_t length);
void psup__queue_push(struct psup__queue *queue, struct psup_process *process, uint64_t timestamp_ms);
/* Takes up to `count`; the processes of which references were let go stand in `ret_done` (room for `count`). */
size_t psup__queue_take(struct psup__queue *queue, const char *domain, psup_event *ret, size_t count,
                        struct psup_process **ret_done, size_t *ret_n_done);
void psup__queue_free(struct psup__queue *queue);

struct psup_events {
    psup_domain *domain;
    struct psup_events *next;
    struct psup__queue queue;
    int fd;
    bool closed;
};

enum psup__state { PSUP__STOPPED, PSUP__STARTED, PSUP__FREEZING, PSUP__FROZEN, PSUP__STOPPING, PSUP__ENDED };

struct psup_domain {
    _Atomic unsigned references; /* the caller's, one for each process and subscriber */
    psup_supervisor *supervisor;
    psup_domain *next;
    pthread_mutex_t lock; /* for all calls on the domain; taken before the supervisor's */
    enum psup__state state;
    bool measured;                  /* STOPPING: the cycle has ended */
    unsigned rounds, freeze_rounds; /* how often it was told to stop, and the v1 freezer to freeze */
    struct psup__group group;
    struct psup__init helper;
    struct psup__leaf **leaves; /* under the supervisor's lock */
    size_t n_leaves, leaves_room;
    unsigned leaves_made;
    struct psup__cycle cycle;
    psup_interface *interfaces; /* of the last metrics given out */
    size_t interfaces_room;
    /* under the supervisor's lock: */
    struct psup_process *processes; /* those not gone */
    uint64_t oom_kills;             /* v1: accounted for */
    uint64_t ended_cpu, ended_peak; /* without cgroups: of what has been reaped */
    bool ended;                     /* no event will come any more */
    struct psup_events *subscribers;
    struct psup__queue backlog; /* while there is no subscriber */
    char name[PSUP_NAME_MAX + 1];
};

struct psup_supervisor {
    _Atomic unsigned references; /* the caller's, one for each domain and process */
    _Atomic bool closing, closed;
    pid_t owner;          /* who made it; a fork of it has a dead handle */
    pthread_mutex_t lock; /* lists, queues, states of processes */
    struct psup__cgroups cgroups;
    struct psup__machine machine;
    struct psup__init keeper;
    psup_domain *domains;
    struct psup_process *processes; /* those outside of all domains */
    struct psup_process *abandoned; /* those that could not be ended, until the reaper is gone */
    pthread_t reaper;
    struct psup__watch stop_watch, keeper_watch;
    int epoll, stop, changed; /* the reaper's set; eventfds: end of the reaper, news for event loops */
    int self;                 /* pidfd of this process */
    int image;                /* sealed memfd with pysup-init */
    int proc;                 /* /proc */
    uint32_t queue_length;
};

/* 0, -ESTALE in a forked child of the owner, or -ESHUTDOWN after psup_supervisor_free. */
int psup__supervisor_alive(const psup_supervisor *supervisor);
/* The same in words. */
int psup__supervisor_check(const psup_supervisor *supervisor, psup_error *error);
void psup__supervisor_release(psup_supervisor *supervisor);
void psup__domain_release(psup_domain *domain);
/* Stops it for good; what refers to it stays valid. */
void psup__domain_end(psup_domain *domain);
/* Under the supervisor's lock: no more events will come. */
void psup__events_end(psup_events *events);

/* Another keeper in place of one that was killed. */
void psup__keeper_ended(psup_supervisor *supervisor);

int psup__reaper_start(psup_supervisor *supervisor);
void psup__reaper_stop(psup_supervisor *supervisor);

void psup__process_reference(struct psup_process *process);
void psup__process_release(struct psup_process *process);
/* Under the supervisor's lock: gives the leaf back where nothing lives in it any more. */
void psup__process_settle(struct psup_process *process);
/* Under the supervisor's lock: forgets one that cannot be waited for any longer. */
void psup__process_abandon(struct psup_process *process);
/* Under the supervisor's lock: says to waiters and event loops that something has changed. */
void psup__process_changed(struct psup_process *process);

/* Under the supervisor's lock: puts a termination into the queues of the domain's subscribers. */
void psup__domain_publish(psup_domain *domain, struct psup_process *process);
/* Under the supervisor's lock: a leaf for `process`, or NULL and -errno. */
int psup__domain_leaf(psup_domain *domain, struct psup_process *process, struct psup__leaf **ret);
/* Under the supervisor's lock: gives an empty leaf back. */
void psup__domain_leaf_free(psup_domain *domain, struct psup__leaf *leaf);
/* A helper in the domain's v1 cgroups, in place of the one before. */
int psup__domain_start_helper(psup_domain *domain, psup_error *error);
/* v1 holds even SIGKILL back until the thaw: lets what was killed in a frozen domain run into it. Under the domain's
 * lock; 0, or a negative errno when the domain could not be frozen again. */
int psup__domain_let_die(psup_domain *domain);
/* The same, where the lock can be had within `wait` and the domain is frozen. */
void psup__domain_let_die_soon(psup_domain *domain, uint64_t wait);
/* How many OOM kills the domain's v1 memory cgroup has counted. */
uint64_t psup__domain_oom_kills(psup_domain *domain);
/* Where trees stand in for cgroups: signals all of the domain's, see psup__tree_signal. */
int psup__domain_signal_trees(psup_domain *domain, int signal, unsigned rounds);
/* The pids of the shims of a domain, where trees stand in for cgroups; a count or a negative errno. */
int psup__domain_roots(psup_domain *domain, int **ret);

#endif
