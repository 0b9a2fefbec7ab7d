/*
 * exchange.h - the one message that every rank gives to all ranks in a step.
 *
 * A row of doubles per rank: its words, the loss and the number of labels of each of its
 * micro-batches, the sums of squares of the blocks of the gradient it stands for.  Rows
 * come back in rank order; sums over them run in the order of micro-batches and blocks,
 * so they are the same bits on any number of ranks.
 */
#ifndef TRAIN_EXCHANGE_H
#define TRAIN_EXCHANGE_H

#include "trainer/run/trainer.h"

/* [local] Allocate for t's parameters and settings; t->blocks etc. are filled. */
kr_status exchange_open(struct trainer *t);
void exchange_close(struct trainer *t);

struct exchange_sums {
    double loss;    /* sum over labels */
    double labels;  /* their number */
    double squares; /* sum of squares of the gradient, unscaled */
};

/* [collective] labels[i]: of own micro-batch i, whose loss lies in t->loss[i] (device).
 * gradient: also sum its squares.  words_all: one per rank, or NULL. */
kr_status exchange(struct trainer *t, const double *labels, struct step_words words,
                   bool gradient, struct exchange_sums *out,
                   struct step_words *words_all);

/* Of a rank's row of t->all: all bytes; of the words that it begins with; of the losses of
 * its micro-batches, which follow. */
size_t exchange_row_bytes(const struct trainer *t);
size_t exchange_words_bytes(void);
size_t exchange_loss_bytes(const struct trainer *t);

/* Pairwise sum in a fixed order. */
double exchange_sum(const double *x, int64_t n);

#endif
