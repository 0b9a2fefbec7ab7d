/*
 * family.h - model families as rows of data.
 *
 * What differs between families ends up in three places: the parameter list (params.c),
 * a few branches of the block (block.c), and arguments of kernels.  A new family is a
 * row here, a golden test and, for foreign checkpoints, an import table.
 */
#ifndef TRAIN_FAMILY_H
#define TRAIN_FAMILY_H

#include "trainer/model/lora.h"

enum pos_kind { POS_LEARNED, POS_ROPE, POS_ALIBI };

struct family {
    const char *name;
    enum kern_norm norm;
    bool norm_bias;
    bool embed_norm; /* a norm between the embedding and the first block */
    bool sandwich;   /* a norm also after attention and MLP, before the residual */
    enum pos_kind pos;
    enum kern_pairing pairing; /* POS_ROPE */
    double rope_share;         /* part of each head that is rotated */
    enum kern_act act;
    bool qkv_bias, out_bias, mlp_bias; /* these and what follows: unless the model says */
    bool tied;                         /* output matrix is the token embedding */
    double norm_eps;
    /* Elsewhere one matrix for what lies together here, so one adapter (lora.h). */
    bool one_qkv, one_gate_up;
};

/* In the order of the setting model.family: FAMILY_CHOICES. */
extern const struct family families[];
enum {
    FAMILY_GPT2,
    FAMILY_LLAMA,
    FAMILY_BLOOM,
    FAMILY_GLM,
    FAMILY_CHATGLM,
    FAMILY_GLM4,
    FAMILY_COUNT
};
#define FAMILY_CHOICES "gpt2|llama|bloom|glm|chatglm|glm4"

/* Frequencies of RoPE that are not plain powers; factor 1 is none.  Formulas as transformers
 * computes them (modeling_rope_utils.py).
 *   LLAMA3    by wavelength: none of them changes below old_context / high, those above
 *             old_context / low are divided by factor, between them a blend
 *   LINEAR    all are divided by factor
 *   YARN      (Peng et al. 2023) by index: D(n) = R ln(old_context / (2 pi n)) / (2 ln theta)
 *             is the pair that turns n times in old_context; those up to floor D(high) stay,
 *             those from ceil D(low) on are divided by factor, between them a blend that is
 *             linear in the index.  Cosines and sines are multiplied by `attention`, of
 *             which 0 means 0.1 ln factor + 1
 *   DYNAMIC   theta (factor T / old_context - factor + 1)^(R / (R - 2)) takes the place of
 *             theta where the model's context T is above old_context */
enum rope_stretch { ROPE_LLAMA3, ROPE_LINEAR, ROPE_YARN, ROPE_DYNAMIC };
#define ROPE_CHOICES "llama3|linear|yarn|dynamic" /* in this order */
struct rope_scaling {
    double factor, low, high, old_context;
    enum rope_stretch kind;
    double attention;
};

/* Where one model of a family may differ from another. */
enum as_family { AS_FAMILY, FAMILY_YES, FAMILY_NO };

/* A model: a family and its sizes.  Of the last members 0 means: as the family. */
struct model_shape {
    const struct family *family;
    int64_t layers, dim, heads, kv_heads, head_dim, ffn, vocab, context;
    double rope_theta;
    struct rope_scaling rope_scaling;
    int64_t rope_dims; /* rotated channels of each head */
    double norm_eps;
    enum as_family tied, qkv_bias, out_bias, mlp_bias;
    struct lora lora; /* of rank 0: none */
};

/* KR_ERR_ARG with one line if the sizes do not fit together (heads over kv_heads, pairs
 * for RoPE). */
kr_status model_shape_check(const struct model_shape *s);

/* What the model has: its own word or its family's. */
bool model_tied(const struct model_shape *s);
bool model_qkv_bias(const struct model_shape *s);
bool model_out_bias(const struct model_shape *s);
bool model_mlp_bias(const struct model_shape *s);
double model_norm_eps(const struct model_shape *s);

/* Rows of the matrices that come first in attention and MLP. */
int64_t model_qkv_rows(const struct model_shape *s); /* (H + 2K) D */
int64_t model_up_rows(const struct model_shape *s);  /* F, gated: 2F */

/* Angular frequencies of the R/2 pairs, in double; R = model_rope_dims, 0 without RoPE. */
int64_t model_rope_dims(const struct model_shape *s);
void model_rope_frequencies(const struct model_shape *s, double *omega);

/* What cosines and sines are multiplied by. */
double model_rope_magnitude(const struct model_shape *s);

/* ALiBi's slopes of the H heads (Press et al. 2022): with c the largest power of two that
 * is at most H, 2^(-8k/c) for k = 1 .. c, then every other slope of 2c heads. */
void model_alibi_slopes(const struct model_shape *s, float *slopes);

/* Floating point operations of forward and backward per token: 6 N_mm + 6 L H D T, with
 * N_mm the elements of all matrices that multiply (head included, embedding not) and
 * half of the T x T scores (causal); PaLM's convention is 6 N + 12 L H D T.  A frozen
 * matrix has no gradient, so beside adapters of N_ab elements it is 4 N_mm + 6 N_ab. */
double model_flops_per_token(const struct model_shape *s, int64_t seq);
double model_flops_per_token_palm(const struct model_shape *s, int64_t seq);

#endif
