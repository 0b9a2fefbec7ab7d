/* interval.c - the formula, and its inputs from what ranks tell each other. */
#include "trainer/run/interval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST = 3 /* steps after a start until the first: the first step is a slow one */
};

void interval_begin(struct interval *i, const struct settings *set, int64_t step)
{
    bool is_auto = strcmp(set->snapshot_every, "auto") == 0;

    *i = (struct interval){
        .every = is_auto ? -1 : strtoll(set->snapshot_every, NULL, 10),
        .mttf = set->snapshot_mttf * 3600,
        .next = step + FIRST,
        .taken = -1,
    };
}

int64_t interval_steps(double stall, double step_seconds, double mttf)
{
    double steps = sqrt(2 * stall * mttf) / step_seconds;

    if (!(steps > 1)) return 1;
    return steps < 1e9 ? (int64_t)steps : (int64_t)1e9;
}

void interval_learn(struct interval *i, const struct step_words *words, int32_t ranks)
{
    double slowest = 0, stall = 0;

    for (int32_t r = 0; r < ranks; r++) {
        slowest = fmax(slowest, words[r].step_seconds);
        stall = fmax(stall, words[r].stall);
    }
    if (slowest > 0)
        i->step_seconds =
            i->step_seconds > 0 ? 0.9 * i->step_seconds + 0.1 * slowest : slowest;
    if (i->taken < 0 || !(i->step_seconds > 0)) return;
    i->next = i->taken + interval_steps(stall, i->step_seconds, i->mttf);
    i->taken = -1;
}

bool interval_due(const struct interval *i, int64_t done)
{
    if (i->every >= 0) return i->every > 0 && done % i->every == 0;
    return i->taken < 0 && done >= i->next;
}

void interval_taken(struct interval *i, int64_t done) { i->taken = done; }
