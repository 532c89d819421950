/* Where this process stands in the cgroup hierarchies, told from trees laid out in a temporary directory. */
#include "internal.h"

#include "runner.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOTH (PSUP_CGROUP_V1 | PSUP_CGROUP_V2)
#define LONG 200000

static char prefix[64];

static void write_file(const char *name, const char *text, size_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/proc/self/%s", prefix, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ASSERT(fd >= 0);
    while (size) {
        ssize_t n = write(fd, text, size);
        ASSERT(n > 0);
        text += n;
        size -= (size_t)n;
    }
    close(fd);
}

static void make_tree(void)
{
    char path[PATH_MAX];
    snprintf(prefix, sizeof prefix, "/tmp/psup-layout-XXXXXX");
    ASSERT(mkdtemp(prefix));
    snprintf(path, sizeof path, "%s/proc", prefix);
    ASSERT_EQ(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/proc/self", prefix);
    ASSERT_EQ(mkdir(path, 0755), 0);
}

static void remove_tree(void)
{
    static const char *const names[] = {"proc/self/mountinfo", "proc/self/cgroup", "proc/self", "proc", ""};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", prefix, names[i]);
        remove(path);
    }
}

/* What is expected: a path below the prefix, or NULL where there should be none, with part of the reason. */
struct expected {
    const char *v2, *cpu, *cpuacct, *memory, *freezer;
};

static void check(const struct psup__place places[PSUP__HIERARCHIES], struct expected expected)
{
    const char *const paths[PSUP__HIERARCHIES] = {expected.v2, expected.cpu, expected.cpuacct, expected.memory,
                                                  expected.freezer};
    for (int i = 0; i < PSUP__HIERARCHIES; i++) {
        char path[PATH_MAX] = "";
        if (paths[i])
            snprintf(path, sizeof path, "%s%s", prefix, paths[i]);
        ASSERT_STR_EQ(places[i].path, path);
        if (paths[i])
            ASSERT_STR_EQ(places[i].reason, "");
        else
            ASSERT(places[i].reason[0]);
    }
}

static void look(const char *mountinfo, const char *cgroup, uint32_t allowed, const char *parent,
                 struct psup__place places[PSUP__HIERARCHIES])
{
    make_tree();
    if (mountinfo)
        write_file("mountinfo", mountinfo, strlen(mountinfo));
    if (cgroup)
        write_file("cgroup", cgroup, strlen(cgroup));
    psup__layout_find(prefix, allowed, parent, places);
    remove_tree();
}

static void expect(const char *mountinfo, const char *cgroup, struct expected expected)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    memset(places, 0x5a, sizeof places);
    look(mountinfo, cgroup, BOTH, NULL, places);
    check(places, expected);
}

#define ROOT "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n23 22 0:21 / /proc rw shared:2 - proc proc rw\n"

TEST(unified_with_systemd)
{
    expect(
        ROOT "30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 "
             "rw,nsdelegate,memory_recursiveprot\n",
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n",
        (struct expected){.v2 = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"});
}

#define V1(id, name, root)                                                                                             \
    #id " 25 0:" #id " " root " /sys/fs/cgroup/" name " rw,nosuid,nodev,noexec,relatime shared:" #id " - cgroup " name \
        " rw," name "\n"
#define TMPFS "25 22 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n"

TEST(v1_with_shared_hierarchies)
{
    /* cpu and cpuacct in one; the mount point's name has them the other way round. */
    expect(ROOT TMPFS "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:15 - cgroup cgroup rw,cpuacct,cpu\n"
                      "31 25 0:27 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n" V1(
                          34, "memory", "/") V1(35, "freezer", "/") V1(36, "cpuset", "/"),
           "11:cpuset:/\n10:freezer:/a b\n9:memory:/user.slice\n4:cpuacct,cpu:/user.slice\n1:name=systemd:/u/s.scope\n",
           (struct expected){.cpu = "/sys/fs/cgroup/cpu,cpuacct/user.slice",
                             .cpuacct = "/sys/fs/cgroup/cpu,cpuacct/user.slice",
                             .memory = "/sys/fs/cgroup/memory/user.slice",
                             .freezer = "/sys/fs/cgroup/freezer/a b"});
}

TEST(cpuset_is_not_cpu)
{
    expect(ROOT TMPFS V1(36, "cpuset", "/") V1(37, "cpuacct", "/"), "3:cpuset:/x\n2:cpuacct:/y\n",
           (struct expected){.cpuacct = "/sys/fs/cgroup/cpuacct/y"});
}

TEST(hybrid_as_systemd_has_it)
{
    expect(ROOT TMPFS "26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup rw,nsdelegate\n"
                      "31 25 0:27 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n" V1(
                          34, "memory", "/") V1(35, "freezer", "/"),
           "9:memory:/user.slice\n5:freezer:/\n1:name=systemd:/user.slice/s.scope\n0::/user.slice/s.scope\n",
           (struct expected){.v2 = "/sys/fs/cgroup/unified/user.slice/s.scope",
                             .memory = "/sys/fs/cgroup/memory/user.slice",
                             .freezer = "/sys/fs/cgroup/freezer"});
}

TEST(container_with_a_cgroup_namespace)
{
    expect(ROOT "30 22 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n", "0::/\n",
           (struct expected){.v2 = "/sys/fs/cgroup"});
    expect(ROOT TMPFS V1(35, "freezer", "/"), "5:freezer:/\n0::/\n",
           (struct expected){.freezer = "/sys/fs/cgroup/freezer"});
}

TEST(container_without_a_cgroup_namespace)
{
    /* The mount shows the container's cgroup, but /proc/self/cgroup names it from the machine's root. */
    expect(ROOT TMPFS V1(35, "freezer", "/docker/0123abcd") V1(34, "memory", "/docker/0123abcd"),
           "5:freezer:/docker/0123abcd/inner\n4:memory:/docker/0123abcd\n",
           (struct expected){.memory = "/sys/fs/cgroup/memory", .freezer = "/sys/fs/cgroup/freezer/inner"});
}

TEST(a_longer_name_is_not_inside)
{
    expect(ROOT TMPFS V1(35, "freezer", "/docker/0123"), "5:freezer:/docker/01234\n", (struct expected){.v2 = NULL});
}

TEST(outside_of_the_namespace)
{
    expect(ROOT "30 22 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/../x\n", (struct expected){.v2 = NULL});
    expect(ROOT "30 22 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/..\n", (struct expected){.v2 = NULL});
    expect(ROOT "30 22 0:26 /.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/../..\n", (struct expected){.v2 = NULL});
    /* A name may begin with dots. */
    expect(ROOT "30 22 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/..x\n",
           (struct expected){.v2 = "/sys/fs/cgroup/..x"});
}

TEST(nothing_mounted)
{
    expect(ROOT, "0::/\n", (struct expected){.v2 = NULL});
    expect("", "", (struct expected){.v2 = NULL});
    expect(NULL, NULL, (struct expected){.v2 = NULL});
    expect(ROOT "30 22 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", NULL, (struct expected){.v2 = NULL});
}

TEST(octal_escapes)
{
    expect(ROOT "30 22 0:26 / /mnt/a\\040b\\134c\\011d rw - cgroup2 cgroup rw\n", "0::/x\\040y\n",
           (struct expected){.v2 = "/mnt/a b\\c\td/x\\040y"});
    expect(ROOT "30 22 0:26 /a\\040b /m rw - cgroup2 cgroup rw\n", "0::/a b/c\n", (struct expected){.v2 = "/m/c"});
    /* What is no escape stands for itself. */
    expect(ROOT "30 22 0:26 / /m\\ rw - cgroup2 cgroup rw\n", "0::/\n", (struct expected){.v2 = "/m\\"});
    expect(ROOT "30 22 0:26 / /m\\9zzz\\04 rw - cgroup2 cgroup rw\n", "0::/\n",
           (struct expected){.v2 = "/m\\9zzz\\04"});
}

TEST(garbage_is_passed_over)
{
    expect("\n\n - cgroup2\n-\n30 22 0:26 / /m rw -\n30 22 0:26 / /m rw - cgroup2\n30 22 0:26 / /m rw - cgroup2 x\n"
           "30 22 - cgroup2 cgroup rw\n30 22 0:26 / - cgroup2 cgroup rw\n"
           "31 22 0:26 / /good rw a:1 b:2 c - cgroup2 cgroup rw\n30 22 0:26 / /cut rw - cgro",
           "\n:\n::\nx\n0:\n0::/own", (struct expected){.v2 = "/good/own"});
    expect("\xff\xfe\x01 \x80 \n31 22 0:26 / /good rw - cgroup2 cgroup rw\n", "\xff\xff:\xff\n0::/\xe4\n",
           (struct expected){.v2 = "/good/\xe4"});
}

TEST(an_empty_controller_list_is_v2_only_with_id_zero)
{
    expect(ROOT "30 22 0:26 / /m rw - cgroup2 cgroup rw\n", "7::/wrong\n0::/right\n",
           (struct expected){.v2 = "/m/right"});
}

TEST(very_long_lines)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    static const char good[] = "31 22 0:26 / /good rw - cgroup2 cgroup rw\n", own[] = "0::/own\n";
    char *text = malloc(2 * LONG);
    ASSERT(text);

    /* One before what is wanted. */
    make_tree();
    memset(text, 'a', LONG);
    text[LONG - 1] = '\n';
    memcpy(text + LONG, good, sizeof good);
    write_file("mountinfo", text, strlen(text));
    memcpy(text + LONG, own, sizeof own);
    write_file("cgroup", text, strlen(text));
    psup__layout_find(prefix, BOTH, NULL, places);
    check(places, (struct expected){.v2 = "/good/own"});
    remove_tree();

    /* A path that fits nowhere: none, not a shorter one. */
    make_tree();
    write_file("mountinfo", good, sizeof good - 1);
    int n = snprintf(text, LONG, "0::/%0*d\n", 5000, 0);
    write_file("cgroup", text, (size_t)n);
    psup__layout_find(prefix, BOTH, NULL, places);
    check(places, (struct expected){.v2 = NULL});
    n = snprintf(text, LONG, "31 22 0:26 / /%0*d rw - cgroup2 cgroup rw\n", 5000, 0);
    write_file("mountinfo", text, (size_t)n);
    write_file("cgroup", "0::/\n", 5);
    psup__layout_find(prefix, BOTH, NULL, places);
    check(places, (struct expected){.v2 = NULL});
    remove_tree();
    free(text);
}

TEST(mounted_twice_in_one_place)
{
    expect(ROOT
           "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n31 30 0:26 /a /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
           "0::/a/b\n", (struct expected){.v2 = "/sys/fs/cgroup/b"});
}

TEST(mounted_twice_only_one_shows_this_process)
{
    expect(ROOT
           "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n31 22 0:26 /other /srv/jail rw - cgroup2 cgroup rw\n",
           "0::/a/b\n", (struct expected){.v2 = "/sys/fs/cgroup/a/b"});
    expect(ROOT
           "31 22 0:26 /other /srv/jail rw - cgroup2 cgroup rw\n30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
           "0::/a/b\n", (struct expected){.v2 = "/sys/fs/cgroup/a/b"});
}

TEST(a_named_parent)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    static const char mountinfo[] = ROOT TMPFS V1(35, "freezer", "/") "26 25 0:23 / /u rw - cgroup2 cgroup rw\n";
    look(mountinfo, "5:freezer:/x\n0::/y\n", BOTH, "/my/own", places);
    check(places, (struct expected){.v2 = "/u/my/own", .freezer = "/sys/fs/cgroup/freezer/my/own"});
    look(mountinfo, NULL, BOTH, "/", places);
    check(places, (struct expected){.v2 = "/u", .freezer = "/sys/fs/cgroup/freezer"});
    look(mountinfo, NULL, BOTH, "/..", places);
    check(places, (struct expected){.v2 = NULL});
}

TEST(only_what_is_allowed)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    static const char mountinfo[] = ROOT TMPFS V1(35, "freezer", "/") "26 25 0:23 / /u rw - cgroup2 cgroup rw\n";
    look(mountinfo, "5:freezer:/x\n0::/y\n", PSUP_CGROUP_V1, NULL, places);
    check(places, (struct expected){.freezer = "/sys/fs/cgroup/freezer/x"});
    ASSERT_STR_EQ(places[PSUP__V2].reason, "cgroup v2 was not to be used");
    look(mountinfo, "5:freezer:/x\n0::/y\n", PSUP_CGROUP_V2, NULL, places);
    check(places, (struct expected){.v2 = "/u/y"});
    look(mountinfo, "5:freezer:/x\n0::/y\n", 0, NULL, places);
    check(places, (struct expected){.v2 = NULL});
}

TEST(the_reason_is_told)
{
    static struct psup__place places[PSUP__HIERARCHIES];
    look(ROOT, "0::/\n", BOTH, NULL, places);
    ASSERT_STR_EQ(places[PSUP__V2].reason, "cgroup v2 is not mounted");
    ASSERT_STR_EQ(places[PSUP__MEMORY].reason, "no cgroup v1 hierarchy with the memory controller is mounted");
    look(ROOT TMPFS V1(35, "freezer", "/docker/0123"), "5:freezer:/elsewhere\n", BOTH, NULL, places);
    ASSERT(strstr(places[PSUP__FREEZER].reason, "which this process is not in"));
    look(ROOT "30 22 0:26 / /m rw - cgroup2 cgroup rw\n", "0::/../x\n", BOTH, NULL, places);
    ASSERT_STR_EQ(places[PSUP__V2].reason, "this process is outside of what /m shows");
    look(ROOT "30 22 0:26 / /m rw - cgroup2 cgroup rw\n", "4:memory:/\n", BOTH, NULL, places);
    ASSERT_STR_EQ(places[PSUP__V2].reason, "/proc/self/cgroup does not name a cgroup of cgroup v2");
}
