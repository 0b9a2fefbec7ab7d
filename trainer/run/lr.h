/* lr.h - the learning rate as a pure function of the step. */
#ifndef TRAIN_LR_H
#define TRAIN_LR_H

#include "trainer/run/settings.h"

/*
 * Learning rate of step `step` (0, 1, ...):
 *   step < warmup   lr (step + 1) / warmup
 *   cosine          min_lr + (lr - min_lr) (1 + cos(pi p)) / 2,
 *                   p = (step - warmup) / (steps - 1 - warmup)
 *   wsd             lr, and linearly to min_lr over the last decay_share * steps
 *   constant        lr
 */
double lr_at(const struct settings *s, int64_t step);

#endif
