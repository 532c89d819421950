/*
 * A new process, from clone to execve. Used by the library itself and by pysup-init, so raw system calls only.
 */
#ifndef PSUP_CHILD_H
#define PSUP_CHILD_H

#include <stdint.h>

#define PSUP__FDS_MAX 252 /* of a process: what one message can carry (SCM_MAX_FD, 253), and a cgroup's */

enum {
    PSUP__TASK_UID = 1,    /* set the user id to `uid` */
    PSUP__TASK_GID = 2,    /* set the group id to `gid` */
    PSUP__TASK_GROUPS = 4, /* give up all supplementary groups */
    PSUP__TASK_IMAGE = 8,  /* the program is descriptor 3: no path leads to it, and /proc need not be in reach */
};

/*
 * All that a child needs, in one block laid out before the clone. The four places are offsets from the block's start
 * so that it can be written in one process and used in another; psup__task_resolve turns them into pointers. `argv`
 * and `envp` name arrays of 64-bit places, ended by 0.
 */
struct psup__task {
    uint64_t size; /* of the whole block, in bytes */
    uint32_t flags, uid, gid;
    uint32_t n_fds; /* descriptors 0 … n_fds-1 of the new process; the others are closed */
    uint64_t path, cwd, argv, envp;
    uint64_t ignored; /* the signals that the creator may ignore, bit n-1 for signal n; 0: it is not known which */
};

/* Where a child failed; the names that the caller is told are in process.c. */
enum psup__step {
    PSUP__STEP_NONE,
    PSUP__STEP_CLONE,
    PSUP__STEP_CGROUP,
    PSUP__STEP_SESSION,
    PSUP__STEP_DESCRIPTORS,
    PSUP__STEP_GROUPS,
    PSUP__STEP_GID,
    PSUP__STEP_UID,
    PSUP__STEP_CWD,
    PSUP__STEP_EXEC,
};

/* How a spawn ended. With an error and a pidfd, a dead child waits to be reaped by its parent. */
struct psup__born {
    int32_t pid, pidfd; /* pidfd: -1 where there is none */
    int32_t error;      /* 0, or a positive errno */
    uint32_t step;      /* enum psup__step */
};

void psup__task_resolve(struct psup__task *task);

/*
 * Starts the process of a resolved task with `fds[i]` as its descriptor i, in the cgroup v2 directory `cgroup_fd` (-1:
 * its creator's), as a child of the caller or, with `sibling`, of the caller's parent. Returns when execve has
 * succeeded or the child has failed; the caller's memory is shared with the child till then, nothing is copied.
 */
void psup__spawn(const struct psup__task *task, const int *fds, int cgroup_fd, int sibling, struct psup__born *ret);

#endif
