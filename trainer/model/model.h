/*
 * model.h - a transformer: embedding, blocks, head, loss; forward and backward.
 *
 *   x = embed(token);  x += attention(norm1(x));  x += mlp(norm2(x));  ...
 *   logits = norm(x) head^T;  loss = sum over labels of cross entropy
 *
 * The model computes shapes and order, never values, and never branches on the device.
 * It owns its activations: one device block, laid out once for the largest micro-batch.
 * The head runs in chunks of rows, so the whole (N, V) logits never exist.
 */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include "trainer/model/params.h"
#include "trainer/model/weights.h"

struct model; /* opaque */

/* What the backward makes again instead of keeping it: nothing; what norms and activations
 * gave; everything but the blocks' inputs.  The bits are the same.  Costs a block's norms
 * and activation, or its forward without the last product, once more, save for the last
 * block, which is still there. */
enum model_recompute { RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL };

/* [local] Activations for up to `sequences` of up to shape->context tokens; `train` also
 * keeps what the backward needs but does not `recompute`.  *out refers to q, shape (copied) and params (kept). */
kr_status model_open(struct model **out, const struct model_shape *shape,
                     const struct params *params, struct kern_queue *q, int64_t sequences,
                     bool train, enum model_recompute recompute);
void model_close(struct model *m); /* NULL is fine */

/* Bytes of activations on the device. */
size_t model_bytes(const struct model *m);

/* The same before there is a model: what model_open would take.  logits: of it, the chunk
 * of logits. */
struct model_plan {
    size_t bytes, logits;
};
kr_status model_plan(struct model_plan *out, const struct model_shape *shape,
                     int64_t sequences, bool train, enum model_recompute recompute,
                     enum kern_dtype type, enum kern_dtype wide);

/* [local] What the compute queue of such a device keeps for the operations of a model_train
 * (kern_device_scratch). */
kr_status model_scratch(size_t *out, const char *device, const struct kern_whose *whose,
                        const struct model_shape *shape, const struct params *params,
                        int64_t sequences);

/* One micro-batch on the device: sequences * seq of int32 each.  A label is the token
 * that follows, or KERN_IGNORE.  start: of the document of each row, as in struct
 * kern_heads, or NULL.  Learned positions count from there; rotary ones and ALiBi go on
 * counting over the documents of a sequence, which only see differences. */
struct batch {
    const int32_t *token, *label;
    int64_t sequences, seq;
    const int32_t *start;
};

/* [collective] [queued] Forward only; loss[0] (device, double) = sum of the losses. */
kr_status model_eval(struct model *m, const struct weights *w, const struct batch *b,
                     double *loss);

/* [collective] [queued] Forward and backward.  Gradients are those of grad_scale times
 * the sum of the losses; units become ready from the head down to the embedding. */
kr_status model_train(struct model *m, const struct weights *w, const struct batch *b,
                      double grad_scale, double *loss);

/* [collective] [queued] logits (1, V) of the last row of one sequence (b->sequences is 1,
 * b->label is unused).  logits: device, of the device's type. */
kr_status model_logits(struct model *m, const struct weights *w, const struct batch *b,
                       struct kern_mat logits);

/* [local] Room to keep what attention reads of one sequence, for model_next. */
kr_status model_open_cache(struct model *m);

/* [collective] [queued] b, one sequence, goes on where `past` tokens of earlier calls ended
 * (0: it starts one): logits (1, V) of its last row, as model_logits of all tokens gives them
 * up to rounding.  Past and new tokens together are at most the context. */
kr_status model_next(struct model *m, const struct weights *w, const struct batch *b,
                     int64_t past, struct kern_mat logits);

#endif
