/* meminfo.c - /proc/meminfo and control groups. */
#include "base/meminfo.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

/* The number after `key` at the start of a line of the file (key "": the first line); false
 * if there is none, as in a memory.max of "max". */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    FILE *f = fopen(path, "r");
    size_t len = strlen(key);
    char line[256], *end = line;

    while (f && end == line && fgets(line, sizeof line, f))
        if (strncmp(line, key, len) == 0) {
            unsigned long long value = strtoull(line + len, &end, 10);

            if (end == line + len) end = line;
            if (end != line) *out = value;
            if (len == 0) break;
        }
    if (f) fclose(f);
    return f && end != line;
}

/* One version of control groups: how /proc/self/cgroup names it, where it lies, its files. */
struct version {
    const char *mark, *folder, *limit, *usage, *cache;
};

static const struct version versions[] = {
    { "0::", "", "memory.max", "memory.current", "inactive_file " },
    { ":memory:", "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
      "total_inactive_file " },
};

/* The group of this process, "/a/b", or "" if it is in none. */
static void find_group(const char *root, const struct version *v, char out[FS_PATH])
{
    char path[FS_PATH], line[FS_PATH];
    FILE *f;

    out[0] = '\0';
    if (fs_path(path, "%s/proc/self/cgroup", root) != KR_OK) return;
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        char *at = strstr(line, v->mark);

        line[strcspn(line, "\n")] = '\0';
        if (at) snprintf(out, FS_PATH, "%s", at + strlen(v->mark));
    }
    if (f) fclose(f);
}

/* Narrow total and available to one group's. */
static void apply_group(const char *root, const struct version *v, const char *group,
                        uint64_t *total, uint64_t *available)
{
    uint64_t limit, used, cache = 0, room;
    char path[FS_PATH];

    if (fs_path(path, "%s/sys/fs/cgroup%s%s/%s", root, v->folder, group, v->limit) ||
        !read_number(path, "", &limit) ||
        fs_path(path, "%s/sys/fs/cgroup%s%s/%s", root, v->folder, group, v->usage) ||
        !read_number(path, "", &used) ||
        fs_path(path, "%s/sys/fs/cgroup%s%s/memory.stat", root, v->folder, group))
        return;
    (void)read_number(path, v->cache, &cache);
    used -= cache < used ? cache : used;
    room = used < limit ? limit - used : 0;
    if (limit < *total) *total = limit;
    if (room < *available) *available = room;
}

/* The group and all above it; in a container the upper ones may not be there. */
static void apply_groups(const char *root, const struct version *v, uint64_t *total,
                         uint64_t *available)
{
    char group[FS_PATH];

    find_group(root, v, group);
    while (group[0]) {
        char *slash = strrchr(group, '/');

        apply_group(root, v, group[1] ? group : "", total, available);
        if (!slash || !group[1]) return;
        slash[slash == group] = '\0'; /* "/a/b" -> "/a" -> "/" */
    }
}

void meminfo_read(const char *root, uint64_t *total, uint64_t *available)
{
    char path[FS_PATH];

    *total = *available = 0;
    if (fs_path(path, "%s/proc/meminfo", root) != KR_OK ||
        !read_number(path, "MemTotal:", total) ||
        !read_number(path, "MemAvailable:", available))
        return;
    *total *= 1024;
    *available *= 1024;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        apply_groups(root, &versions[i], total, available);
}

uint64_t meminfo_killed(const char *root)
{
    char path[FS_PATH];
    uint64_t killed = 0;

    if (fs_path(path, "%s/proc/vmstat", root) == KR_OK)
        (void)read_number(path, "oom_kill ", &killed);
    return killed;
}
