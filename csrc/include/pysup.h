/*
 * libpysup: named processes in named domains, frozen, thawed, metered and killed within microseconds.
 *
 * A supervisor owns domains, a domain owns processes, and subscribers read the events of a domain. Each is an opaque
 * handle: made by a *_new function (a process by psup_spawn), ended by its *_free function, which accepts NULL and
 * gives NULL. Handles may be freed in any order: what is left of an ended supervisor or domain gives -ESHUTDOWN or -EBUSY,
 * and a subscriber still gives what was queued. But no other call on the handle that is freed may be under way.
 *
 * Sizes. A struct that can grow begins with its size, which the caller sets to sizeof, also where it is an output;
 * another version's is refused with -EINVAL.
 *
 * Results. A function gives 0 or a count, or a negative errno, and leaves its outputs (`ret`, `ret_…`, last but for the
 * error) untouched when it fails. Where it takes a psup_error, that says in words what was wrong; it may be NULL.
 *
 * Threads. Every function may be called from any thread. Calls on one domain are put in a row; psup_process_kill,
 * psup_process_wait and all psup_events_ functions never wait for another call's domain (but for a kill in a domain that
 * the v1 freezer has frozen, which must be thawed for a moment).
 *
 * The host. No signal handler, signal mask, subreaper or limit of the host is touched, it may wait for its own children
 * as it likes, and every descriptor is close-on-exec. A supervisor works in the process that made it: after fork() its
 * handles give -ESTALE in the child, where only the *_free functions may be called (they release memory and nothing else).
 *
 * Time-outs are in nanoseconds on the monotonic clock; PSUP_FOREVER waits without a bound. A wait that a signal handler
 * of the calling thread interrupts gives -EINTR and can be called again.
 *
 * The library writes nothing to any output and ends no process but those that it started.
 */
#ifndef PYSUP_H
#define PYSUP_H

#include <stddef.h>
#include <stdint.h>

/* The one place where the version is written down: the build and the Python package read this line. */
#define PSUP_VERSION "0.1.0"

#define PSUP_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that is running; compare with PSUP_VERSION of the header. Static storage. */
PSUP_API const char *psup_version(void);

#define PSUP_NAME_MAX 250 /* bytes in the name of a domain or a process: a file name with a little before it */
#define PSUP_FDS_MAX 252  /* descriptors that a process can be given */
#define PSUP_FOREVER UINT64_MAX

typedef struct psup_supervisor psup_supervisor;
typedef struct psup_domain psup_domain;
typedef struct psup_process psup_process;
typedef struct psup_events psup_events;

/* What went wrong. `code` is a positive errno. `step` is the part that failed: for psup_spawn one of "clone", "cgroup",
 * "session", "descriptors", "groups", "gid", "uid", "cwd", "exec"; elsewhere the file or the field. */
typedef struct psup_error {
    int code;
    char step[64];
    char text[448];
} psup_error;

/* ---- Supervisor ---- */

/* Which kinds of cgroup may be used; a supervisor takes what it finds, v2 before v1 for each need. */
#define PSUP_CGROUP_V1 1u
#define PSUP_CGROUP_V2 2u

typedef struct psup_options {
    size_t size;               /* sizeof(psup_options) of the caller */
    uint32_t cgroups;          /* PSUP_CGROUP_ flags; 0: none, process trees take their place */
    uint32_t queue_length;     /* events kept for a domain that no one subscribes to; 0: 1024 */
    const char *cgroup_parent; /* NULL: the cgroup that this process is in; else a cgroup's path from the mount, "/a/b",
                                  in every hierarchy; made where it is missing */
} psup_options;

/* Finds what this machine has, makes the supervisor's cgroups, and starts the thread that waits for processes and,
 * where cgroups are used, a process that removes them should this one die. -ENOMEM, -EMFILE, …; no missing right is an
 * error: psup_supervisor_provider says what cannot be had. */
PSUP_API int psup_supervisor_new(const psup_options *options, psup_supervisor **ret, psup_error *error);

/* Ends the supervisor; its handles stay valid and say so. From any thread; again: does nothing. Ends all domains as
 * psup_domain_close does, kills what else still runs, removes the cgroups and ends the thread. */
PSUP_API void psup_supervisor_close(psup_supervisor *supervisor);

/* Ends it, if it has not ended, and lets go of the handle. */
PSUP_API psup_supervisor *psup_supervisor_free(psup_supervisor *supervisor);

/* A descriptor (eventfd, non-blocking) that becomes readable whenever a process has ended or what it left behind is
 * gone; for event loops. Owned by the supervisor. */
PSUP_API int psup_supervisor_fd(const psup_supervisor *supervisor);

typedef enum psup_need {
    PSUP_NEED_FREEZE,
    PSUP_NEED_KILL,
    PSUP_NEED_TREE, /* telling a process's descendants from others of the domain */
    PSUP_NEED_CPU,
    PSUP_NEED_MEMORY,
    PSUP_NEED_CPU_LIMIT,
    PSUP_NEED_MEMORY_LIMIT,
    PSUP_NEED_OOM,
    PSUP_NEED_MACHINE_CPU,
    PSUP_NEED_IDLE_CPU,
    PSUP_NEED_NETWORK,
    PSUP_NEED_COUNT
} psup_need;

/* What serves a need. All text is owned by the supervisor. */
typedef struct psup_provider {
    const char *need;   /* "freeze", "kill", … */
    const char *choice; /* "cgroup v2", "cgroup v1", "process tree", "procfs" or "none" */
    const char *detail; /* the file or means, and what it costs in exactness */
    const char *reason; /* why it is not a better one; "" where there is none */
} psup_provider;

PSUP_API int psup_supervisor_provider(const psup_supervisor *supervisor, psup_need need, psup_provider *ret);

/* ---- Domain ---- */

typedef struct psup_limits {
    size_t size;
    double cpus; /* CPU time per wall time, 1.0 a whole CPU; 0: no limit. At least 0.001 (kernel/sched/core.c) */
    uint64_t memory_bytes; /* with swap counted in; 0: no limit */
} psup_limits;

typedef struct psup_interface {
    char name[16];
    uint64_t received_bytes, transmitted_bytes;
} psup_interface;

/* What a cycle cost; a figure that this machine cannot give is 0 (see psup_supervisor_provider). */
typedef struct psup_metrics {
    size_t size;
    uint64_t domain_cpu_run_ns;             /* CPU time of the domain */
    uint64_t domain_run_ns;                 /* wall time, monotonic clock */
    uint64_t service_cpu_run_ns;            /* CPU time of this process */
    uint64_t domain_max_memory_usage_bytes; /* the peak */
    uint64_t microvm_cpu_run_ns;            /* CPU time of the whole machine */
    uint64_t idle_cpu_run_ns;               /* idle time, all CPUs together */
    const psup_interface *interfaces;       /* bytes in the cycle; owned by the domain, until its next call */
    size_t n_interfaces;
} psup_metrics;

/* A domain that has not been started; its name is unique in its supervisor (-EEXIST). */
PSUP_API int psup_domain_new(psup_supervisor *supervisor, const char *name, psup_domain **ret, psup_error *error);

/* Ends the domain: kills what runs in it (it waits up to 5 s), and closes its subscribers. The handle stays valid and
 * says so. From any thread; again: does nothing. */
PSUP_API void psup_domain_close(psup_domain *domain);

/* Ends it, if it has not ended, and lets go of the handle. */
PSUP_API psup_domain *psup_domain_free(psup_domain *domain);

/* Makes the domain's cgroups and begins the first cycle. `limits`: NULL for none. -EBUSY: started already. */
PSUP_API int psup_domain_start(psup_domain *domain, const psup_limits *limits, psup_error *error);

/* Whether these limits could be had, without setting them. -ENOTSUP with the reason, -EINVAL. */
PSUP_API int psup_supervisor_check_limits(const psup_supervisor *supervisor, const psup_limits *limits,
                                          psup_error *error);

/* The limits in force, as the kernel took them. */
PSUP_API int psup_domain_limits(psup_domain *domain, psup_limits *ret);

/* Stops every process of the domain and gives what the cycle cost. -ETIMEDOUT: they run again. A CPU limit is lifted
 * first, for what holds a kernel lock must run to stop. On a frozen domain: -EBUSY. */
PSUP_API int psup_domain_freeze(psup_domain *domain, uint64_t timeout, psup_metrics *ret, psup_error *error);

/* As psup_domain_freeze, but -EAGAIN when `wait` is over and the freeze still under way: call again, or thaw. */
PSUP_API int psup_domain_freeze_begin(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error);

/* Applies `limits` (NULL: those in force), lets everything run and begins a new cycle. On a domain that is not frozen
 * it applies the limits and begins a new cycle. */
PSUP_API int psup_domain_thaw(psup_domain *domain, const psup_limits *limits, psup_error *error);

/* What the cycle has cost so far. */
PSUP_API int psup_domain_metrics(psup_domain *domain, psup_metrics *ret);

/* Kills all in the domain, frozen or not, and waits until it is gone; gives what the cycle cost and removes the
 * cgroups. -EAGAIN when `wait` is over before that: call again. After that the domain can be started again. */
PSUP_API int psup_domain_stop(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error);

/* ---- Process ---- */

#define PSUP_SET_UID 1u     /* run as `uid` */
#define PSUP_SET_GID 2u     /* run with `gid` */
#define PSUP_DROP_GROUPS 4u /* without supplementary groups */

typedef struct psup_spec {
    size_t size;
    const char *name;        /* see PSUP_NAME_MAX; uniqueness is the caller's affair */
    const char *path;        /* absolute */
    const char *const *argv; /* with argv[0], ended by NULL */
    const char *const *envp; /* "KEY=value", ended by NULL */
    const char *cwd;         /* absolute */
    const int *fds;          /* fds[i] becomes descriptor i; every other one is closed */
    size_t n_fds;            /* 3 … PSUP_FDS_MAX */
    uint32_t flags;          /* PSUP_SET_UID, … */
    uint32_t uid, gid;
} psup_spec;

/* Starts a process in a session of its own, with default signals and an empty signal mask. Returns when execve has
 * succeeded; else `error` has the step and the errno. `domain` NULL: outside of all domains, reported to nobody (for
 * hooks). -EBUSY: the domain is not running. */
PSUP_API int psup_spawn(psup_supervisor *supervisor, psup_domain *domain, const psup_spec *spec, psup_process **ret,
                        psup_error *error);

/* Lets go of the handle; the process runs on. */
PSUP_API psup_process *psup_process_free(psup_process *process);

PSUP_API int psup_process_pid(const psup_process *process);

/* Signals the process's group. 0, also where the process has ended. */
PSUP_API int psup_process_signal(psup_process *process, int signal);

/* Sends SIGKILL to the process and all its descendants, whatever group or session they moved to, frozen or not; does
 * not wait. 0, also where the process has ended: then what it has left behind is killed. */
PSUP_API int psup_process_kill(psup_process *process);

/* Waits until the process has ended and its event is queued and, if it was killed by psup_process_kill, until its
 * descendants are gone too. -ETIMEDOUT (at once with a time-out of 0), -EINTR. */
PSUP_API int psup_process_wait(psup_process *process, uint64_t timeout);

typedef enum psup_cause {
    PSUP_CAUSE_EXITED = 1,
    PSUP_CAUSE_SIGNALED,
    PSUP_CAUSE_OOM_KILLED,
    PSUP_CAUSE_UNKNOWN, /* someone else waited for the process, and the kernel (before 6.15) no longer tells */
} psup_cause;

typedef enum psup_event_type { PSUP_EVENT_TERMINATION = 1, PSUP_EVENT_LOSS } psup_event_type;

typedef struct psup_event {
    uint64_t timestamp_ms; /* Unix time at which the kernel reported the death; of a loss, that of the first lost */
    uint32_t type;         /* psup_event_type */
    uint32_t cause;        /* psup_cause */
    int32_t signo;         /* SIGNALED, OOM_KILLED; else 0 */
    int32_t exit_status;   /* EXITED; else 0 */
    uint64_t lost;         /* LOSS: how many events are missing here */
    char domain[PSUP_NAME_MAX + 1];
    char name[PSUP_NAME_MAX + 1];
} psup_event;

/* How the process ended, as its event says. -EAGAIN while it runs. */
PSUP_API int psup_process_result(psup_process *process, psup_event *ret);

/* ---- Events ---- */

/* Subscribes to a domain. The first subscriber gets what was kept while there was none. A queue holds `length` events (0: that of
 * the supervisor); what does not fit is counted, and a PSUP_EVENT_LOSS stands where the gap is. */
PSUP_API int psup_events_new(psup_domain *domain, uint32_t length, psup_events **ret);
PSUP_API psup_events *psup_events_free(psup_events *events);

/* A descriptor that is readable while an event waits or after psup_events_close. Owned by the subscriber. */
PSUP_API int psup_events_fd(const psup_events *events);

/* Takes up to `count` events; 0 when none waits, -EPIPE when none waits and the subscriber was closed. */
PSUP_API int psup_events_read(psup_events *events, psup_event *ret, size_t count);

/* Waits until psup_events_read has something to say. -ETIMEDOUT, -EINTR. */
PSUP_API int psup_events_wait(psup_events *events, uint64_t timeout);

/* Ends the subscription from any thread: what was queued can still be read, and waiters wake. */
PSUP_API void psup_events_close(psup_events *events);

#ifdef __cplusplus
}
#endif

#endif
