/* links.c - medians. */
#include "scheduler/links.h"

#include <math.h>
#include <stdlib.h>

struct link_speed links_better(struct link_speed a, struct link_speed b)
{
    if (a.rate <= 0) return b;
    if (b.rate <= 0) return a;
    return (struct link_speed){ fmax(a.rate, b.rate), fmin(a.round_trip, b.round_trip) };
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double middle(double *values, int32_t count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return count > 0 ? values[count / 2] : 0;
}

struct link_speed links_median(const struct link_speed *all, int32_t count, double *room)
{
    struct link_speed out;
    int32_t n = 0;

    for (int32_t i = 0; i < count; i++)
        if (all[i].rate > 0) room[n++] = all[i].rate;
    out.rate = middle(room, n);
    n = 0;
    for (int32_t i = 0; i < count; i++)
        if (all[i].rate > 0) room[n++] = all[i].round_trip;
    out.round_trip = middle(room, n);
    return out;
}

bool links_is_bad(struct link_speed is, struct link_speed normal, int32_t times)
{
    return normal.rate > 0 && (is.rate < normal.rate / times ||
                               is.round_trip > times * normal.round_trip + 20e-3);
}
