/*
 * base.h - the weights beside which adapters stand (lora.rank): those of a checkpoint of
 * train.init, frozen.
 *
 * A run with adapters stores these alone.  Where the rest is, train.init says, and what it
 * is, lora.base: a hash of names, shapes and the checksums of all blocks, from the
 * manifest.  A run, or copy of one, may move; other weights are never taken for these.
 */
#ifndef TRAIN_BASE_H
#define TRAIN_BASE_H

#include "base/fs.h"
#include "trainer/run/trainer.h"

/* [local] The folder of the newest checkpoint of a run, or the checkpoint itself. */
kr_status base_newest(const char *init, char folder[FS_PATH]);

/* [local] Fill in set->lora_base, before MPI starts: of a run that has begun it is what its
 * config.ini says.  KR_ERR_ARG: train.init has no such weights. */
kr_status base_pin(struct settings *set, const char *run);

/* [local] The checkpoint of set->init whose weights are set->lora_base.  KR_ERR_ARG: there
 * is none. */
kr_status base_find(const struct settings *set, char folder[FS_PATH]);

/* [collective] Weights of all frozen units, if there are any.  KR_ERR_ARG as base_find;
 * KR_ERR_NO_CKPT: they are damaged. */
kr_status base_load(struct trainer *t);

#endif
