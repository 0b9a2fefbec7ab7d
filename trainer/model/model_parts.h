/*
 * model_parts.h - what model.c (life, blocks, embedding), model_head.c and model_scratch.c
 * share.  For them only.
 */
#ifndef TRAIN_MODEL_PARTS_H
#define TRAIN_MODEL_PARTS_H

#include "trainer/model/block.h"
#include "trainer/model/model.h"

struct model {
    struct model_shape shape;
    const struct params *params;
    struct kern_queue *q;
    struct kern_device *device;
    enum kern_dtype type, wide; /* of the device */
    bool train;
    unsigned kept;       /* roles of what each layer keeps for the backward (block.h) */
    int64_t rows, chunk; /* most tokens; rows of logits at a time */
    void *block;         /* device memory of everything below */
    size_t bytes;
    struct block_acts *acts; /* of each layer; without training one for all */
    struct block_scratch scratch;
    struct kern_mat rope, last, stats, normed, d, d_normed, logits, loss;
    struct kern_mat embedded, embed_stats; /* before a norm of the embedding, or none */
    struct kern_mat low, d_low; /* between the two products of an adapter, or none */
    double lora_scale;
    float *slopes; /* of ALiBi, or NULL */
    void *cache;   /* of model_next: qkv (context, (H + 2K) D) of each layer, or NULL */
    bool caching;  /* model_next runs, */
    int64_t past;  /* after so many rows that are in the cache */
};

/* ---- views ------------------------------------------------------------------------------ */

/* The first n rows; of per-row tables, columns. */
static inline struct kern_mat first_rows(struct kern_mat m, int64_t n)
{
    return kern_rows(m, 0, n);
}
static inline struct kern_mat first_cols(struct kern_mat m, int64_t n)
{
    return kern_cols(m, 0, n);
}

/* Rows of logits at a time. */
int64_t model_chunk_rows(int64_t rows, int64_t vocab, enum kern_dtype type);

static inline int64_t model_rows(const struct batch *b) { return b->sequences * b->seq; }

static inline struct kern_mat model_view(const struct model *m, int32_t unit,
                                         const char *name, void *flat)
{
    return params_view(m->params, unit, name, flat, m->type);
}

/* Gradients of weights are wide. */
static inline struct kern_mat model_view_grad(const struct model *m, int32_t unit,
                                              const char *name, void *flat)
{
    return params_view(m->params, unit, name, flat, m->wide);
}

/* Where the unit's gradient goes; *flat is NULL if the unit is frozen. */
static inline kr_status model_grads(const struct model *m, const struct weights *w,
                                    int unit, void **flat, bool *add)
{
    *flat = NULL;
    *add = false;
    return unit < m->params->frozen ? KR_OK : w->grads(w->self, unit, flat, add);
}

static inline kr_status model_grads_ready(const struct model *m, const struct weights *w,
                                          int unit)
{
    return unit < m->params->frozen ? KR_OK : w->grads_ready(w->self, unit);
}

/* ---- head: from the output of the last block -------------------------------------------- */

/* [collective] [queued] Losses of all rows. */
kr_status head_eval(struct model *m, const struct weights *w, const struct batch *b);

/* [collective] [queued] Losses, and m->d: the gradient of the last block's output. */
kr_status head_train(struct model *m, const struct weights *w, const struct batch *b,
                     double grad_scale);

/* [collective] [queued] Logits of the last row. */
kr_status head_logits(struct model *m, const struct weights *w, const struct batch *b,
                      struct kern_mat logits);

#endif
