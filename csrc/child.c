/* A new process, from clone to execve. */
#include "child.h"

#include "sys.h"

#include <sched.h>
#include <signal.h>

#define ALL_SIGNALS (~(uint64_t)0)
#define LAST_SIGNAL 64
#define CHILD_STACK 16384

struct context {
    const struct psup__task *task;
    const int *fds;
    int cgroup_fd;    /* to be joined by the child itself, or -1 */
    uint64_t signals; /* to be put to default by the child itself */
    volatile int error;
    volatile uint32_t step;
};

static int fail(struct context *context, enum psup__step step, long result)
{
    context->error = (int)-result;
    context->step = step;
    return 127;
}

static long set_mask(uint64_t mask, uint64_t *old)
{
    return PSUP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, old, sizeof mask);
}

/* The host's handlers must not run here, and what it ignores (Python: SIGPIPE) is not the program's wish. */
static void default_signals(uint64_t which)
{
    struct psup__sigaction action = {0};
    for (int signal = 1; signal <= LAST_SIGNAL; signal++)
        if (which >> (signal - 1) & 1)
            PSUP__SYS4(SYS_rt_sigaction, signal, &action, 0, sizeof action.mask);
}

/* Puts fds[i] at i. Sources below n are lifted first, so that none is overwritten before its turn. */
static long place_descriptors(const struct psup__task *task, const int *fds)
{
    int lifted[PSUP__FDS_MAX];
    int n = (int)task->n_fds;
    for (int i = 0; i < n; i++) {
        lifted[i] = fds[i] >= n ? fds[i] : (int)PSUP__SYS3(SYS_fcntl, fds[i], F_DUPFD_CLOEXEC, n);
        if (lifted[i] < 0)
            return lifted[i];
    }
    for (int i = 0; i < n; i++) {
        long placed = PSUP__SYS3(SYS_dup3, lifted[i], i, 0);
        if (placed < 0)
            return placed;
    }
    return PSUP__SYS3(SYS_close_range, n, ~0U, 0);
}

/* Groups first: without the user's privileges they could no longer be changed. */
static int take_identity(struct context *context)
{
    const struct psup__task *task = context->task;
    long result;
    if (task->flags & PSUP__TASK_GROUPS && (result = PSUP__SYS2(SYS_setgroups, 0, 0)) < 0)
        return fail(context, PSUP__STEP_GROUPS, result);
    if (task->flags & PSUP__TASK_GID && (result = PSUP__SYS3(SYS_setresgid, task->gid, task->gid, task->gid)) < 0)
        return fail(context, PSUP__STEP_GID, result);
    if (task->flags & PSUP__TASK_UID && (result = PSUP__SYS3(SYS_setresuid, task->uid, task->uid, task->uid)) < 0)
        return fail(context, PSUP__STEP_UID, result);
    return 0;
}

static int child(void *argument)
{
    struct context *context = argument;
    const struct psup__task *task = context->task;
    long result;

    default_signals(context->signals);
    if ((result = PSUP__SYS0(SYS_setsid)) < 0)
        return fail(context, PSUP__STEP_SESSION, result);
    if (context->cgroup_fd >= 0 && (result = psup__write_at(context->cgroup_fd, "cgroup.procs", "0")) < 0)
        return fail(context, PSUP__STEP_CGROUP, result);
    if ((result = place_descriptors(task, context->fds)) < 0)
        return fail(context, PSUP__STEP_DESCRIPTORS, result);
    if ((result = take_identity(context)))
        return (int)result;
    /* As the user that the process will be: a directory that it may not enter is not entered for it. */
    if ((result = PSUP__SYS1(SYS_chdir, task->cwd)) < 0)
        return fail(context, PSUP__STEP_CWD, result);
    set_mask(0, 0);
    if (task->flags & PSUP__TASK_IMAGE)
        result = PSUP__SYS5(SYS_execveat, 3, "", task->argv, task->envp, AT_EMPTY_PATH);
    else
        result = PSUP__SYS3(SYS_execve, task->path, task->argv, task->envp);
    return fail(context, PSUP__STEP_EXEC, result);
}

void psup__task_resolve(struct psup__task *task)
{
    uint64_t base = (uint64_t)(uintptr_t)task;
    task->path += base;
    task->cwd += base;
    task->argv += base;
    task->envp += base;
    for (uint64_t *place = (uint64_t *)(uintptr_t)task->argv; *place; place++)
        *place += base;
    for (uint64_t *place = (uint64_t *)(uintptr_t)task->envp; *place; place++)
        *place += base;
}

/* Whether CLONE_INTO_CGROUP cannot be had here, so that the child must move itself (kernel/cgroup/cgroup.c). */
static int cannot_be_born_inside(long result)
{
    return result == -ENOSYS || result == -E2BIG || result == -EOPNOTSUPP || result == -EBUSY || result == -EACCES;
}

void psup__spawn(const struct psup__task *task, const int *fds, int cgroup_fd, int sibling, struct psup__born *ret)
{
    char stack[CHILD_STACK] __attribute__((aligned(16)));
    struct context context = {
        .task = task, .fds = fds, .cgroup_fd = -1, .signals = task->ignored ? task->ignored : ALL_SIGNALS};
    int pidfd = -1;
    struct psup__clone_args args = {
        .flags = (uint64_t)CLONE_VM | CLONE_VFORK | CLONE_PIDFD | (sibling ? CLONE_PARENT : 0) |
                 (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0) | (task->ignored ? CLONE_CLEAR_SIGHAND : 0),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = sibling ? 0 : SIGCHLD, /* a sibling's is that of its creator */
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof stack,
        .cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0,
    };
    uint64_t mask;

    /* No handler of the host may run on the borrowed memory before the child has put all signals to default. */
    set_mask(ALL_SIGNALS, &mask);
    long pid = psup__clone3(&args, child, &context);
    if (cgroup_fd >= 0 && cannot_be_born_inside(pid)) {
        args.flags &= ~(uint64_t)CLONE_INTO_CGROUP;
        args.cgroup = 0;
        context.cgroup_fd = cgroup_fd;
        pid = psup__clone3(&args, child, &context);
    }
    if (pid == -EINVAL && task->ignored) { /* before Linux 5.5 */
        args.flags &= ~(uint64_t)CLONE_CLEAR_SIGHAND;
        context.signals = ALL_SIGNALS;
        pid = psup__clone3(&args, child, &context);
    }
    set_mask(mask, 0);

    if (pid < 0)
        *ret = (struct psup__born){-1, -1, (int)-pid, PSUP__STEP_CLONE};
    else
        *ret = (struct psup__born){(int)pid, pidfd, context.error, context.step};
}
