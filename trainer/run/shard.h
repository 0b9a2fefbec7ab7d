/*
 * shard.h - where weights, gradients and optimizer state live (ZeRO 0 and 1 so far).
 *
 *   stage          0             1                2 (later)        3 (later)
 *   weights        all           all              all              own chunk
 *   gradients      all           all              own chunk        own chunk
 *   master, m, v   all           own chunk        own chunk        own chunk
 *   acquire        -             -                -                all-gather
 *   release        -             -                -                drop
 *   grads_ready    all-reduce    reduce-scatter   reduce-scatter   reduce-scatter
 *   publish        -             all-gather       all-gather       -
 *
 * Mixed precision: where the device's type is not its wide type, the weights above are a
 * rounded copy that the model computes with; master weights, moments and gradients are
 * wide.  Where the types are one, master weights and weights are one array.
 *
 * A unit (embedding, block, head) is what moves together.  The model knows the calls of
 * weights.h, the optimizer knows own, the loop knows begin, finish and publish.  Nobody
 * else asks which stage it is.
 *
 * Gradients of the micro-batches of a step are summed either as they come (library) or
 * in the order of comm/tree.h (canonical): then a rank keeps one buffer for each node of
 * the tree that is waiting for its sibling, at most log2(n) + 1 for n micro-batches.
 * The reduction of a unit starts when its last micro-batch is done and runs on the
 * communication queue while the backward of the units below goes on; the all-gather of
 * new weights runs while the next forward has not reached the unit yet.
 */
#ifndef TRAIN_SHARD_H
#define TRAIN_SHARD_H

#include "comm/comm.h"
#include "comm/part.h"
#include "trainer/model/params.h"
#include "trainer/model/weights.h"

struct shard; /* opaque */

struct shard_config {
    int stage;
    bool canonical;
    bool train;              /* false: weights only */
    int64_t leaves;          /* micro-batches in a step, over all ranks */
    enum kern_dtype moments; /* what m and v are kept in: the wide type, or bf16 */
};

/* [collective] Allocate everything on the queue's device, zeroed.  params and c are kept
 * by reference. */
kr_status shard_open(struct shard **out, const struct params *params, struct comm *c,
                     struct kern_queue *q, const struct shard_config *config);
void shard_close(struct shard *s); /* NULL is fine */

/* What the model sees of it; valid as long as s. */
const struct weights *shard_weights(struct shard *s);

/* [local] A new step: gradients start from nothing. */
void shard_begin(struct shard *s);

/* [local] The next model_train is this rank's micro-batch number `leaf` of the step. */
void shard_leaf(struct shard *s, int64_t leaf);

/* [collective] [queued] Wait for all reductions of the step. */
kr_status shard_finish(struct shard *s);

/* One unit's part that this rank updates: elements [span.begin, span.end) of the unit. */
struct shard_own {
    int unit;
    struct span span;
    /* device, element span.begin; wide, m and v as configured.  m, v, g: training only.  copy: the model's own
     * weights, of its type, to be written with every new w; NULL where that is w itself. */
    void *w, *m, *v, *g, *copy;
};

/* [local] count = number of units, ascending.  In stage 0 everything is own. */
const struct shard_own *shard_own(const struct shard *s, int *count);

/* [local] The part of each unit that this rank alone holds or stands for: the spans of
 * all ranks tile the units, in every stage.  What is counted, saved and loaded once. */
const struct shard_own *shard_share(const struct shard *s, int *count);

/* [collective] [queued] After an update of own: everyone gets the new weights.  `all`: w, m
 * and v of share are new (a load); copies and whatever this stage holds twice are refreshed
 * too.  Without training this ends the use of w in mixed precision (it becomes NULL). */
kr_status shard_publish(struct shard *s, bool all);

/* Bytes of weights, gradients and optimizer state on the device. */
size_t shard_bytes(const struct shard *s);

#endif
