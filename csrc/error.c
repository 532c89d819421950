/* Errors, clocks and descriptors: the few things that every file needs. */
#include "internal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

int psup__fail(psup_error *error, int code, const char *step, const char *format, ...)
{
    if (error) {
        va_list arguments;
        error->code = code;
        snprintf(error->step, sizeof error->step, "%s", step);
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return -code;
}

uint64_t psup__now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * PSUP__S + (uint64_t)now.tv_nsec;
}

uint64_t psup__deadline(uint64_t timeout)
{
    uint64_t now = psup__now();
    return timeout > PSUP_FOREVER - now ? PSUP_FOREVER : now + timeout;
}

uint64_t psup__left(uint64_t deadline)
{
    if (deadline == PSUP_FOREVER)
        return PSUP_FOREVER;
    uint64_t now = psup__now();
    return deadline > now ? deadline - now : 0;
}

int psup__poll(int fd, short events, uint64_t timeout)
{
    struct pollfd wait = {.fd = fd, .events = events};
    struct timespec time = {(time_t)(timeout / PSUP__S), (long)(timeout % PSUP__S)};
    int n = ppoll(&wait, 1, timeout == PSUP_FOREVER ? NULL : &time, NULL);
    return n < 0 ? -errno : n;
}

int psup__shut(int fd)
{
    if (fd >= 0)
        close(fd);
    return -1;
}

int psup__open(int directory, const char *path, int flags)
{
    int fd = openat(directory, path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
