/*
 * pysup-init, the small process that stands where the library itself cannot: see init.h for its three modes.
 *
 * It is static and without a C library: a glibc start executes CPUID dozens of times, each of which traps in a virtual
 * machine, and what lives inside a domain should be small. It is run from a sealed memfd, so no file of the host's can
 * be reached through /proc/PID/exe. Nothing here allocates; what goes wrong ends it, and the library sees that.
 */
#include "init.h"

#include "child.h"
#include "sweep.h"
#include "sys.h"
#include "tree.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define SWEEP_ROUNDS 3000 /* of 10 ms: what cannot be killed in 30 s is in the kernel's hands */
#define NODES_MAX 65536
#define BIT(signal) (1UL << ((signal) - 1))

/* A terminal's Ctrl-C or a signal to the host's group is for the host to answer. */
static const int IGNORED[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2};

/* The compiler may call these by itself. */
void *memset(void *to, int value, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size);

void *memset(void *to, int value, size_t size)
{
    volatile unsigned char *at = to;
    while (size--)
        *at++ = (unsigned char)value;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    volatile unsigned char *at = to;
    const unsigned char *source = from;
    while (size--)
        *at++ = *source++;
    return to;
}

static _Noreturn void leave(int status)
{
    for (;;)
        PSUP__SYS1(SYS_exit_group, status);
}

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE((PSUP__FDS_MAX + 1) * sizeof(int))];
};

static void send_reply(const struct psup__reply *reply, int pidfd)
{
    union control control = {{CMSG_LEN(sizeof pidfd), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec part = {(void *)(uintptr_t)reply, sizeof *reply};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (pidfd >= 0) {
        *(int *)(void *)CMSG_DATA(&control.header) = pidfd;
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof pidfd);
    }
    PSUP__SYS3(SYS_sendmsg, PSUP__INIT_SOCKET, &message, MSG_NOSIGNAL);
}

/* One request and its descriptors; 0 at the end of the connection. */
static long receive(struct psup__request *request, int *fds, int *n_fds)
{
    union control control;
    struct iovec part = {request, sizeof *request};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long n;
    do
        n = PSUP__SYS3(SYS_recvmsg, PSUP__INIT_SOCKET, &message, MSG_CMSG_CLOEXEC);
    while (n == -EINTR);
    *n_fds = 0;
    if (message.msg_controllen >= sizeof control.header) {
        *n_fds = (int)((control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < *n_fds; i++)
            fds[i] = ((int *)(void *)CMSG_DATA(&control.header))[i];
    }
    return n;
}

static void spawn(struct psup__task *task, const struct psup__request *request, int *fds, int n_fds, int sibling,
                  int *ret_pid)
{
    struct psup__reply reply = {.type = PSUP__REPLY_BORN};
    int cgroup = request->has_cgroup && n_fds > 0 ? fds[n_fds - 1] : -1;
    if (n_fds - (cgroup >= 0) != (int)task->n_fds) {
        reply.born = (struct psup__born){-1, -1, EBADF, PSUP__STEP_DESCRIPTORS};
    } else {
        /* Born with all to default, this process knows what it ignores: 8 system calls in the child instead of 64. */
        for (size_t i = 0; i < sizeof IGNORED / sizeof *IGNORED; i++)
            task->ignored |= BIT(IGNORED[i]);
        psup__task_resolve(task);
        psup__spawn(task, fds, cgroup, sibling, &reply.born);
    }
    send_reply(&reply, reply.born.pidfd);
    psup__close(reply.born.pidfd);
    for (int i = 0; i < n_fds; i++)
        psup__close(fds[i]);
    *ret_pid = reply.born.pid;
}

/* ---- spawn ---- */

static _Noreturn void spawner(struct psup__task *task)
{
    int fds[PSUP__FDS_MAX + 1], n_fds, pid;
    struct psup__request request;
    /* A child that the host has forked may hold the connection open: the host's own end counts. */
    struct pollfd wait[] = {{PSUP__INIT_SOCKET, POLLIN, 0}, {PSUP__INIT_HOST, POLLIN, 0}};
    for (;;) {
        if (PSUP__SYS5(SYS_ppoll, wait, 2, 0, 0, 0) == -EINTR)
            continue;
        if (wait[1].revents || receive(&request, fds, &n_fds) != sizeof request)
            leave(0);
        spawn(task, &request, fds, n_fds, 1, &pid);
    }
}

/* ---- shim ---- */

static uint64_t nanoseconds(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_usec * 1000u;
}

/* Reaps and reports all that has ended. Gives 0 when no child is left, else 1. */
static int reap(int process)
{
    for (;;) {
        siginfo_t info = {0};
        struct rusage usage = {0};
        long result = PSUP__SYS5(SYS_waitid, P_ALL, 0, &info, WEXITED | WNOHANG, &usage);
        if (result == -ECHILD)
            return 0;
        if (result < 0 || !info.si_pid)
            return 1;
        struct timespec now = {0};
        PSUP__SYS2(SYS_clock_gettime, CLOCK_REALTIME, &now);
        struct psup__reply reply = {
            .type = PSUP__REPLY_ENDED,
            .time_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u,
            .born = {info.si_pid, -1, 0, 0},
            .code = info.si_code,
            .status = info.si_status,
            .orphan = info.si_pid != process,
            .cpu_ns = nanoseconds(&usage.ru_utime) + nanoseconds(&usage.ru_stime),
            .peak_bytes = (uint64_t)usage.ru_maxrss * 1024u,
        };
        send_reply(&reply, -1);
    }
}

static _Noreturn void shim(struct psup__task *task)
{
    int fds[PSUP__FDS_MAX + 1], n_fds, process = -1;
    uint64_t mask = BIT(SIGCHLD);
    PSUP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    int children = (int)PSUP__SYS4(SYS_signalfd4, -1, &mask, sizeof mask, O_CLOEXEC | O_NONBLOCK);
    if (children < 0 || PSUP__SYS5(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        leave(1);

    struct pollfd wait[] = {{PSUP__INIT_SOCKET, POLLIN, 0}, {PSUP__INIT_HOST, POLLIN, 0}, {children, POLLIN, 0}};
    for (;;) {
        long n = PSUP__SYS5(SYS_ppoll, wait, 3, 0, 0, 0);
        if (n == -EINTR)
            continue;
        if (n < 0 || wait[1].revents)
            break;
        if (wait[0].revents) {
            struct psup__request request;
            if (receive(&request, fds, &n_fds) != sizeof request)
                break;
            if (request.type == PSUP__REQUEST_SPAWN && process < 0)
                spawn(task, &request, fds, n_fds, 0, &process);
            else if (request.type == PSUP__REQUEST_SIGNAL && process > 0)
                PSUP__SYS2(SYS_kill, -process, request.signal);
        }
        if (wait[2].revents) {
            char drain[sizeof(struct { char signal[128]; })];
            while (psup__read(children, drain, sizeof drain) > 0)
                ;
        }
        if (process >= 0 && !reap(process))
            leave(0);
        if (process < 0 && wait[0].revents)
            leave(1); /* the only task of a shim could not be started; its parent has been told */
    }

    size_t size = NODES_MAX * sizeof(struct psup__node);
    long nodes = PSUP__SYS6(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int proc = psup__open_at(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY);
    int self = (int)PSUP__SYS0(SYS_getpid);
    if (nodes > 0 && proc >= 0)
        while (psup__tree_signal(proc, &self, 1, SIGKILL, 8, (struct psup__node *)nodes, NODES_MAX) == -EAGAIN ||
               reap(process))
            psup__sleep_ms(1);
    leave(0);
}

/* ---- keep ---- */

/* Splits the last part of an absolute path off: opens what is above it and gives the part. */
static int open_above(char *path, const char **ret_name)
{
    char *slash = path;
    for (char *at = path; *at; at++)
        if (*at == '/')
            slash = at;
    *slash = 0;
    *ret_name = slash + 1;
    return psup__open_at(AT_FDCWD, slash == path ? "/" : path, O_RDONLY | O_DIRECTORY);
}

/*
 * Where the host made room for controllers, it stood in a leaf NAME-host, and so does this process: as the host does at
 * its end (cgroup.c), the controllers are given back and the leaf is left and removed.
 */
static void leave_room(int above, const char *name)
{
    static const char suffix[] = "-host";
    char leaf[256];
    size_t n = psup__length(name);
    if (n + sizeof suffix > sizeof leaf)
        return;
    for (size_t i = 0; i < n; i++)
        leaf[i] = name[i];
    for (size_t i = 0; i < sizeof suffix; i++)
        leaf[n + i] = suffix[i];
    int fd = psup__open_at(above, leaf, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return;
    psup__close(fd);
    psup__write_at(above, "cgroup.subtree_control", "-cpu -memory");
    psup__write_at(above, "cgroup.procs", "0");
    psup__sweep_remove(above, leaf);
}

static _Noreturn void keeper(char **directories)
{
    struct pollfd wait[] = {{PSUP__INIT_SOCKET, POLLIN, 0}, {PSUP__INIT_HOST, POLLIN, 0}};
    while (PSUP__SYS5(SYS_ppoll, wait, 2, 0, 0, 0) == -EINTR)
        ;
    /* Kill by way of every hierarchy, again and again: a process can be missed while it is born. */
    int left = 1;
    for (int round = 0; left && round < SWEEP_ROUNDS; round++) {
        left = 0;
        for (char **directory = directories; *directory; directory++) {
            const char *name;
            int above = open_above(*directory, &name);
            if (above >= 0) {
                int inside = psup__open_at(above, name, O_RDONLY | O_DIRECTORY);
                if (inside >= 0) {
                    if (psup__sweep_populated(inside) != 0)
                        psup__sweep_kill(inside);
                    psup__close(inside);
                    left |= psup__sweep_remove(above, name) != 0;
                    if (!left)
                        leave_room(above, name);
                }
                psup__close(above);
            }
            ((char *)(uintptr_t)name)[-1] = '/';
        }
        if (left)
            psup__sleep_ms(round < 10 ? 1 : 10);
    }
    leave(left);
}

__attribute__((used)) static _Noreturn void start(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1);
    if (argc < 2)
        leave(2);

    struct psup__sigaction ignore = {.handler = SIG_IGN};
    for (size_t i = 0; i < sizeof IGNORED / sizeof *IGNORED; i++)
        PSUP__SYS4(SYS_rt_sigaction, IGNORED[i], &ignore, 0, sizeof ignore.mask);
    PSUP__SYS5(SYS_prctl, PR_SET_NAME, "pysup-init", 0, 0, 0);
    psup__close(PSUP__INIT_FDS); /* the image that this was run from */
    for (int fd = 0; fd < PSUP__INIT_FDS; fd++)
        PSUP__SYS3(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);

    if (equal(argv[1], "keep"))
        keeper(argv + 2);
    long task = PSUP__SYS6(SYS_mmap, 0, PSUP__TASK_SPACE, PROT_READ | PROT_WRITE, MAP_SHARED, PSUP__INIT_TASK, 0);
    if (task < 0 && task > -4096)
        leave(3);
    if (equal(argv[1], "spawn"))
        spawner((struct psup__task *)task);
    if (equal(argv[1], "shim"))
        shim((struct psup__task *)task);
    leave(2);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x29, xzr\n mov x0, sp\n b start\n");
#endif
