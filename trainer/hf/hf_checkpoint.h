/*
 * hf_checkpoint.h - a checkpoint of step 0, made by one process: weights of all parameters
 * that are trained, in fp32 (the master weights of whatever device), which a start takes with
 * fresh moments of the optimizer.
 */
#ifndef TRAIN_HF_CHECKPOINT_H
#define TRAIN_HF_CHECKPOINT_H

#include "trainer/model/params.h"
#include "trainer/run/settings.h"

struct hf_checkpoint {
    const char *run; /* the run directory to write it into */
    const struct settings *set;
    const struct params *params;
    /* All elements of the i-th of them; good until the next call. */
    kr_status (*ask)(void *self, int32_t i, const char **bytes);
    void *self;
};

/* Committed, and read back. */
kr_status hf_checkpoint_write(const struct hf_checkpoint *k);

#endif
