/*
 * Where the cgroup hierarchies are mounted, and where in them this process stands.
 *
 * Paths are not guessed: mountinfo (proc(5)) tells what is mounted where and which part of the hierarchy the mount
 * shows, /proc/self/cgroup (cgroups(7)) where we are, and both together the directory. Nothing above that directory is
 * ever used, for it is not ours: a container's, a service manager's, or another supervisor's.
 */
#include "internal.h"

#include <stdarg.h>
#include <string.h>

static const char *const CONTROLLERS[PSUP__HIERARCHIES] = {
    [PSUP__CPU] = "cpu",
    [PSUP__CPUACCT] = "cpuacct",
    [PSUP__MEMORY] = "memory",
    [PSUP__FREEZER] = "freezer",
};

/* Whether `word` is one of the comma-separated words of a list. */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, word, n) && (!at[n] || at[n] == ','))
            return true;
    }
    return false;
}

static bool is_octal(char digit)
{
    return digit >= '0' && digit <= '7';
}

/* Undoes the octal escapes of mountinfo ("\040"), in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 3;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
}

/* The cgroup of this process in one hierarchy as /proc/self/cgroup names it: "5:cpu,cpuacct:/a", "0::/a". */
static bool find_own(const char *prefix, const char *controller, char *ret, size_t size)
{
    char name[PATH_MAX], *line = NULL;
    size_t room = 0;
    bool found = false;
    snprintf(name, sizeof name, "%s/proc/self/cgroup", prefix);
    FILE *file = fopen(name, "re");
    while (file && !found && getline(&line, &room, file) > 0) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *controllers++ = 0;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        if (controller ? has_word(controllers, controller) : (!*controllers && !strcmp(line, "0"))) {
            snprintf(ret, size, "%s", path);
            found = true;
        }
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* What is left of the path `own` below `root`, as "/a" or ""; NULL where it is not below. */
static const char *below(const char *own, const char *root)
{
    size_t n = strcmp(root, "/") ? strlen(root) : 0;
    if (strncmp(own, root, n) || (own[n] && own[n] != '/'))
        return NULL;
    return own + n;
}

/*
 * A mount of the hierarchy: where, and which cgroup its root is. The last one stands above the others, but one that
 * shows the cgroup `own` is better than one that does not: a jail on this machine has mounts of its own.
 */
static bool find_mount(const char *prefix, const char *controller, const char *own, char *ret_mount, char *ret_root,
                       size_t size)
{
    char name[PATH_MAX], *line = NULL;
    size_t room = 0;
    bool found = false, shown = false;
    snprintf(name, sizeof name, "%s/proc/self/mountinfo", prefix);
    FILE *file = fopen(name, "re");
    while (file && getline(&line, &room, file) > 0) {
        /* id parent major:minor ROOT MOUNT options … - TYPE source SUPER-OPTIONS */
        char *save = NULL, *root = NULL, *mount = NULL, *type = NULL, *options = NULL;
        int field = 0;
        for (char *word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
            field++;
            if (field == 4)
                root = word;
            else if (field == 5)
                mount = word;
            else if (field > 6 && !strcmp(word, "-")) {
                type = strtok_r(NULL, " \n", &save);
                if (strtok_r(NULL, " \n", &save))
                    options = strtok_r(NULL, " \n", &save);
                break;
            }
        }
        if (!options)
            continue;
        if (controller ? !strcmp(type, "cgroup") && has_word(options, controller) : !strcmp(type, "cgroup2")) {
            unescape(mount);
            unescape(root);
            bool shows = own && below(own, root);
            if (shown && !shows)
                continue;
            shown = shows;
            snprintf(ret_mount, size, "%s", mount);
            snprintf(ret_root, size, "%s", root);
            found = true;
        }
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

__attribute__((format(printf, 2, 3))) static void absent(struct psup__place *place, const char *format, ...)
{
    va_list arguments;
    place->path[0] = 0;
    va_start(arguments, format);
    vsnprintf(place->reason, sizeof place->reason, format, arguments);
    va_end(arguments);
}

static void find_place(const char *prefix, const char *controller, const char *parent, struct psup__place *ret)
{
    char mount[PATH_MAX], root[PATH_MAX], own[PATH_MAX];
    const char *kind = controller ? controller : "cgroup v2";
    bool known = parent || find_own(prefix, controller, own, sizeof own);
    if (!find_mount(prefix, controller, known && !parent ? own : NULL, mount, root, sizeof mount)) {
        absent(ret, controller ? "no cgroup v1 hierarchy with the %s controller is mounted" : "%s is not mounted",
               kind);
        return;
    }
    if (parent)
        snprintf(own, sizeof own, "%s", parent);
    if (!known) {
        absent(ret, "/proc/self/cgroup does not name a cgroup of %s", kind);
        return;
    }

    /* The path in the hierarchy, seen from the mount's root. "/.." begins what a cgroup namespace hides. */
    const char *rest = parent ? own : below(own, root);
    if (!rest) {
        absent(ret, "the mount %.60s shows %.40s, which this process is not in", mount, root);
        return;
    }
    if (!strncmp(rest, "/..", 3) && (!rest[3] || rest[3] == '/')) {
        absent(ret, "this process is outside of what %.80s shows", mount);
        return;
    }
    if ((size_t)snprintf(ret->path, sizeof ret->path, "%s%s%s", prefix, mount, strcmp(rest, "/") ? rest : "") >=
        sizeof ret->path)
        absent(ret, "the path of the cgroup is too long");
}

void psup__layout_find(const char *prefix, uint32_t allowed, const char *parent,
                       struct psup__place places[PSUP__HIERARCHIES])
{
    for (int i = 0; i < PSUP__HIERARCHIES; i++) {
        memset(&places[i], 0, sizeof places[i]);
        if (allowed & (i == PSUP__V2 ? PSUP_CGROUP_V2 : PSUP_CGROUP_V1))
            find_place(prefix, CONTROLLERS[i], parent, &places[i]);
        else
            absent(&places[i], "cgroup v%d was not to be used", i == PSUP__V2 ? 2 : 1);
    }
}
