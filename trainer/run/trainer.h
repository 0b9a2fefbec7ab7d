/*
 * trainer.h - everything a rank needs to train, and one optimizer step.
 *
 * A step: each rank computes its micro-batches (forward, backward; reductions start as
 * units become final), one exchange tells every rank every micro-batch's loss and every
 * block's sum of squares, then gradients are clipped, own weights updated and published.
 * All sums over micro-batches and blocks are added in one order, so loss and gradient
 * norm are the same bits on any number of ranks.
 *
 * Marks as in comm.h.
 */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "scheduler/pulse.h"
#include "trainer/data/dataset.h"
#include "trainer/model/model.h"
#include "trainer/run/fault.h"
#include "trainer/run/settings.h"
#include "trainer/run/shard.h"

struct trainer {
    struct settings set;
    struct model_shape shape;
    struct params params;
    struct comm *comm; /* the caller's */
    struct kern_device *device;
    enum kern_dtype moments, grads; /* what sums of gradients and moments are kept in */
    struct kern_queue *q;
    struct shard *shard;
    struct model *model;
    struct dataset *train, *valid;
    struct pulse *pulse; /* the caller's; NULL: nobody watches */
    /* NULL, or called before weights change: holds q back while somebody reads them. */
    kr_status (*hold)(void *self, struct kern_queue *q);
    void *holder;
    struct numeric_fault fault;
    int64_t step; /* the one that is computed, from 1 */
    bool training;
    int64_t rows;  /* tokens in a micro-batch */
    double waited; /* seconds that exchanges have waited for other ranks */

    /* one micro-batch, host and device: starts, labels, tokens in one array */
    int32_t *start_host, *label_host, *token_host;
    int32_t *start, *label, *token;
    double *loss_host, *loss;     /* one for each own micro-batch */
    double *blocks_host, *blocks; /* sums of squares of own gradient */
    int64_t block_room;           /* blocks of one rank, the same on all */
    double *mine, *all;           /* the exchange: one row per rank */
};

/* What one step tells. */
struct step_stats {
    double loss;      /* mean over the tokens with a label, nats */
    double grad_norm; /* before clipping */
    double lr;
    int64_t tokens; /* over all ranks */
};

/* What each rank gives to all ranks in a step besides its losses. */
struct step_words {
    int stop;            /* a wish, enum stop_wish */
    int phase;           /* of its checkpoint writer */
    int64_t memory;      /* its newest snapshot, snapshot_newest */
    double stall;        /* seconds that the last snapshot held it up */
    double step_seconds; /* of the step before, all of it */
    uint64_t replica; /* checksum of what all ranks hold alike; 0: not looked at.  Of this
                            rank's own: was one started (shard.h)?  It is ready by then. */
};

/* [collective] Open device, queue, parameters and, if `training`, gradients and optimizer
 * state (all zero), without data.  comm must outlive it. */
kr_status trainer_open(struct trainer *t, const struct settings *set, struct comm *comm,
                       bool training);
void trainer_close(struct trainer *t); /* a zeroed one is fine */

/* [collective] Open data.train and what evaluation reads.  KR_ERR_ARG as
 * dataset_open. */
kr_status trainer_open_data(struct trainer *t);
/* [collective] Only what evaluation reads, all of `path`. */
kr_status trainer_open_valid(struct trainer *t, const char *path);

/* [local] Moments zero, as after trainer_open. */
kr_status trainer_clear(struct trainer *t);

/* [collective] Weights that are trained, from train.seed. */
kr_status trainer_init(struct trainer *t);

/* [collective] Step number `step` (0, 1, ...), on samples step * batch on.  words: this
 * rank's; out: those of all ranks, `size` of them.  KR_ERR_NUMERIC (not logged): loss
 * or gradient is not finite; nothing was updated, *stats and *out are set. */
kr_status trainer_step(struct trainer *t, int64_t step, struct step_words words,
                       struct step_stats *stats, struct step_words *out);

/* [collective] Mean loss over the first windows of `data`, at most `batches` batches of
 * train.batch sequences (0: all).  *tokens (may be NULL): how many labels. */
kr_status trainer_eval(struct trainer *t, const struct dataset *data, int64_t batches,
                       double *loss, int64_t *tokens);

#endif
