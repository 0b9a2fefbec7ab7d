/* proc.c - /proc/PID/stat, counted after the command's closing parenthesis. */
#include "base/proc.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One read gives all; the command may hold anything, also newlines and parentheses. */
const char *proc_fields(int64_t pid, char text[PROC_STAT])
{
    char path[64], *at;
    ssize_t n = -1;
    int fd;

    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) return NULL;
    n = read(fd, text, PROC_STAT - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    at = strrchr(text, ')');
    return at && at[1] == ' ' ? at + 2 : NULL;
}

int64_t proc_started(int64_t pid)
{
    char text[PROC_STAT];
    const char *at = proc_fields(pid, text);
    long long ticks = -1;

    if (!at || *at == 'Z') return -1;
    for (int field = 3; field < 22 && at; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, "%lld", &ticks) == 1 ? ticks : -1;
}
