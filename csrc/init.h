/* What the library and pysup-init say to each other, over a SOCK_SEQPACKET pair; numbers in the machine's own order. */
#ifndef PSUP_INIT_H
#define PSUP_INIT_H

#include "child.h"

#include <stdint.h>

/*
 * pysup-init MODE [DIRECTORY …]. It ends, in its own way, when the socket is closed or the host has died.
 *   spawn   stands in a domain's cgroups and starts its processes there, as children of the host
 *   shim    is the parent of one process and the subreaper of what descends from it; kills all of it at the end
 *   keep    kills what is in the cgroups DIRECTORY … and removes them at the end
 */
enum {
    PSUP__INIT_SOCKET = 0, /* descriptors of pysup-init at its start */
    PSUP__INIT_HOST = 1,   /* a pidfd of the host */
    PSUP__INIT_TASK = 2,   /* the memory in which struct psup__task is handed over; "keep": /dev/null */
    PSUP__INIT_FDS = 3,
};

#define PSUP__TASK_SPACE (8 << 20) /* of PSUP__INIT_TASK, bytes: more than execve takes (fs/exec.c: 6 MiB) */

enum psup__request_type {
    PSUP__REQUEST_SPAWN = 1, /* with the process's descriptors, then its cgroup directory where has_cgroup */
    PSUP__REQUEST_SIGNAL,    /* "shim": signal the process group of the process, while it is not reaped */
};

struct psup__request {
    uint32_t type;
    uint32_t has_cgroup; /* SPAWN */
    uint32_t signal;     /* SIGNAL */
};

enum psup__reply_type {
    PSUP__REPLY_BORN = 1, /* `born`; with the pidfd where there is one */
    PSUP__REPLY_ENDED,    /* "shim": the process, or an orphan of it, was reaped */
};

struct psup__reply {
    uint32_t type;
    struct psup__born born;
    int32_t code, status; /* ENDED: si_code and si_status of waitid(2) */
    int32_t orphan;       /* ENDED: not the process itself */
    uint64_t time_ms;     /* ENDED: Unix time at which the kernel said so */
    uint64_t cpu_ns;      /* ENDED: CPU time of it and of the children it had reaped (getrusage(2)) */
    uint64_t peak_bytes;  /* ENDED: the largest resident set among them */
};

#endif
