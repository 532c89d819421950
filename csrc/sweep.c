/* Emptying and removing cgroups. */
#include "sweep.h"

#include "sys.h"

#include <signal.h>

#define DIRECTORY_BUFFER 2048
#define PROCS_BUFFER 4096
#define DEPTH_MAX 32 /* of what a domain's own processes may have nested; the kernel itself sets no low limit */

struct dirent64 {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

#define TYPE_DIRECTORY 4 /* DT_DIR */

typedef int (*visitor)(int pid, void *argument);

/* Calls for each pid of cgroup.procs until the visitor gives other than 0, which is the result. */
static int each_process(int directory, visitor visit, void *argument)
{
    char text[PROCS_BUFFER];
    int fd = psup__open_at(directory, "cgroup.procs", O_RDONLY);
    if (fd < 0)
        return fd;
    int result = 0, pid = 0;
    long n;
    while (!result && (n = psup__read(fd, text, sizeof text)) > 0)
        for (long i = 0; i < n && !result; i++) {
            if (text[i] >= '0' && text[i] <= '9')
                pid = pid * 10 + (text[i] - '0');
            else if (pid)
                result = visit(pid, argument), pid = 0;
        }
    psup__close(fd);
    return result;
}

/* Calls for each sub-cgroup until the visitor gives other than 0, which is the result. */
static int each_child(int directory, int (*visit)(int directory, const char *name, void *argument), void *argument)
{
    char buffer[DIRECTORY_BUFFER] __attribute__((aligned(8)));
    int list = psup__open_at(directory, ".", O_RDONLY | O_DIRECTORY);
    if (list < 0)
        return list;
    int result = 0;
    long n;
    while (!result && (n = PSUP__SYS3(SYS_getdents64, list, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < n && !result;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(buffer + at);
            at += entry->length;
            int dots = entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2]));
            if (entry->type == TYPE_DIRECTORY && !dots)
                result = visit(directory, entry->name, argument);
        }
    psup__close(list);
    return result;
}

static int same_process(int pid, void *wanted)
{
    return pid == *(int *)wanted;
}

/* The pid may have become another's since it was read: hold it by pidfd, and signal it only if it is still a member. */
static int kill_member(int pid, void *argument)
{
    int directory = *(int *)argument;
    int pidfd = (int)PSUP__SYS2(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return 0; /* gone by itself */
    if (each_process(directory, same_process, &pid) == 1)
        PSUP__SYS4(SYS_pidfd_send_signal, pidfd, SIGKILL, 0, 0);
    psup__close(pidfd);
    return 0;
}

struct walk {
    int (*step)(int directory, struct walk *walk);
    int depth;
    int *pids, room, count; /* of a list */
};

static int enter(int parent, const char *name, void *argument)
{
    struct walk *walk = argument;
    if (walk->depth == DEPTH_MAX)
        return -ELOOP;
    int directory = psup__open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (directory < 0)
        return directory == -ENOENT ? 0 : directory;
    walk->depth++;
    int result = walk->step(directory, walk);
    walk->depth--;
    psup__close(directory);
    return result;
}

static int kill_step(int directory, struct walk *walk)
{
    each_process(directory, kill_member, &directory);
    return each_child(directory, enter, walk);
}

/* A nested cgroup that was frozen by itself stays frozen when the one above it thaws: each is thawed. */
static int thaw_step(int directory, struct walk *walk)
{
    if (psup__write_at(directory, "freezer.state", "THAWED") < 0)
        psup__write_at(directory, "cgroup.freeze", "0");
    return each_child(directory, enter, walk);
}

static int list_process(int pid, void *argument)
{
    struct walk *walk = argument;
    if (walk->count < walk->room)
        walk->pids[walk->count] = pid;
    walk->count++;
    return 0;
}

static int list_step(int directory, struct walk *walk)
{
    each_process(directory, list_process, walk);
    return each_child(directory, enter, walk);
}

int psup__sweep_list(int directory, int *ret_pids, int room)
{
    struct walk walk = {.step = list_step, .pids = ret_pids, .room = room};
    int result = list_step(directory, &walk);
    return result < 0 ? result : walk.count;
}

static int any_process(int pid, void *argument)
{
    (void)pid;
    (void)argument;
    return 1;
}

static int populated_step(int directory, struct walk *walk)
{
    int result = each_process(directory, any_process, NULL);
    if (result == -ENOENT || result == -ENODEV)
        return 0; /* removed meanwhile */
    return result ? result : each_child(directory, enter, walk);
}

int psup__sweep_kill(int directory)
{
    if (psup__write_at(directory, "cgroup.kill", "1") == 0)
        return 0;
    /* What is frozen cannot fork itself out of reach. It need not be frozen entirely: the caller comes back. */
    if (psup__write_at(directory, "freezer.state", "FROZEN") < 0)
        psup__write_at(directory, "cgroup.freeze", "1");
    struct walk walk = {.step = kill_step};
    int result = kill_step(directory, &walk);
    walk.step = thaw_step;
    thaw_step(directory, &walk);
    return result;
}

int psup__sweep_populated(int directory)
{
    char text[128];
    /* cgroup v2 knows at once ("populated 0\nfrozen 0\n"), and counts the dying too. */
    if (psup__read_at(directory, "cgroup.events", text, sizeof text) > 10)
        return text[10] == '1';
    struct walk walk = {.step = populated_step};
    return populated_step(directory, &walk);
}

static int remove_child(int parent, const char *name, void *argument)
{
    int *depth = argument;
    if (*depth == DEPTH_MAX)
        return -ELOOP;
    int directory = psup__open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (directory < 0)
        return directory == -ENOENT ? 0 : directory;
    ++*depth;
    int result = each_child(directory, remove_child, depth);
    --*depth;
    psup__close(directory);
    if (result < 0)
        return result;
    result = (int)PSUP__SYS3(SYS_unlinkat, parent, name, 0x200 /* AT_REMOVEDIR */);
    return result == -ENOENT ? 0 : result;
}

int psup__sweep_remove(int parent, const char *name)
{
    int depth = 0;
    return remove_child(parent, name, &depth);
}
