/*
 * Emptying and removing cgroups. Used by the library, and by pysup-init when the host has died, so raw system calls
 * only. All of it works on whole subtrees, and on what is frozen.
 */
#ifndef PSUP_SWEEP_H
#define PSUP_SWEEP_H

/*
 * Sends SIGKILL to every process in the cgroup `directory` and below. cgroup v2 does it in one step since Linux 5.14
 * (cgroup.kill); elsewhere the subtree is frozen, signalled and thawed, and a caller calls again until it is empty.
 */
int psup__sweep_kill(int directory);

/* 1 where a process is in the cgroup `directory` or below, 0 where none is, or a negative errno. */
int psup__sweep_populated(int directory);

/* The pids of all processes in the cgroup `directory` and below; how many there are, even if more than `room`. */
int psup__sweep_list(int directory, int *ret_pids, int room);

/* Removes the cgroup `name` in `parent`, the deepest first; 0, also where there was none, or a negative errno. */
int psup__sweep_remove(int parent, const char *name);

#endif
