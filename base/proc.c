/* proc.c - field 22 of /proc/PID/stat, counted after the command's closing parenthesis. */
#include "base/proc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int64_t proc_started(int64_t pid)
{
    char path[64], text[1024] = "", *at;
    long long ticks = -1;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    if (!(f = fopen(path, "r"))) return -1;
    at = fgets(text, sizeof text, f) ? strrchr(text, ')') : NULL;
    fclose(f);
    if (!at || at[1] != ' ' || at[2] == 'Z') return -1;
    for (int field = 2; field < 22 && at; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, "%lld", &ticks) == 1 ? ticks : -1;
}
