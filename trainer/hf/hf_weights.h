/*
 * hf_weights.h - the weights of a checkpoint in fp32, whatever type it has them in.  A
 * checkpoint of adapters has those of the model too, merged, from where train.init says.
 */
#ifndef TRAIN_HF_WEIGHTS_H
#define TRAIN_HF_WEIGHTS_H

#include "base/fs.h"
#include "base/options.h"
#include "checkpoints/manifest.h"
#include "trainer/hf/hf_plan.h"

/* One checkpoint. */
struct hf_stored {
    char folder[FS_PATH];
    struct manifest m;
};

struct hf_weights {
    struct hf_stored own, base; /* base: with adapters only */
    struct settings set;
    struct model_shape shape;
    struct params params;
    char *raw; /* part of a parameter as the checkpoint has it */
};

/* folder: the checkpoint; --set in *o may say another train.init.  KR_ERR_DATA,
 * KR_ERR_ARG with one line. */
kr_status hf_weights_open(struct hf_weights *w, const char *folder,
                          const struct options *o);
void hf_weights_close(struct hf_weights *w); /* a zeroed one is fine */

/* The entry's lines of its parameter, as ours. */
kr_status hf_weights_read(struct hf_weights *w, const struct hf_entry *e, float *lines);

#endif
