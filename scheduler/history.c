/* history.c - lines are appended with one write each, and only the newest are read. */
#include "scheduler/history.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

static bool find_path(char out[FS_PATH], bool make)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char folder[FS_PATH];
    kr_status st = KR_ERR_ARG;

    if (state && *state == '/')
        st = fs_path(folder, "%s/kilorank", state);
    else if (home && *home == '/')
        st = fs_path(folder, "%s/.local/state/kilorank", home);
    if (st != KR_OK || (make && fs_mkdirs(folder) != KR_OK)) return false;
    return fs_path(out, "%s/nodes", folder) == KR_OK;
}

void history_add(const char *node, const char *what)
{
    char path[FS_PATH], line[512];
    int fd,
        len = snprintf(line, sizeof line, "%.0f %s %.300s\n", clock_wall(), node, what);

    if (!find_path(path, true)) return;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    if (write(fd, line, (size_t)len) != len)
        LOG_WARNING("%s: the fault of %s is not on record", path, node);
    close(fd);
}

int32_t history_count(const char *text, const char *node)
{
    size_t len = strlen(node);
    int32_t count = 0;

    for (const char *line = text; *line; line += *line == '\n') {
        const char *name = line + strcspn(line, " \n");

        name += *name == ' ';
        count += strncmp(name, node, len) == 0 && (name[len] == ' ' || name[len] == '\n');
        line += strcspn(line, "\n");
    }
    return count;
}

/* The newest lines; empty where there are none. */
static void read_newest(char text[HISTORY_BYTES + 1])
{
    char path[FS_PATH];
    int fd = find_path(path, false) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = fd < 0 ? 0
                       : pread(fd, text, HISTORY_BYTES,
                               end > HISTORY_BYTES ? end - HISTORY_BYTES : 0);

    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0) close(fd);
}

void history_warn(struct nodes *n)
{
    static char text[HISTORY_BYTES + 1];

    read_newest(text);
    for (int32_t i = 0; i < n->count; i++) {
        int32_t count = history_count(text, n->at[i].name);

        if (count < HISTORY_MANY) continue;
        n->at[i].faults = count;
        LOG_WARNING("%s failed %d times of late: it is used last", n->at[i].name, count);
    }
}
