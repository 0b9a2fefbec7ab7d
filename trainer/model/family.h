/*
 * family.h - model families as rows of data.
 *
 * What differs between families ends up in three places: the parameter list (params.c),
 * a few branches of the block (block.c), and arguments of kernels.  A new family is a
 * row here, a golden test and, for foreign checkpoints, an import table.
 */
#ifndef TRAIN_FAMILY_H
#define TRAIN_FAMILY_H

#include "kernels/kernels.h"

enum pos_kind { POS_LEARNED, POS_ROPE };

struct family {
    const char *name;
    enum kern_norm norm;
    bool norm_bias;
    enum pos_kind pos;
    enum kern_pairing pairing; /* POS_ROPE */
    double rope_share;         /* part of each head that is rotated */
    enum kern_act act;
    bool qkv_bias, out_bias, mlp_bias;
    bool tied; /* output matrix is the token embedding */
    double norm_eps;
};

/* In the order of the setting model.family: FAMILY_CHOICES. */
extern const struct family families[];
enum { FAMILY_GPT2, FAMILY_LLAMA, FAMILY_COUNT };
#define FAMILY_CHOICES "gpt2|llama"

/* Frequencies of RoPE that are not plain powers (LLaMA 3.1 on); factor 1 is none. */
struct rope_scaling {
    double factor, low, high, old_context;
};

/* A model: a family and its sizes. */
struct model_shape {
    const struct family *family;
    int64_t layers, dim, heads, kv_heads, head_dim, ffn, vocab, context;
    double rope_theta;
    struct rope_scaling rope_scaling;
};

/* KR_ERR_ARG with one line if the sizes do not fit together (dim over heads, heads over
 * kv_heads, even head size for RoPE, all at least 1). */
kr_status model_shape_check(const struct model_shape *s);

/* Angular frequencies of the R/2 pairs, in double; R = rope_share * head_dim. */
int64_t model_rope_dims(const struct model_shape *s);
void model_rope_frequencies(const struct model_shape *s, double *omega);

/* Floating point operations of forward and backward per token: 6 N_mm + 6 L H D T, with
 * N_mm the elements of all matrices that multiply (head included, embedding not) and
 * half of the T x T scores (causal); PaLM's convention is 6 N + 12 L H D T. */
double model_flops_per_token(const struct model_shape *s, int64_t seq);
double model_flops_per_token_palm(const struct model_shape *s, int64_t seq);

#endif
