/*
 * state.h - a trainer's state as a checkpoint sees it: named tensors and pieces.
 *
 * Tensors are "weight/NAME", "adam_m/NAME", "adam_v/NAME" for every NAME of params.h, in
 * that order of kinds.  Weights are the master weights, in the device's wide type, so a
 * checkpoint does not tell the precision of the run; moments are as they are kept.  A rank's
 * pieces are what shard_share says, cut at parameters.  What is frozen (params.h) is not in
 * it: that is in the checkpoint that the run began from (base.h).
 */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "checkpoints/ckpt.h"
#include "checkpoints/snapshot.h"
#include "trainer/run/trainer.h"

struct state {
    struct ckpt_tensor *tensors;
    struct ckpt_piece *pieces;
    struct ckpt_state view; /* of the two, for ckpt_save and ckpt_read */
};

/* Weights, and if t is training the optimizer's moments.  Valid as long as t. */
kr_status state_open(struct state *out, const struct trainer *t);
kr_status state_open_weights(struct state *out, const struct trainer *t); /* only those */
/* Weights of one frozen unit, between shard_fill and shard_filled. */
kr_status state_open_frozen(struct state *out, const struct trainer *t, int unit);
void state_close(struct state *s);

/* The part of any rank of any number of ranks; snapshot_config.layout, self is t. */
kr_status state_layout(void *t, int32_t world, int32_t rank, struct snapshot_extent **out,
                       int32_t *count);

/* A checksum of the tensors and of all settings that may not change in a run; 0: no
 * memory. */
uint64_t state_fingerprint(const struct state *s, const struct settings *set);

#endif
