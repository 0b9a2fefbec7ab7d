/*
 * origin.h - RUN/hf, what an imported run remembers of where it came from (hf_origin.h),
 * goes along to runs that start from its weights, so that they too are exported under the
 * names and with the tokenizer files of their origin.
 */
#ifndef TRAIN_ORIGIN_H
#define TRAIN_ORIGIN_H

#include "base/fs.h"

/* The folder that belongs to `path`: a run, RUN/best or a checkpoint of either.  False:
 * there is none. */
bool origin_find(const char *path, char out[FS_PATH]);

/* [local] Copy what belongs to `init` (train.init) to RUN/hf, whole or not at all, unless
 * there is none or RUN has one. */
kr_status origin_keep(const char *init, const char *run);

#endif
