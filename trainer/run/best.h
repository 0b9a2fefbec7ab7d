/*
 * best.h - the weights of the lowest held-out loss so far, in RUN/best.
 *
 * RUN/best is a run directory of its own with one checkpoint, weights only; best.json in it
 * says step and loss.  `kilorank generate RUN/best` and train.init = RUN/best read it.
 */
#ifndef TRAIN_BEST_H
#define TRAIN_BEST_H

#include "trainer/run/state.h"

struct best; /* opaque */

/* [collective] run and about stay the caller's. */
kr_status best_open(struct best **out, struct trainer *t, const char *run,
                    const char *about);
void best_close(struct best *b); /* [collective] NULL is fine */

/* [collective] An evaluation after `step` steps gave this loss, the same on all ranks: if it
 * is the lowest, keep the weights (then *kept).  A save that cannot be done is a warning. */
kr_status best_offer(struct best *b, int64_t step, double loss, const char *settings,
                     bool *kept);

#endif
