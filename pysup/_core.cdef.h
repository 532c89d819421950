/*
 * What Python sees of pysup.h. Read by cffi: declarations only, in the order of the header, which documents them.
 */
#define PSUP_NAME_MAX ...
#define PSUP_FDS_MAX ...
#define PSUP_CGROUP_V1 ...
#define PSUP_CGROUP_V2 ...
#define PSUP_SET_UID ...
#define PSUP_SET_GID ...
#define PSUP_DROP_GROUPS ...

const char *psup_version(void);

typedef struct psup_supervisor psup_supervisor;
typedef struct psup_domain psup_domain;
typedef struct psup_process psup_process;
typedef struct psup_events psup_events;

typedef struct psup_error {
    int code;
    char step[64];
    char text[448];
} psup_error;

typedef struct psup_options {
    size_t size;
    uint32_t cgroups;
    uint32_t queue_length;
    const char *cgroup_parent;
} psup_options;

int psup_supervisor_new(const psup_options *options, psup_supervisor **ret, psup_error *error);

void psup_supervisor_close(psup_supervisor *supervisor);

psup_supervisor *psup_supervisor_free(psup_supervisor *supervisor);

int psup_supervisor_fd(const psup_supervisor *supervisor);

typedef enum psup_need {
    PSUP_NEED_FREEZE,
    PSUP_NEED_KILL,
    PSUP_NEED_TREE,
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

typedef struct psup_provider {
    const char *need;
    const char *choice;
    const char *detail;
    const char *reason;
} psup_provider;

int psup_supervisor_provider(const psup_supervisor *supervisor, psup_need need, psup_provider *ret);

typedef struct psup_limits {
    size_t size;
    double cpus;
    uint64_t memory_bytes;
} psup_limits;

typedef struct psup_interface {
    char name[16];
    uint64_t received_bytes, transmitted_bytes;
} psup_interface;

typedef struct psup_metrics {
    size_t size;
    uint64_t domain_cpu_run_ns;
    uint64_t domain_run_ns;
    uint64_t service_cpu_run_ns;
    uint64_t domain_max_memory_usage_bytes;
    uint64_t microvm_cpu_run_ns;
    uint64_t idle_cpu_run_ns;
    const psup_interface *interfaces;
    size_t n_interfaces;
} psup_metrics;

int psup_domain_new(psup_supervisor *supervisor, const char *name, psup_domain **ret, psup_error *error);
void psup_domain_close(psup_domain *domain);

psup_domain *psup_domain_free(psup_domain *domain);

int psup_domain_start(psup_domain *domain, const psup_limits *limits, psup_error *error);

int psup_supervisor_check_limits(const psup_supervisor *supervisor, const psup_limits *limits, psup_error *error);

int psup_domain_limits(psup_domain *domain, psup_limits *ret);

int psup_domain_freeze(psup_domain *domain, uint64_t timeout, psup_metrics *ret, psup_error *error);

int psup_domain_freeze_begin(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error);

int psup_domain_thaw(psup_domain *domain, const psup_limits *limits, psup_error *error);

int psup_domain_metrics(psup_domain *domain, psup_metrics *ret);

int psup_domain_stop(psup_domain *domain, uint64_t wait, psup_metrics *ret, psup_error *error);

typedef struct psup_spec {
    size_t size;
    const char *name;
    const char *path;
    const char *const *argv;
    const char *const *envp;
    const char *cwd;
    const int *fds;
    size_t n_fds;
    uint32_t flags;
    uint32_t uid, gid;
} psup_spec;

int psup_spawn(psup_supervisor *supervisor, psup_domain *domain, const psup_spec *spec, psup_process **ret,
                        psup_error *error);

psup_process *psup_process_free(psup_process *process);

int psup_process_pid(const psup_process *process);

int psup_process_signal(psup_process *process, int signal);

int psup_process_kill(psup_process *process);

int psup_process_wait(psup_process *process, uint64_t timeout);

typedef enum psup_cause {
    PSUP_CAUSE_EXITED = 1,
    PSUP_CAUSE_SIGNALED,
    PSUP_CAUSE_OOM_KILLED,
    PSUP_CAUSE_UNKNOWN,
} psup_cause;

typedef enum psup_event_type { PSUP_EVENT_TERMINATION = 1, PSUP_EVENT_LOSS } psup_event_type;

typedef struct psup_event {
    uint64_t timestamp_ms;
    uint32_t type;
    uint32_t cause;
    int32_t signo;
    int32_t exit_status;
    uint64_t lost;
    char domain[251];
    char name[251];
} psup_event;

int psup_process_result(psup_process *process, psup_event *ret);

int psup_events_new(psup_domain *domain, uint32_t length, psup_events **ret);
psup_events *psup_events_free(psup_events *events);

int psup_events_fd(const psup_events *events);

int psup_events_read(psup_events *events, psup_event *ret, size_t count);

int psup_events_wait(psup_events *events, uint64_t timeout);

void psup_events_close(psup_events *events);
