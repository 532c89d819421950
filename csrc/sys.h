/*
 * Raw system calls, and the few kernel constants that older headers lack.
 *
 * What runs between clone and execve, and the freestanding pysup-init, may use neither errno nor anything else of the
 * C library: a child that shares the memory of its suspended parent must leave no trace in it. Every function here
 * returns the kernel's own answer: a result, or a negative errno.
 */
#ifndef PSUP_SYS_H
#define PSUP_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL /* Linux 5.5 */
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* struct clone_args of <linux/sched.h>, all 88 bytes of its third version (Linux 5.7). */
struct psup__clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* struct sigaction as the kernel has it, not as the C library does. */
struct psup__sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

#if defined(__x86_64__)

static inline long psup__syscall(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/*
 * clone3 into `function(argument)` on the stack that `args` names. The child never returns from here: it ends with
 * what the function gives. Parent: the child's pid or a negative errno.
 */
static inline long psup__clone3(struct psup__clone_args *args, int (*function)(void *), void *argument)
{
    register int (*fn)(void *) __asm__("r12") = function;
    register void *arg __asm__("r13") = argument;
    long result;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "mov %%eax, %%edi\n\t"
                     "mov $60, %%eax\n\t" /* exit */
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "a"((long)SYS_clone3), "D"(args), "S"(sizeof *args), "r"(fn), "r"(arg)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

static inline long psup__syscall(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}

static inline long psup__clone3(struct psup__clone_args *args, int (*function)(void *), void *argument)
{
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    register int (*fn)(void *) __asm__("x20") = function;
    register void *arg __asm__("x21") = argument;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x30, xzr\n\t"
                     "mov x0, x21\n\t"
                     "blr x20\n\t"
                     "mov x8, #93\n\t" /* exit */
                     "svc #0\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(fn), "r"(arg)
                     : "memory");
    return x0;
}

#else
#error "pysup knows the system calls of x86_64 and aarch64 only"
#endif

#define PSUP__SYS0(n) psup__syscall((n), 0, 0, 0, 0, 0, 0)
#define PSUP__SYS1(n, a) psup__syscall((n), (long)(a), 0, 0, 0, 0, 0)
#define PSUP__SYS2(n, a, b) psup__syscall((n), (long)(a), (long)(b), 0, 0, 0, 0)
#define PSUP__SYS3(n, a, b, c) psup__syscall((n), (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define PSUP__SYS4(n, a, b, c, d) psup__syscall((n), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define PSUP__SYS5(n, a, b, c, d, e) psup__syscall((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define PSUP__SYS6(n, a, b, c, d, e, f) \
    psup__syscall((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static inline int psup__open_at(int directory, const char *path, int flags)
{
    return (int)PSUP__SYS4(SYS_openat, directory, path, flags | O_CLOEXEC, 0);
}

static inline long psup__read(int fd, void *buffer, size_t size)
{
    return PSUP__SYS3(SYS_read, fd, buffer, size);
}

static inline long psup__write(int fd, const void *data, size_t size)
{
    return PSUP__SYS3(SYS_write, fd, data, size);
}

static inline void psup__close(int fd)
{
    if (fd >= 0)
        PSUP__SYS1(SYS_close, fd);
}

static inline void psup__sleep_ms(long milliseconds)
{
    struct {
        int64_t seconds, nanoseconds;
    } time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    PSUP__SYS2(SYS_nanosleep, &time, 0);
}

static inline size_t psup__length(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

/* Writes all of a short text to a control file below `directory`; 0 or a negative errno. */
static inline int psup__write_at(int directory, const char *path, const char *text)
{
    int fd = psup__open_at(directory, path, O_WRONLY);
    if (fd < 0)
        return fd;
    long n = psup__write(fd, text, psup__length(text));
    psup__close(fd);
    return n < 0 ? (int)n : 0;
}

/* Reads a short file whole into `buffer`, ended by NUL; its length or a negative errno. */
static inline long psup__read_at(int directory, const char *path, char *buffer, size_t size)
{
    int fd = psup__open_at(directory, path, O_RDONLY);
    if (fd < 0)
        return fd;
    long n = psup__read(fd, buffer, size - 1);
    psup__close(fd);
    if (n >= 0)
        buffer[n] = 0;
    return n;
}

#endif
