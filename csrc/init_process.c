/* Starting, asking and ending a pysup-init. */
#include "internal.h"

#include "child.h"
#include "init.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u /* Linux 6.3 */
#endif
#define ANSWER_SECONDS 60 /* a domain with a tiny CPU limit is slow, but one that has not answered by then never will */

extern const char psup__init_image[], psup__init_image_end[];

/* Sealed, so that nothing that it runs can change what it runs next. */
int psup__init_image_fd(psup_error *error)
{
    size_t size = (size_t)(psup__init_image_end - psup__init_image);
    int fd = memfd_create("pysup-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("pysup-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return psup__fail(error, errno, "memfd", "cannot make the memory file of pysup-init: %s", strerror(errno));
    if (write(fd, psup__init_image, size) != (ssize_t)size ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        int code = errno;
        close(fd);
        return psup__fail(error, code, "memfd", "cannot fill the memory file of pysup-init: %s", strerror(code));
    }
    return fd;
}

/* Waits for a dead or dying child, by pidfd alone. */
static void reap(int pidfd)
{
    siginfo_t info;
    while (waitid((idtype_t)3 /* P_PIDFD */, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
}

int psup__init_start(psup_supervisor *supervisor, struct psup__init *from, const char *const *argv,
                     struct psup__init *ret, psup_error *error)
{
    static const char *const no_environment[] = {NULL};
    struct psup__init init = {.socket = -1, .pidfd = -1, .pid = -1};
    struct psup__born born = {-1, -1, 0, PSUP__STEP_NONE};
    bool keeper = !strcmp(argv[1], "keep");
    int pair[2] = {-1, -1}, memory = -1, result = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        result = -errno;
    if (!result &&
        (memory = keeper ? open("/dev/null", O_RDWR | O_CLOEXEC) : memfd_create("pysup-task", MFD_CLOEXEC)) < 0)
        result = -errno;
    if (!result && !keeper) {
        void *task = ftruncate(memory, PSUP__TASK_SPACE) < 0
                         ? MAP_FAILED
                         : mmap(NULL, PSUP__TASK_SPACE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        if (task == MAP_FAILED)
            result = -errno;
        else
            init.task = task;
    }
    if (!result) {
        const psup_spec spec = {
            .size = sizeof spec, .path = "/", .argv = argv, .envp = no_environment, .cwd = "/", .n_fds = 4};
        int fds[] = {pair[1], supervisor->self, memory, supervisor->image};
        if (from && from->task) {
            result = psup__task_lay_out(&spec, from->task, PSUP__TASK_SPACE) < 0 ? -E2BIG : 0;
            ((struct psup__task *)from->task)->flags |= PSUP__TASK_IMAGE;
            if (!result)
                result = psup__init_spawn(from, fds, 4, -1, &born);
        } else {
            size_t size = psup__task_size(&spec);
            struct psup__task *task = malloc(size);
            if (task) {
                psup__task_lay_out(&spec, task, size);
                task->flags |= PSUP__TASK_IMAGE;
                psup__task_resolve(task);
                psup__spawn(task, fds, -1, 0, &born);
                free(task);
            } else {
                result = -ENOMEM;
            }
        }
    }
    psup__shut(pair[1]);
    psup__shut(memory);
    init.socket = pair[0];
    init.pid = born.pid;
    init.pidfd = born.pidfd;
    init.ours = born.pidfd >= 0;
    if (!result && born.error)
        result = -born.error;
    if (!result) {
        struct timeval time = {.tv_sec = ANSWER_SECONDS};
        setsockopt(init.socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
        *ret = init;
        return 0;
    }
    psup__init_end(&init, 0);
    return psup__fail(error, -result, "pysup-init", "cannot start pysup-init (%s): %s%s", argv[1], strerror(-result),
                      result == -EACCES ? " (does vm.memfd_noexec=2 forbid it?)" : "");
}

/* Of which the descriptor could not be taken: it must not live on without anyone to hold it. One that is a shim's child
 * dies with the shim. */
static void disown(int pid)
{
    siginfo_t info;
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return;
    kill(pid, SIGKILL);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR)
        ;
}

/* `room`: a descriptor that stands in for the one that comes with the answer, and makes room for it. */
static int answer(const struct psup__init *init, int room, struct psup__reply *reply, int *ret_pidfd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {reply, sizeof *reply};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do
        n = recv(init->socket, reply, sizeof *reply, MSG_PEEK);
    while (n < 0 && errno == EINTR);
    int code = errno;
    close(room);
    errno = code;
    if (n > 0)
        n = recvmsg(init->socket, &message, MSG_CMSG_CLOEXEC);
    *ret_pidfd = -1;
    if (n > 0 && CMSG_FIRSTHDR(&message))
        memcpy(ret_pidfd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *ret_pidfd);
    if (n < 0)
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (n != sizeof *reply)
        return -EPIPE;
    if (*ret_pidfd < 0 && reply->born.pid > 0) { /* another thread has taken the room */
        disown(reply->born.pid);
        return -EMFILE;
    }
    return 0;
}

int psup__init_spawn(struct psup__init *init, const int *fds, size_t n_fds, int cgroup_fd, struct psup__born *ret)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE((PSUP__FDS_MAX + 1) * sizeof(int))];
    } control;
    struct psup__request request = {.type = PSUP__REQUEST_SPAWN, .has_cgroup = cgroup_fd >= 0};
    struct psup__reply reply;
    size_t size = (n_fds + (cgroup_fd >= 0)) * sizeof(int);
    struct iovec part = {&request, sizeof request};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(size)};
    memset(&control, 0, CMSG_SPACE(size));
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
    if (cgroup_fd >= 0)
        memcpy(CMSG_DATA(&control.header) + n_fds * sizeof(int), &cgroup_fd, sizeof cgroup_fd);

    /* Before anything is started: without room for its descriptor the process could not be held. */
    int room = fcntl(init->socket, F_DUPFD_CLOEXEC, 0);
    if (room < 0)
        return init->socket < 0 ? -ENOTCONN : -errno;
    ssize_t sent;
    do
        sent = sendmsg(init->socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        int code = errno;
        close(room);
        return code == EPIPE || code == ECONNRESET ? -ENOTCONN : -code; /* it has not heard of it */
    }
    int pidfd, result = answer(init, room, &reply, &pidfd);
    if (result)
        return result;
    *ret = reply.born;
    ret->pidfd = pidfd;
    return 0;
}

void psup__init_end(struct psup__init *init, uint64_t timeout)
{
    /* Shut down, not only closed: a fork of the host may hold a copy of it, and then the other end would see no end. */
    if (init->ours && init->socket >= 0)
        shutdown(init->socket, SHUT_RDWR);
    init->socket = psup__shut(init->socket);
    if (init->task)
        munmap(init->task, PSUP__TASK_SPACE);
    init->task = NULL;
    if (init->ours) {
        uint64_t deadline = psup__deadline(timeout);
        int ended;
        while ((ended = psup__poll(init->pidfd, POLLIN, psup__left(deadline))) == -EINTR)
            ;
        if (ended <= 0)
            syscall(SYS_pidfd_send_signal, init->pidfd, SIGKILL, NULL, 0);
        reap(init->pidfd);
    }
    init->ours = false;
    init->pidfd = psup__shut(init->pidfd);
}
