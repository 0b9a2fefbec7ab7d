/*
 * patience.h - waiting by asking again and again, for a while.  For comm/ itself.
 *
 * A short spin catches the peer that is about to answer, then naps that grow leave the
 * core to the thread that computes.
 */
#ifndef COMM_PATIENCE_H
#define COMM_PATIENCE_H

#include <stdbool.h>

#include "base/clock.h"

struct patience {
    double begun, nap; /* seconds */
};

static inline struct patience patience(void)
{
    return (struct patience){ clock_now(), 5e-6 };
}

/* Wait a little; false when the limit is over.  A nap takes some 50 us more than it says
 * (timer slack of the kernel). */
static inline bool linger(struct patience *p, double limit)
{
    static const double spin = 20e-6, longest_nap = 150e-6;
    double waited = clock_now() - p->begun;

    if (waited < spin) return true;
    if (waited > limit) return false;
    clock_sleep(p->nap);
    p->nap = p->nap * 1.5 < longest_nap ? p->nap * 1.5 : longest_nap;
    return true;
}

#endif
