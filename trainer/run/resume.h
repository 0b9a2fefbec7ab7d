/*
 * resume.h - where a run goes on: the newest checkpoint that passes every check.
 */
#ifndef TRAIN_RESUME_H
#define TRAIN_RESUME_H

#include "trainer/run/state.h"

struct resumed {
    int64_t step;  /* done so far; 0 and is_new: start values */
    int32_t world; /* ranks that computed it; 0: none did, it is new or an import */
    bool is_new, from_memory;
};

/*
 * [collective] Load the newest snapshot in node memory (m, may be NULL) if it is whole and
 * newer than all on disk, else the newest checkpoint that reads back right, passing over bad ones
 * with a warning; without any of them set start values.
 * KR_ERR_NO_CKPT: some exist, none is good (never a silent start from scratch).
 * KR_ERR_ARG: it was made with other settings; one line for each.
 *
 * A checkpoint of step 0 is a model to start from (an import): weights only, and of its
 * settings only the sizes of the model and of adapters bind.  Frozen weights are there
 * already (base.h) and stay.
 */
kr_status resume(struct ckpt *k, struct snapshot *m, struct trainer *t,
                 const struct state *s, struct resumed *out);

/* [collective] Only find the settings of the newest valid checkpoint of k, which reads
 * `path`.  KR_ERR_ARG: there is none. */
kr_status resume_settings(struct ckpt *k, const struct comm *c, const char *path,
                          struct ckpt_info *info, struct settings *out);

#endif
