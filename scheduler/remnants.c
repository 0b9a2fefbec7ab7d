/* remnants.c - a file that names folders, and the folders. */
#include "scheduler/remnants.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

/* DIR/kilorank-...-: nothing else is to be removed, whatever the file says. */
static bool is_prefix(const char *text)
{
    const char *name = strrchr(text, '/');

    if (!name) return false;
    return text[0] == '/' && strncmp(name, "/kilorank-", 10) == 0 &&
           text[strlen(text) - 1] == '-';
}

void remnants_find(char prefix[FS_PATH], const char *run)
{
    char path[FS_PATH], *text = NULL;
    size_t bytes;

    if (fs_path(path, "%s/memory", run) != KR_OK || !fs_exists(path) ||
        fs_read_all(path, &text, &bytes, FS_PATH - 1) != KR_OK)
        return;
    if (is_prefix(text)) snprintf(prefix, FS_PATH, "%s", text);
    mem_free(text);
}

static bool is_ours(const char *path)
{
    struct stat s;

    return lstat(path, &s) == 0 && S_ISDIR(s.st_mode) && s.st_uid == geteuid();
}

void remnants_remove(const char *prefix, const char *run)
{
    char path[FS_PATH], dir[FS_PATH], **names;
    const char *front;
    size_t count;

    if (!*prefix || fs_path(path, "%s/memory", run) != KR_OK || fs_exists(path)) return;
    snprintf(dir, sizeof dir, "%s", prefix);
    *strrchr(dir, '/') = '\0';
    front = prefix + strlen(dir) + 1;
    if (fs_list(dir, &names, &count) != KR_OK) return;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(names[i], front, strlen(front)) != 0 ||
            fs_path(path, "%s/%s", dir, names[i]) != KR_OK || !is_ours(path))
            continue;
        LOG_TRACE("%s: the run is over; removed", path);
        (void)fs_remove_tree(path);
    }
    fs_free_names(names, count);
}
