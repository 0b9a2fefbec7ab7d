/* init.h - what a run takes from the one whose weights it starts from (train.init). */
#ifndef TRAIN_INIT_H
#define TRAIN_INIT_H

#include "trainer/run/settings.h"

/* [local] Put the model.* of run or checkpoint `init`, and the tokenizer that lies with it,
 * into *set.  A run that has begun has them in its own config.ini, and `init` may be gone.
 * KR_ERR_ARG: there is no valid checkpoint. */
kr_status init_settings(const char *init, const char *run, struct settings *set);

#endif
