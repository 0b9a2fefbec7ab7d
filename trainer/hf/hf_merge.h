/*
 * hf_merge.h - what adapters add, added to the weights themselves: W + (alpha / rank) B A.
 */
#ifndef TRAIN_HF_MERGE_H
#define TRAIN_HF_MERGE_H

#include "trainer/hf/hf_plan.h"

/* Whoever can give a parameter of the adapters, all of it, as ours. */
struct hf_source {
    kr_status (*read)(void *self, int32_t param, float *out);
    void *self;
};

/* lines: those of stored tensor e, as ours.  Summed over the rank in fp32 and then added, so
 * each weight is rounded once more than in training. */
kr_status hf_merge(const struct params *params, const struct model_shape *shape,
                   const struct hf_entry *e, const struct hf_source *source,
                   float *lines);

#endif
