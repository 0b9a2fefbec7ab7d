/* eval_choices.h - multiple choice by likelihood. */
#ifndef TRAIN_EVAL_CHOICES_H
#define TRAIN_EVAL_CHOICES_H

#include "trainer/run/load.h"

/* [collective] For each question of `path` (trainer/data/choices.h) the loss of every ending
 * after the context; ranks share the questions out, rank 0 prints {"step", "questions",
 * "acc", "acc_norm"}: the right ending has the lowest loss, or the lowest per token.  A
 * context that is too long loses its start. */
kr_status eval_choices(struct loaded *l, struct comm *c, const char *path);

#endif
