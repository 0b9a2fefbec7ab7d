/* clock.c - the three clocks. */
#include "base/clock.h"

#include <errno.h>
#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double clock_now(void) { return read_clock(CLOCK_MONOTONIC); }
double clock_wall(void) { return read_clock(CLOCK_REALTIME); }

void clock_sleep(double seconds)
{
    struct timespec t = { (time_t)seconds,
                          (long)(1e9 * (seconds - (double)(time_t)seconds)) };

    while (seconds > 0 && nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}
