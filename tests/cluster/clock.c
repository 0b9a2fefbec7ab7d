/*
 * clock.c - a host whose time of day jumps: loaded into its programs (LD_PRELOAD), in place of
 * the C library's functions.  The file CLOCK_SHIFT holds the seconds that they are wrong by.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{
    const char *path = getenv("CLOCK_SHIFT");
    FILE *f = path ? fopen(path, "re") : NULL;
    long seconds = 0;

    if (f && fscanf(f, "%ld", &seconds) != 1) seconds = 0;
    if (f) fclose(f);
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int error = (int)syscall(SYS_clock_gettime, clock, t);

    if (error == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        t->tv_sec += shift();
    return error;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){ now.tv_sec, now.tv_nsec / 1000 };
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
