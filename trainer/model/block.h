/*
 * block.h - one transformer block of any family, forward and backward.
 *
 *   mid = x + attention(norm1(x))        out = mid + mlp(norm2(mid))
 *
 * In a sandwich family what is added is normed once more: x + post1(attention(norm1(x))).
 * Beside each matrix there may be adapters (lora.h).
 */
#ifndef TRAIN_BLOCK_H
#define TRAIN_BLOCK_H

#include "trainer/model/arena.h"
#include "trainer/model/family.h"
#include "trainer/model/params.h"

/* Views of a block's parameters, or of their gradients, in the unit's flat array.  What a
 * family does not have is kern_none, and so are gradients of what is frozen. */
struct block_params {
    struct kern_mat norm1, norm1_bias, post1, post1_bias;
    struct kern_mat norm2, norm2_bias, post2, post2_bias;
    struct kern_mat w[BLOCK_MATRICES], b[BLOCK_MATRICES];
    struct lora_pair lora[LORA_SITES];
};

/* View of parameter `name` of unit in its flat array of this type, or kern_none: there is no
 * such parameter, or flat is NULL. */
struct kern_mat params_view(const struct params *p, int32_t unit, const char *name,
                            void *flat, enum kern_dtype type);

/* flat of the block's unit, adapters of that of its adapters; either may be NULL. */
void block_params(const struct params *p, int32_t layer, void *flat, void *adapters,
                  enum kern_dtype type, struct block_params *out);

/* What the forward leaves for the backward; N rows.  raw, stats_post: what a sandwich norm
 * of attention (1) and MLP (2) saw; else none. */
struct block_acts {
    struct kern_mat x, stats1, normed1, qkv, att, lse, raw1, stats_post1;
    struct kern_mat mid, stats2, normed2, up, act, raw2, stats_post2;
};

/* What all blocks share; N rows.  d_raw: as raw. */
struct block_scratch {
    struct kern_mat d_normed, d_att, d_qkv, delta, d_up, d_act, d_raw;
};

/* What a block needs to know besides. */
struct block_env {
    struct kern_queue *q;
    const struct model_shape *shape;
    struct kern_mat rope; /* table (T, R) */
    const float *slopes;  /* as in struct kern_heads */
    int64_t seq;
    const int32_t *start; /* as in struct kern_heads */
    /* Forward only: so many rows of the one sequence came before; acts' qkv, att and lse
     * begin with theirs, and their qkv is there.  rope begins with the first new row. */
    int64_t past;
    struct lora_env lora; /* where there are adapters */
};

/* What it costs to make a member of block_acts once more in the backward: the input can not
 * be made; what norms and the activation gave takes little; the rest are products and
 * attention. */
enum block_role { BLOCK_INPUT = 1, BLOCK_CHEAP = 2, BLOCK_DEAR = 4, BLOCK_ALL = 7 };

/* Lay out the members with one of these roles, in the order in which the forward makes
 * them; the others stay as they are. */
void block_lay_out(struct arena *a, const struct model_shape *s, int64_t rows,
                   unsigned roles, struct block_acts *out);
void block_lay_out_scratch(struct arena *a, const struct model_shape *s, int64_t rows,
                           struct block_scratch *out);

/* a->x is set; out (N, C) is written. */
kr_status block_fwd(const struct block_env *e, const struct block_params *w,
                    const struct block_acts *a, struct kern_mat out);

/* Before block_bwd: make again what is not in `kept`, with the same bits.  For all but the
 * input that is the forward without its last product. */
kr_status block_remake(const struct block_env *e, const struct block_params *w,
                       const struct block_acts *a, const struct block_scratch *s,
                       unsigned kept);

/* d (N, C): gradient of out on entry, of x on return.  add: to the gradients in g. */
kr_status block_bwd(const struct block_env *e, const struct block_params *w,
                    const struct block_params *g, bool add, const struct block_acts *a,
                    const struct block_scratch *s, struct kern_mat d);

#endif
