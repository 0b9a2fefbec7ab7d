/*
 * state.h - a trainer's state as a checkpoint sees it: named tensors and pieces.
 *
 * Tensors are "weight/NAME", "adam_m/NAME", "adam_v/NAME" for every NAME of params.h, in
 * that order of kinds.  Weights are the master weights, in the device's wide type, so a
 * checkpoint does not tell the precision of the run; moments are as they are kept.  A rank's pieces are what shard_share says, cut at parameters.
 */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "checkpoints/ckpt.h"
#include "trainer/run/trainer.h"

struct state {
    struct ckpt_tensor *tensors;
    struct ckpt_piece *pieces;
    struct ckpt_state view; /* of the two, for ckpt_save and ckpt_read */
};

/* Weights, and if t is training the optimizer's moments.  Valid as long as t. */
kr_status state_open(struct state *out, const struct trainer *t);
kr_status state_open_weights(struct state *out, const struct trainer *t); /* only those */
void state_close(struct state *s);

#endif
