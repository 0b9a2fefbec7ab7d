/*
 * params.h - the list of parameters: name, shape, place, start values.
 *
 * A unit (embedding, each block, head) is the granule of sharding, communication and
 * checkpoints: its parameters lie together in one flat array, each aligned to
 * PARAMS_ALIGN elements; gaps are zero and stay zero.  Matrices are (out, in), row-major.
 *
 *   unit 0       embed.token (V, C)   embed.position (P, C)   embed.norm.weight .bias
 *   unit 1 + l   block.l.norm1.weight .bias   .attn.qkv.weight ((H + 2K) D, C) .bias
 *                .attn.out.weight (C, H D) .bias   .post1.weight
 *                .norm2.weight .bias
 *                .mlp.up.weight (F or 2F, C): gate rows, then up rows   .bias
 *                .mlp.down.weight (C, F) .bias   .post2.weight
 *   unit L + 1   norm.weight .bias   head.weight (V, C), absent when tied
 *
 *   unit L + 2 + l   block.l.lora.SITE.a (r, in)   block.l.lora.SITE.b (rows, r)   (lora.h)
 *
 * With adapters the first L + 2 units are frozen: nothing of them is trained, so they have
 * weights and nothing else, and checkpoints leave them out.
 *
 * A family lacks some of them; qkv holds all query heads, then all key heads, then all
 * value heads.
 */
#ifndef TRAIN_PARAMS_H
#define TRAIN_PARAMS_H

#include "base/words.h"
#include "trainer/model/family.h"

enum { PARAMS_ALIGN = 64 /* elements */, PARAMS_NAME = 96 };

/* UNIFORM: in [-std sqrt(3), std sqrt(3)). */
enum param_init { INIT_ZERO, INIT_ONE, INIT_NORMAL, INIT_UNIFORM };

struct param {
    char name[PARAMS_NAME];
    int64_t rows, cols;
    int32_t unit;
    int64_t offset; /* elements, in the unit's flat array */
    enum param_init init;
    double std;
    bool decay; /* weight decay: matrices yes, norms and biases no */
};

struct params {
    struct param *list; /* by unit, then offset */
    struct words names; /* of the list, in its order */
    int32_t count, units;
    int32_t frozen; /* units before this one are not trained; 0: all are */
    int32_t first;  /* of the list that is trained */
    int32_t *begin; /* of each unit, none empty: its first in the list; [units] = count */
    int64_t *unit_len; /* elements of each unit's flat array, gaps included */
    int64_t total;     /* elements of all parameters, gaps excluded, */
    int64_t trained;   /* and of those that are trained */
};

/* Build the list; the caller frees it with params_free. */
kr_status params_build(struct params *out, const struct model_shape *shape);
void params_free(struct params *p);

/* Unit of the adapters of a block, -1 if there are none. */
static inline int32_t params_lora_unit(const struct params *p, int64_t layer)
{
    return p->frozen ? p->frozen + (int32_t)layer : -1;
}

/* Index by name, -1 if there is none. */
int32_t params_find(const struct params *p, const char *name);

/* Start values of elements [begin, begin + count) of parameter i, in float64: a function
 * of (seed, i, element) only, so any rank can make any part. */
void params_init(const struct params *p, int32_t i, uint64_t seed, int64_t begin,
                 int64_t count, double *out);

#endif
