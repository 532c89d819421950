/*
 * The reaper: one thread for each supervisor that waits for its processes, takes the time, tells the cause of death and
 * queues the event. It holds no lock of Python and allocates nothing.
 */
#include "internal.h"

#include "child.h"
#include "init.h"

#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BATCH 64
#define STACK (256 * 1024)

/* PIDFD_GET_INFO with PIDFD_INFO_EXIT (linux/pidfd.h, Linux 6.15): the status of a process that someone else reaped. */
struct pidfd_info {
    uint64_t mask, cgroup;
    uint32_t ids[11];
    int32_t exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)
#define PIDFD_INFO_EXIT 8u
#define STOLEN_LOOKS 100 /* of 0.1 ms: the thief's wait has begun, but the kernel has yet to let go of the process */

static uint64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* Waits for a process that is known to have ended. False where its status cannot be had. */
static bool collect(int pidfd, int *ret_code, int *ret_status, struct rusage *usage)
{
    siginfo_t info = {0};
    if (syscall(SYS_waitid, 3 /* P_PIDFD */, pidfd, &info, WEXITED | WNOHANG, usage) == 0 && info.si_pid) {
        *ret_code = info.si_code;
        *ret_status = info.si_status;
        return true;
    }
    /* The host has waited for any child, or ignores SIGCHLD. */
    for (int look = 0; look < STOLEN_LOOKS; look++) {
        struct pidfd_info stolen = {.mask = PIDFD_INFO_EXIT};
        int told = ioctl(pidfd, PIDFD_GET_INFO, &stolen);
        if (told == 0 && stolen.mask & PIDFD_INFO_EXIT) {
            int status = stolen.exit_code;
            *ret_code = WIFEXITED(status) ? CLD_EXITED : CLD_KILLED;
            *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
            return true;
        }
        if (told < 0 && (errno == ENOTTY || errno == EINVAL))
            return false;
        usleep(100);
    }
    return false;
}

/* Died of SIGKILL, not ours, and the kernel's count of OOM kills has risen: read before the event goes out. */
static bool is_oom(struct psup_process *process)
{
    psup_domain *domain = process->domain;
    if (!domain || process->killed)
        return false;
    if (domain->supervisor->cgroups.needs[PSUP_NEED_OOM].from == PSUP__V2)
        return process->leaf && psup__leaf_oom_kills(process->leaf) > process->leaf->oom_kills;
    /* The count names no process. Each kill explains one death, and none of a process that was born after it: it may have
     * been that of a descendant, of which no one is told. */
    if (domain->oom_kills < process->oom_kills)
        domain->oom_kills = process->oom_kills;
    if (psup__domain_oom_kills(domain) <= domain->oom_kills)
        return false;
    domain->oom_kills++;
    return true;
}

/* Under the supervisor's lock. `code` and `status` as in waitid(2); 0: unknown. */
static void announce(struct psup_process *process, uint64_t now, int code, int status)
{
    psup_event *result = &process->result;
    if (process->ended)
        return;
    result->timestamp_ms = now;
    if (code == CLD_EXITED) {
        result->cause = PSUP_CAUSE_EXITED;
        result->exit_status = status;
    } else if (!code) {
        result->cause = PSUP_CAUSE_UNKNOWN;
    } else {
        result->cause = status == SIGKILL && is_oom(process) ? PSUP_CAUSE_OOM_KILLED : PSUP_CAUSE_SIGNALED;
        result->signo = status;
    }
    process->ended = true;
    process->pidfd = psup__shut(process->pidfd); /* a handle of the dead should cost memory only */
    if (process->domain)
        psup__domain_publish(process->domain, process);
    psup__process_changed(process);
}

static void note_peak(psup_domain *domain, uint64_t bytes)
{
    if (bytes > domain->ended_peak)
        domain->ended_peak = bytes;
}

static void process_ended(struct psup_process *process, uint64_t now)
{
    int code = 0, status = 0;
    struct rusage usage = {0};
    epoll_ctl(process->supervisor->epoll, EPOLL_CTL_DEL, process->pidfd, NULL);
    collect(process->pidfd, &code, &status, &usage);
    if (process->domain)
        note_peak(process->domain, (uint64_t)usage.ru_maxrss * 1024u);
    announce(process, now, code, status);
    psup__process_settle(process);
}

/* One message of a shim, or its end: then nothing is left that descends from its process. */
static void shim_spoke(struct psup_process *process, uint64_t now)
{
    struct psup__reply reply;
    psup_domain *domain = process->domain;
    ssize_t n = recv(process->shim.socket, &reply, sizeof reply, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == sizeof reply) {
        if (reply.type != PSUP__REPLY_ENDED)
            return;
        if (domain) {
            domain->ended_cpu += reply.cpu_ns;
            note_peak(domain, reply.peak_bytes);
        }
        if (!reply.orphan)
            announce(process, reply.time_ms, reply.code, reply.status);
        return;
    }
    epoll_ctl(process->supervisor->epoll, EPOLL_CTL_DEL, process->shim.socket, NULL);
    if (!process->ended) {
        /* Someone has killed the shim: no one can tell the status any more, and the process must not outlive it. */
        syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
        announce(process, now, 0, 0);
    }
    psup__init_end(&process->shim, PSUP__S);
    psup__process_settle(process);
}

static void *run(void *argument)
{
    psup_supervisor *supervisor = argument;
    struct epoll_event events[BATCH];
    for (bool stop = false; !stop;) {
        int n = epoll_wait(supervisor->epoll, events, BATCH, -1);
        uint64_t now = wall_ms();
        pthread_mutex_lock(&supervisor->lock);
        for (int i = 0; i < n; i++) {
            struct psup__watch *watch = events[i].data.ptr;
            if (watch->kind == PSUP__WATCH_STOP)
                stop = true;
            else if (watch->kind == PSUP__WATCH_KEEPER)
                psup__keeper_ended(supervisor);
            else if (watch->kind == PSUP__WATCH_PROCESS)
                process_ended(watch->process, now);
            else
                shim_spoke(watch->process, now);
        }
        pthread_mutex_unlock(&supervisor->lock);
    }
    return NULL;
}

int psup__reaper_start(psup_supervisor *supervisor)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    supervisor->stop_watch.kind = PSUP__WATCH_STOP;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &supervisor->stop_watch};
    if (epoll_ctl(supervisor->epoll, EPOLL_CTL_ADD, supervisor->stop, &event) < 0)
        return -errno;
    /* The host's signals are for the host's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    int result = pthread_create(&supervisor->reaper, &attributes, run, supervisor);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!result)
        pthread_setname_np(supervisor->reaper, "pysup-reaper");
    return -result;
}

void psup__reaper_stop(psup_supervisor *supervisor)
{
    eventfd_write(supervisor->stop, 1);
    pthread_join(supervisor->reaper, NULL);
}
