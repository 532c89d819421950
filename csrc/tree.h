/*
 * Process trees by way of /proc: what stands in for a cgroup where there is none. Raw system calls only, for pysup-init
 * uses it as well. A tree is what descends from a *root*: a pysup-init that is a child subreaper (prctl(2)), so that
 * nothing below it can leave the tree by changing session, group or parent. The root itself is never signalled.
 */
#ifndef PSUP_TREE_H
#define PSUP_TREE_H

#include <stddef.h>
#include <stdint.h>

struct psup__node {
    int pid, parent, threads;
    char state;     /* as in /proc/PID/stat: R, S, D, T, Z … */
    char inside;    /* 1: descends from a root; 2: is one */
    uint64_t start; /* clock ticks since boot; with the pid, an identity */
    uint64_t ticks; /* CPU time of reaped children, in clock ticks */
};

/*
 * Lists what descends from `roots` at the front of `nodes`, which has room for `capacity` of all the machine's
 * processes. Gives the count, or a negative errno: -E2BIG where the room is too small. `proc` is a descriptor of /proc.
 */
long psup__tree_list(int proc, const int *roots, size_t n_roots, struct psup__node *nodes, size_t capacity);

/*
 * Signals every process below `roots` until a look at /proc shows nothing more to do: with SIGSTOP, until all are
 * stopped; with SIGKILL, until none is left alive. SIGKILL is preceded by SIGSTOP, so that nothing can fork itself out
 * of reach. 0, -EAGAIN if `rounds` looks were not enough, or another negative errno.
 */
long psup__tree_signal(int proc, const int *roots, size_t n_roots, int signal, unsigned rounds,
                       struct psup__node *nodes, size_t capacity);

#endif
