/*
 * interval.h - how often to take snapshots.
 *
 * With a stall of w seconds per snapshot and a fault every M seconds, the time lost is
 * least when snapshots are sqrt(2 w M) seconds apart: half an interval of work is lost per
 * fault, a stall per interval (Young 1974; Daly 2006, of which this is the first order,
 * good while w is far below M).
 */
#ifndef TRAIN_INTERVAL_H
#define TRAIN_INTERVAL_H

#include "trainer/run/settings.h"
#include "trainer/run/trainer.h"

struct interval {
    int64_t every;       /* fixed; 0: never, -1: by the formula */
    double mttf;         /* seconds */
    double step_seconds; /* running mean; 0: not known yet */
    int64_t next;        /* by the formula: due when so many steps are done */
    int64_t taken;       /* the last one, whose stall is not known yet; -1: none */
};

/* A run goes on at `step`. */
void interval_begin(struct interval *i, const struct settings *set, int64_t step);

/* What all ranks told in a step; all get the same, so all decide alike. */
void interval_learn(struct interval *i, const struct step_words *words, int32_t ranks);

/* Take one now that so many steps are done?  Call interval_taken if it was. */
bool interval_due(const struct interval *i, int64_t done);
void interval_taken(struct interval *i, int64_t done);

/* Steps between snapshots, at least 1. */
int64_t interval_steps(double stall, double step_seconds, double mttf);

#endif
