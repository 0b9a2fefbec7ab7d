/*
 * judge.h - what to make of a step whose numbers are wrong.
 *
 * Loss or gradient not finite: nothing was updated, and the step is computed once more.
 * Finite now, or other bits: arithmetic is not repeatable here, so the device is suspect,
 * and if the losses of single ranks differ, those ranks are named.  The same bits: it is
 * the data or the mathematics, and train.on_nan says what to do.
 *
 * A spike is a loss above the running mean by more than train.spike running deviations.
 * Means forget with a memory of fifty steps and begin anew with the process.
 */
#ifndef TRAIN_JUDGE_H
#define TRAIN_JUDGE_H

#include "trainer/run/trainer.h"

struct judge {
    double mean, square; /* running, of the loss and its squared distance from the mean */
    int64_t steps;       /* that went into them */
};

/* A finite loss; *by: how many deviations above the mean.  A spike leaves the mean as it
 * is, unless it is accepted. */
bool judge_is_spike(struct judge *j, double loss, double limit, double *by);
void judge_accept(struct judge *j, double loss);

enum judge_nan {
    JUDGE_SAME,  /* twice alike */
    JUDGE_OTHER, /* not alike */
};

/* [collective] After trainer_step gave KR_ERR_NUMERIC: compute it again.  suspect[r] (size
 * of them): rank r's own losses were other ones.  If it is finite now it was applied. */
kr_status judge_again(struct trainer *t, int64_t step, struct step_words words,
                      enum judge_nan *out, bool *suspect, struct step_words *all);

#endif
