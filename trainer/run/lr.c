/* lr.c - warm-up, then one of three curves. */
#include "trainer/run/lr.h"

#include <math.h>

static double clamp01(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/* 0 at step a, 1 at step b and beyond. */
static double progress(double step, double a, double b)
{
    return b > a ? clamp01((step - a) / (b - a)) : 1;
}

double lr_at(const struct settings *s, int64_t step)
{
    double at = (double)step, warmup = (double)s->warmup, last = (double)s->steps - 1;
    double fall = s->lr - s->min_lr;

    if (at < warmup) return s->lr * (at + 1) / warmup;
    switch ((enum schedule)s->schedule) {
    case SCHEDULE_COSINE:
        return s->min_lr + fall * (1 + cos(acos(-1.0) * progress(at, warmup, last))) / 2;
    case SCHEDULE_WSD:
        return s->lr -
               fall * progress(at, last - s->decay_share * (double)s->steps, last);
    case SCHEDULE_CONSTANT: break;
    }
    return s->lr;
}
