/* Process trees by way of /proc. */
#include "tree.h"

#include "sys.h"

#include <signal.h>

#define DIRECTORY_BUFFER 8192
#define FIELD_PARENT 4
#define FIELD_CHILD_USER 16
#define FIELD_CHILD_SYSTEM 17
#define FIELD_THREADS 20
#define FIELD_START 22

struct dirent64 {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

static int is_number(const char *text)
{
    for (; *text; text++)
        if (*text < '0' || *text > '9')
            return 0;
    return 1;
}

static int to_number(const char *text)
{
    int n = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        n = n * 10 + (*text - '0');
    return n;
}

/* Reads /proc/PID/stat (fs/proc/array.c); the command's name may hold anything, so what counts begins at its last ')'. */
static int look_at(int proc, const char *pid, struct psup__node *ret)
{
    char path[32], text[1024];
    size_t n = psup__length(pid);
    if (n > 10)
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        path[i] = pid[i];
    for (size_t i = 0; i < sizeof "/stat"; i++)
        path[n + i] = "/stat"[i];

    long length = psup__read_at(proc, path, text, sizeof text);
    if (length < 0)
        return (int)length;
    const char *at = text + length;
    while (at > text && *at != ')')
        at--;
    if (at == text || at[1] != ' ' || !at[2])
        return -EIO;
    struct psup__node node = {.pid = to_number(pid), .state = at[2]};
    at += 2;
    for (int field = 3; *at; at++) {
        if (*at != ' ')
            continue;
        field++;
        uint64_t value = 0;
        for (const char *digit = at + 1; *digit >= '0' && *digit <= '9'; digit++)
            value = value * 10 + (uint64_t)(*digit - '0');
        if (field == FIELD_PARENT)
            node.parent = (int)value;
        else if (field == FIELD_CHILD_USER || field == FIELD_CHILD_SYSTEM)
            node.ticks += value;
        else if (field == FIELD_THREADS)
            node.threads = (int)value;
        else if (field == FIELD_START) {
            node.start = value;
            break;
        }
    }
    *ret = node;
    return 0;
}

static long list_all(int proc, struct psup__node *nodes, size_t capacity)
{
    char buffer[DIRECTORY_BUFFER] __attribute__((aligned(8)));
    size_t count = 0;
    /* A new description, for the offset of a shared one is another's too. */
    int directory = psup__open_at(proc, ".", O_RDONLY | O_DIRECTORY);
    if (directory < 0)
        return directory;
    long n;
    while ((n = PSUP__SYS3(SYS_getdents64, directory, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < n;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(buffer + at);
            at += entry->length;
            if (!is_number(entry->name))
                continue;
            if (count == capacity) {
                psup__close(directory);
                return -E2BIG;
            }
            if (look_at(proc, entry->name, &nodes[count]) == 0)
                count++;
        }
    psup__close(directory);
    return n < 0 ? n : (long)count;
}

static struct psup__node *find(struct psup__node *nodes, size_t count, int pid)
{
    /* /proc lists in ascending order of pid (proc_pid_readdir). */
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (nodes[middle].pid < pid)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && nodes[low].pid == pid ? &nodes[low] : NULL;
}

long psup__tree_list(int proc, const int *roots, size_t n_roots, struct psup__node *nodes, size_t capacity)
{
    long all = list_all(proc, nodes, capacity);
    if (all < 0)
        return all;
    size_t count = (size_t)all;
    for (size_t i = 0; i < n_roots; i++) {
        struct psup__node *root = find(nodes, count, roots[i]);
        if (root)
            root->inside = 2;
    }
    for (int changed = 1; changed;) {
        changed = 0;
        for (size_t i = 0; i < count; i++) {
            if (nodes[i].inside)
                continue;
            const struct psup__node *parent = find(nodes, count, nodes[i].parent);
            if (parent && parent->inside)
                nodes[i].inside = 1, changed = 1;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (nodes[i].inside == 1)
            nodes[kept++] = nodes[i];
    return (long)kept;
}

/* The pid may have become another's since the look: hold it by pidfd, look again, and signal only the same process. */
static void signal_node(int proc, const struct psup__node *node, int signal)
{
    char name[12];
    int n = node->pid, length = 0;
    struct psup__node now;
    for (int rest = n; rest; rest /= 10)
        length++;
    name[length] = 0;
    for (int i = length - 1; i >= 0; i--, n /= 10)
        name[i] = (char)('0' + n % 10);

    int pidfd = (int)PSUP__SYS2(SYS_pidfd_open, node->pid, 0);
    if (pidfd < 0)
        return;
    if (look_at(proc, name, &now) == 0 && now.start == node->start)
        PSUP__SYS4(SYS_pidfd_send_signal, pidfd, signal, 0, 0);
    psup__close(pidfd);
}

static int is_stopped(const struct psup__node *node)
{
    return node->state == 'T' || node->state == 't';
}

/*
 * A parent that waits for its vfork child sleeps uninterruptibly and takes no SIGSTOP before that child has execed. With
 * the child stopped and a SIGSTOP pending it executes nothing, and there is nothing more to wait for. (What waits for a
 * disk and happens to have a stopped child executes nothing more either.)
 */
static int waits_for_stopped(const struct psup__node *node, const struct psup__node *nodes, long count)
{
    if (node->state != 'D')
        return 0;
    for (long i = 0; i < count; i++)
        if (nodes[i].parent == node->pid && is_stopped(&nodes[i]))
            return 1;
    return 0;
}

static int is_dead(const struct psup__node *node)
{
    /* The state is that of the first thread, which can end before the others. */
    return (node->state == 'Z' || node->state == 'X') && node->threads <= 1;
}

long psup__tree_signal(int proc, const int *roots, size_t n_roots, int signal, unsigned rounds,
                       struct psup__node *nodes, size_t capacity)
{
    for (unsigned round = 0; round < rounds; round++) {
        long count = psup__tree_list(proc, roots, n_roots, nodes, capacity);
        if (count < 0)
            return count;
        int alive = 0, running = 0;
        for (long i = 0; i < count; i++) {
            if (is_dead(&nodes[i]))
                continue;
            alive++;
            if (!is_stopped(&nodes[i])) {
                running += !round || !waits_for_stopped(&nodes[i], nodes, count); /* signalled in the first round */
                if (signal != SIGCONT)
                    signal_node(proc, &nodes[i], SIGSTOP);
            }
        }
        if (signal == SIGSTOP && !running)
            return 0;
        if (signal == SIGKILL && !alive)
            return 0;
        if (signal != SIGSTOP && (!running || signal == SIGCONT || round % 2))
            for (long i = 0; i < count; i++)
                signal_node(proc, &nodes[i], signal);
        if (signal == SIGCONT)
            return 0;
        if (round)
            psup__sleep_ms(1);
    }
    return -EAGAIN;
}
