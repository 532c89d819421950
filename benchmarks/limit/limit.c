/*
 * The limit: the system calls that a call of pysup cannot do without, in bare loops. usage: limit CASE key=value…
 *
 *   freeze    freeze=FILE check=FILE on= off= want=    write, read again until `want` is there, read the statistics;
 *             n= tiny= join=… reset= stat=…            thaw: reset, read the statistics, write. join: cgroup.procs
 *   stop      n= tiny=                                 the same by SIGSTOP and SIGCONT
 *   exec      tiny=                                    vfork, execve, waitid
 *   kill      tiny= signal=                            pidfd_send_signal, poll, waitid
 *   stat      stat=…                                   preads
 *   domain    make=…                                   mkdir of each, and a process moved into each of move=…; rmdir
 */
#include "loop.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 16
#define PROCESSES 1000

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static char **args;
static const char *tiny;
static int freeze_fd, check_fd, reset_fd = -1, stats[FILES], n_stats, pids[PROCESSES], n_pids;
static const char *on, *off, *want;

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    must(fd >= 0, path);
    return fd;
}

/* As pysup does it: the child runs on our memory until execve. */
static pid_t start(int stays)
{
    char *const with[] = {(char *)(uintptr_t)tiny, "stay", NULL}, *const without[] = {(char *)(uintptr_t)tiny, NULL},
                *const none[] = {NULL};
    pid_t pid = vfork();
    if (!pid) {
        execve(tiny, stays ? with : without, none);
        _exit(127);
    }
    must(pid > 0, "vfork");
    return pid;
}

static void write_number(const char *path, int number)
{
    char text[16];
    int fd = open_file(path, O_WRONLY), n = snprintf(text, sizeof text, "%d", number);
    must(write(fd, text, (size_t)n) == n, path);
    close(fd);
}

static void start_all(void)
{
    n_pids = atoi(argument(args, "n", 0));
    must(n_pids <= PROCESSES, "n");
    for (int i = 0; i < n_pids; i++) {
        const char *procs;
        pids[i] = start(1);
        for (int j = 0; (procs = argument(args, "join", j)); j++)
            write_number(procs, pids[i]);
    }
}

static void end_all(void)
{
    for (int i = 0; i < n_pids; i++)
        kill(pids[i], SIGKILL);
    for (int i = 0; i < n_pids; i++)
        waitpid(pids[i], NULL, 0);
}

static void read_stats(void)
{
    char text[4096];
    struct timespec cpu;
    for (int i = 0; i < n_stats; i++)
        must(pread(stats[i], text, sizeof text, 0) >= 0, "stat");
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
}

static void open_stats(void)
{
    const char *path;
    while (n_stats < FILES && (path = argument(args, "stat", n_stats)))
        stats[n_stats++] = open_file(path, O_RDONLY);
}

static void step_freeze(uint64_t ns[PARTS])
{
    char text[256];
    uint64_t begin = now_ns();
    must(pwrite(freeze_fd, on, strlen(on), 0) > 0, "freeze");
    for (;;) {
        ssize_t n = pread(check_fd, text, sizeof text - 1, 0);
        must(n > 0, "check");
        text[n] = 0;
        if (strstr(text, want))
            break;
        sched_yield();
        if (!strcmp(on, "FROZEN"))
            must(pwrite(freeze_fd, on, strlen(on), 0) > 0, "freeze");
    }
    read_stats();
    uint64_t middle = now_ns();
    if (reset_fd >= 0)
        must(pwrite(reset_fd, "0", 1, 0) == 1, "reset");
    read_stats();
    must(pwrite(freeze_fd, off, strlen(off), 0) > 0, "thaw");
    ns[0] = middle - begin;
    ns[1] = now_ns() - middle;
}

static void step_stop(uint64_t ns[PARTS])
{
    siginfo_t info;
    uint64_t begin = now_ns();
    for (int i = 0; i < n_pids; i++)
        kill(pids[i], SIGSTOP);
    for (int i = 0; i < n_pids; i++)
        must(waitid(P_PID, (id_t)pids[i], &info, WSTOPPED) == 0, "waitid");
    read_stats();
    uint64_t middle = now_ns();
    read_stats();
    for (int i = 0; i < n_pids; i++)
        kill(pids[i], SIGCONT);
    ns[0] = middle - begin;
    ns[1] = now_ns() - middle;
    for (int i = 0; i < n_pids; i++)
        waitid(P_PID, (id_t)pids[i], &info, WCONTINUED);
}

static void step_exec(uint64_t ns[PARTS])
{
    siginfo_t info;
    uint64_t begin = now_ns();
    pid_t pid = start(0);
    ns[0] = now_ns() - begin;
    must(waitid(P_PID, (id_t)pid, &info, WEXITED) == 0, "waitid");
    ns[1] = now_ns() - begin;
}

static void step_kill(uint64_t ns[PARTS])
{
    siginfo_t info;
    pid_t pid = start(1);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), signal = atoi(argument(args, "signal", 0));
    must(pidfd >= 0, "pidfd_open");
    struct pollfd wait = {pidfd, POLLIN, 0};
    usleep(200); /* it sleeps by now */
    uint64_t begin = now_ns();
    must(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0, "pidfd_send_signal");
    must(poll(&wait, 1, -1) == 1, "poll");
    must(waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0, "waitid");
    ns[0] = now_ns() - begin;
    close(pidfd);
}

static void step_stat(uint64_t ns[PARTS])
{
    uint64_t begin = now_ns();
    read_stats();
    ns[0] = now_ns() - begin;
}

static void step_domain(uint64_t ns[PARTS])
{
    const char *path;
    char procs[4200];
    uint64_t begin = now_ns();
    int pid = 0;
    for (int i = 0; (path = argument(args, "make", i)); i++)
        must(mkdir(path, 0755) == 0, path);
    if (argument(args, "move", 0))
        pid = start(1);
    for (int i = 0; (path = argument(args, "move", i)); i++) {
        snprintf(procs, sizeof procs, "%s/cgroup.procs", path);
        write_number(procs, pid);
    }
    uint64_t middle = now_ns();
    if (pid) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    for (int i = 0; (path = argument(args, "make", i)); i++)
        while (rmdir(path) < 0)
            must(errno == EBUSY, path);
    ns[0] = middle - begin;
    ns[1] = now_ns() - middle;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*step)(uint64_t ns[PARTS]);
        int parts;
    } cases[] = {{"freeze", step_freeze, 2}, {"stop", step_stop, 2}, {"exec", step_exec, 2},
                 {"kill", step_kill, 1},     {"stat", step_stat, 1}, {"domain", step_domain, 2}};
    args = argv;
    tiny = argument(argv, "tiny", 0);
    open_stats();
    if (argument(argv, "n", 0))
        start_all();
    if ((on = argument(argv, "on", 0))) {
        off = argument(argv, "off", 0);
        want = argument(argv, "want", 0);
        freeze_fd = open_file(argument(argv, "freeze", 0), O_RDWR);
        check_fd = open_file(argument(argv, "check", 0), O_RDONLY);
    }
    if (argument(argv, "reset", 0))
        reset_fd = open_file(argument(argv, "reset", 0), O_RDWR);
    for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name)) {
            converse(cases[i].step, cases[i].parts);
            end_all();
            return 0;
        }
    return 2;
}
