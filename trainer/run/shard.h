/*
 * shard.h - where weights, gradients and optimizer state live (ZeRO 0 to 3).
 *
 *   stage          0             1                2                3
 *   weights        all           all              all              own chunk
 *   gradients      all           all              own chunk        own chunk
 *   master, m, v   all           own chunk        own chunk        own chunk
 *   acquire        -             -                -                all-gather
 *   release        -             -                -                drop
 *   grads_ready    all-reduce    reduce-scatter   reduce-scatter   reduce-scatter
 *                  once a step   once a step      per micro-batch  per micro-batch
 *   publish        -             all-gather       all-gather       -
 *
 * Mixed precision: where the device's type is not its wide type, the weights above are a
 * rounded copy that the model computes with; master weights, moments and gradients are
 * wide.  Where the types are one, master weights and weights are one array.
 *
 * Frozen units (params.h) have weights and nothing else.  What is trained beside them is
 * small: in stage 3 its weights stay whole, while those of frozen units are gathered.
 *
 * A unit (embedding, block, head) is what moves together.  The model knows the calls of
 * weights.h, the optimizer knows own, the loop knows begin, leaf, finish and publish.
 * Nobody else asks which stage it is.
 *
 * Gradients of the micro-batches of a step are summed either as they come (library) or
 * in the order of comm/tree.h (canonical): then a rank keeps one buffer for each node of
 * the tree that is waiting for its sibling, at most log2(n) + 1 for n micro-batches.
 *
 * Stages 0 and 1 deal out runs of micro-batches: a rank adds its own, then ranks reduce
 * once, unit by unit, on the communication queue while the backward of the units below
 * goes on.  From stage 2 on that would keep whole gradients, so micro-batches are dealt in
 * rounds: the ranks of a round hold neighbours in the tree, their gradients reduce to
 * nodes of which each rank keeps its chunk.  The tree is the same, hence the bits.  On a
 * power of two of ranks a round is one node and takes log2(ranks) exchanges; else, and in
 * a last round that is not full, every rank gets its chunk of every micro-batch and adds.
 *
 * In stage 3 a gathered unit lies in a page.  Units are acquired in the same order for
 * every micro-batch, so the next one is gathered while this one computes.
 */
#ifndef TRAIN_SHARD_H
#define TRAIN_SHARD_H

#include "base/rng.h"
#include "comm/comm.h"
#include "comm/part.h"
#include "trainer/model/params.h"
#include "trainer/model/weights.h"

struct shard; /* opaque */

struct shard_config {
    int stage;
    bool canonical;
    bool train;              /* false: weights only, and stage 1 for 2 and 3 */
    int64_t leaves;          /* micro-batches in a step, over all ranks */
    enum kern_dtype moments; /* what m and v are kept in: the wide type, or bf16 */
    enum kern_dtype grads;   /* the same for sums of gradients; bf16 is canonical only */
    uint64_t seed;           /* of rounding by chance */
};

/* Rounding by chance of a unit in a step. */
enum shard_rounding { ROUND_MOMENTS, ROUND_GRADS, ROUNDINGS };

static inline uint64_t shard_round_key(uint64_t seed, int64_t step, int unit,
                                       enum shard_rounding what)
{
    return rng_u64(seed, RNG_ROUND, (uint32_t)unit * ROUNDINGS + what, (uint64_t)step);
}

/* How micro-batches are dealt out in this stage. */
static inline enum part_deal shard_deal(int stage)
{
    return stage < 2 ? PART_RUNS : PART_ROUNDS;
}

/* [collective] Allocate everything on the queue's device, zeroed.  params and c are kept
 * by reference. */
kr_status shard_open(struct shard **out, const struct params *params, struct comm *c,
                     struct kern_queue *q, const struct shard_config *config);
void shard_close(struct shard *s); /* NULL is fine */

/* What the model sees of it; valid as long as s. */
const struct weights *shard_weights(struct shard *s);

/* [local] Step number `step` (0, 1, ...): gradients start from nothing. */
void shard_begin(struct shard *s, int64_t step);

/* [local] The next model_train is this rank's i-th micro-batch of the step (part.h). */
void shard_leaf(struct shard *s, int64_t i);

/* [local] The next is a model_eval. */
void shard_forward(struct shard *s);

/* [collective] [queued] Wait for all reductions of the step. */
kr_status shard_finish(struct shard *s);

/* One unit's part that this rank updates: elements [span.begin, span.end) of the unit. */
struct shard_own {
    int unit;
    struct span span;
    /* device, element span.begin; w wide, the others as configured.  m, v, g: training
     * only.  copy: the model's own weights, of its type, to be written with every new w;
     * NULL where that is w itself. */
    void *w, *m, *v, *g, *copy;
};

/* [local] count = number of units, ascending.  In stage 0 everything is own.  Nobody updates
 * frozen units: theirs have no m, v and g. */
const struct shard_own *shard_own(const struct shard *s, int *count);

/* [local] The part of each unit that this rank alone holds or stands for: the spans of
 * all ranks tile the units, in every stage.  What is counted, saved and loaded once. */
const struct shard_own *shard_share(const struct shard *s, int *count);

/* [collective] [queued] After an update of own: everyone gets the new weights.  `all`: w,
 * m and v of share are new (a load); copies and whatever this stage holds twice are
 * refreshed too.  Without training this ends the use of w in mixed precision (it becomes
 * NULL). */
kr_status shard_publish(struct shard *s, bool all);

/* Frozen units are loaded one after the other.  [local] Room for this rank's share of a unit,
 * wide: w of shard_share.  [collective] [queued] It is there: everyone gets the weights, and
 * in mixed precision w becomes NULL again. */
kr_status shard_fill(struct shard *s, int unit);
kr_status shard_filled(struct shard *s, int unit);

/* Bytes on the device.  moving: gradients on their way, gathered weights and the share of a
 * frozen unit that is loaded, that is what lives for the moment of a unit. */
struct shard_bytes {
    size_t weights, master, gradients, moments, moving;
};

static inline size_t shard_bytes_sum(const struct shard_bytes *b)
{
    return b->weights + b->master + b->gradients + b->moments + b->moving;
}

struct shard_bytes shard_bytes(const struct shard *s);

/* [local] What shard_open would take on one of `size` ranks, on a device of these types. */
struct shard_bytes shard_plan(const struct params *params, int32_t size,
                              const struct shard_config *config, enum kern_dtype type,
                              enum kern_dtype wide);

/* [local] What such a shard keeps beside these arrays.  For its collectives between GPUs:
 * device memory over NCCL, pinned memory where they go through the host.  checksums: on the
 * device, and as much on the host. */
struct shard_room {
    size_t device, pinned, checksums;
};
struct shard_room shard_room(const struct params *params, int32_t size,
                             const struct shard_config *config, enum kern_dtype type,
                             enum kern_dtype wide);

/* [queued] Checksum of what all ranks hold alike, as it is when the queue comes to it: the
 * weights before stage 3, all optimizer state in stage 0.  The device makes it.  On more
 * than one rank only. */
kr_status shard_checksum_start(struct shard *s);
/* [local] The one that was started last, once the queue has been waited for.  Never 0. */
uint64_t shard_checksum(const struct shard *s);

/* [local] Flip one bit of a weight in the middle of the first unit (of the wide one where
 * this rank holds it); for tests. */
kr_status shard_flip(struct shard *s, int bit);

#endif
