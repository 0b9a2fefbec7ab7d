/*
 * cases.c - for every operation: how to draw its operands, and how to call it.
 *
 * `make` draws shapes and flags into l->n and adds tensors; `call` runs the operation on
 * one side.  Tolerances are relative (lab_error), for bf16 and for fp32; 0 means the same
 * bits as the CPU.
 */
#include "tests/device/cases.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct kern_queue *Q(const struct lab *l, int side) { return l->side[side].q; }
static struct kern_mat M(const struct lab *l, int side, int number) {
    return lab_mat(l, side, number);
}

#define SHAPE(l, ...) snprintf((l)->shape, sizeof(l)->shape, __VA_ARGS__)

static long long
ll(int64_t x)
{
    return (long long)x;
}

/* Narrow or wide, whichever. */
static enum kern_dtype either(struct lab *l)
{
    return lab_flip(l) ? lab_type(l) : lab_wide(l);
}

/* ---- elementwise ---------------------------------------------------------------------- */

static void fill_make(struct lab *l)
{
    lab_tensor(l, LAB_OUT, either(l), lab_dim(l), lab_dim(l), 0, 1);
    SHAPE(l, "(%lld, %lld)", ll(l->t[0].rows), ll(l->t[0].cols));
}
static kr_status fill_call(struct lab *l, int s)
{
    return kern_fill(Q(l, s), M(l, s, 0), 2.5);
}

static void copy_make(struct lab *l)
{
    int64_t rows = lab_dim(l), cols = lab_dim(l);

    lab_tensor(l, LAB_OUT, either(l), rows, cols, 0, 1);
    lab_tensor(l, LAB_IN, either(l), rows, cols, 0, 1);
    SHAPE(l, "(%lld, %lld)", ll(rows), ll(cols));
}
static kr_status copy_call(struct lab *l, int s)
{
    return kern_copy(Q(l, s), M(l, s, 0), M(l, s, 1));
}

static void add_make(struct lab *l)
{
    enum kern_dtype type = either(l);
    int64_t rows = lab_dim(l), cols = lab_dim(l);

    l->n[0] = lab_flip(l); /* y is a */
    lab_tensor(l, l->n[0] ? LAB_CHANGE : LAB_OUT, type, rows, cols, 0, 1);
    lab_tensor(l, LAB_IN, type, rows, cols, 0, 1);
    lab_tensor(l, LAB_IN, type, rows, cols, 0, 1);
    SHAPE(l, "(%lld, %lld)%s", ll(rows), ll(cols), l->n[0] ? ", in place" : "");
}
static kr_status add_call(struct lab *l, int s)
{
    return kern_add(Q(l, s), M(l, s, 0), M(l, s, l->n[0] ? 0 : 1), M(l, s, 2));
}

static void scale_make(struct lab *l)
{
    int64_t rows = lab_dim(l), cols = lab_dim(l);

    l->n[0] = lab_flip(l); /* y is x */
    lab_tensor(l, l->n[0] ? LAB_CHANGE : LAB_OUT, lab_type(l), rows, cols, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, cols, 0, 1);
    SHAPE(l, "(%lld, %lld)%s", ll(rows), ll(cols), l->n[0] ? ", in place" : "");
}
static kr_status scale_call(struct lab *l, int s)
{
    return kern_scale(Q(l, s), M(l, s, 0), M(l, s, l->n[0] ? 0 : 1), 1.7);
}

static struct kern_round round_of(const struct lab *l)
{
    struct kern_round r = { 1234567890123u + (uint64_t)l->n[5], 77, l->n[4] };

    return r;
}

static void add_round_make(struct lab *l)
{
    int64_t cols = lab_dim(l) * lab_dim(l);

    l->n[0] = lab_draw(l, 3); /* 0: no a, 1: y is a, 2: a */
    l->n[4] = lab_draw(l, 100);
    lab_tensor(l, l->n[0] == 1 ? LAB_CHANGE : LAB_OUT, KERN_BF16, 1, cols, 0, 1);
    lab_tensor(l, LAB_IN, lab_flip(l) ? KERN_BF16 : KERN_F32, 1, cols, 0, 1);
    lab_tensor(l, LAB_IN, lab_flip(l) ? KERN_BF16 : KERN_F32, 1, cols, 0, 1);
    SHAPE(l, "%lld from number %lld", ll(cols), ll(l->n[4]));
}
static kr_status add_round_call(struct lab *l, int s)
{
    struct kern_round r = round_of(l);
    int a = l->n[0] == 0 ? -1 : l->n[0] == 1 ? 0 : 1;

    return kern_add_round(Q(l, s), M(l, s, 0), M(l, s, a), M(l, s, 2), &r);
}

/* ---- linear --------------------------------------------------------------------------- */

/* A result sums so many products.  fp32 rounds each addition by chance, half a unit up or
 * down.  Tensor cores cut what does not fit of every sixteen, always towards zero (measured on
 * V100 to H100: Fasi et al. 2021, Khattak and Mikaitis 2025), so there it adds up. */
static void sums_of(struct lab *l, int64_t terms)
{
    l->slack =
        lab_type(l) == KERN_BF16 ? 4e-9 * (double)terms : 5e-8 * sqrt((double)terms);
}

static void linear_fwd_make(struct lab *l)
{
    int64_t n = lab_dim(l), o = lab_dim(l), i = lab_dim(l);

    static const int64_t onto[] = { -1, 0, 4 }; /* nothing, y, another */

    l->n[0] = onto[lab_draw(l, 3)];
    l->n[1] = lab_flip(l); /* bias */
    lab_tensor(l, l->n[0] == 0 ? LAB_CHANGE : LAB_OUT, lab_type(l), n, o, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), n, i, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), o, i, 0, 1 / sqrt((double)i));
    lab_tensor(l, LAB_IN, lab_type(l), 1, o, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), n, o, 0, 1);
    sums_of(l, i);
    SHAPE(l, "N %lld O %lld I %lld%s", ll(n), ll(o), ll(i),
          l->n[0] < 0 ? ""
          : l->n[0]   ? ", onto another"
                      : ", onto y");
}
static kr_status linear_fwd_call(struct lab *l, int s)
{
    return kern_linear_fwd(Q(l, s), M(l, s, 0), M(l, s, 1), M(l, s, 2),
                           M(l, s, l->n[1] ? 3 : -1), M(l, s, (int)l->n[0]));
}

static void linear_bwd_x_make(struct lab *l)
{
    int64_t n = lab_dim(l), o = lab_dim(l), i = lab_dim(l);

    l->n[0] = lab_flip(l);
    lab_tensor(l, l->n[0] ? LAB_CHANGE : LAB_OUT, lab_type(l), n, i, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), n, o, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), o, i, 0, 1 / sqrt((double)o));
    sums_of(l, o);
    SHAPE(l, "N %lld O %lld I %lld", ll(n), ll(o), ll(i));
}
static kr_status linear_bwd_x_call(struct lab *l, int s)
{
    return kern_linear_bwd_x(Q(l, s), M(l, s, 0), M(l, s, 1), M(l, s, 2), l->n[0] != 0);
}

static void linear_bwd_w_make(struct lab *l)
{
    int64_t n = lab_dim(l) * (lab_draw(l, 4) ? 1 : 24), o = lab_dim(l), i = lab_dim(l);
    enum lab_use use = lab_flip(l) ? LAB_CHANGE : LAB_OUT;

    l->n[0] = use == LAB_CHANGE;
    l->n[1] = lab_flip(l);
    lab_tensor(l, use, lab_wide(l), o, i, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), n, o, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), n, i, 0, 1 / sqrt((double)n));
    if (l->n[1]) lab_tensor(l, use, lab_wide(l), 1, o, 0, 1);
    sums_of(l, n);
    SHAPE(l, "N %lld O %lld I %lld", ll(n), ll(o), ll(i));
}
static kr_status linear_bwd_w_call(struct lab *l, int s)
{
    return kern_linear_bwd_w(Q(l, s), M(l, s, 0), M(l, s, l->n[1] ? 3 : -1), M(l, s, 1),
                             M(l, s, 2), l->n[0] != 0);
}

/* ---- embedding, norms, activations, positions ----------------------------------------- */

/* Integers `number`: starts of documents of about a fifth of each of the sequences. */
static void documents(struct lab *l, int number, int64_t sequences, int64_t seq)
{
    int64_t rows = sequences * seq, start = 0;

    lab_ints(l, number, rows, 1, false);
    for (int64_t i = 0; i < rows; i++) {
        if (i % seq == 0 || lab_draw(l, 1 + seq / 5) == 0) start = i;
        l->ints_host[number][i] = (int32_t)start;
    }
    for (int s = 0; s < 2; s++) {
        (void)kern_upload(l->side[s].q, l->ints[number][s], l->ints_host[number],
                          (size_t)rows * sizeof(int32_t));
        (void)kern_queue_sync(l->side[s].q);
    }
}

/* n[0] sequences of n[1] tokens, a vocabulary of n[2], n[3] channels, n[4]: positions, n[6]:
 * of documents */
static void embed_shape(struct lab *l)
{
    l->n[0] = 1 + lab_draw(l, 3);
    l->n[1] = lab_dim(l);
    l->n[2] = 1 + lab_draw(l, lab_flip(l) ? 5 : 300);
    l->n[3] = lab_dim(l);
    l->n[4] = lab_flip(l);
    l->n[6] = l->n[4] && lab_flip(l);
    lab_ints(l, 0, l->n[0] * l->n[1], l->n[2], false);
    if (l->n[6]) documents(l, 1, l->n[0], l->n[1]);
    SHAPE(l, "%lld x %lld of %lld, C %lld", ll(l->n[0]), ll(l->n[1]), ll(l->n[2]),
          ll(l->n[3]));
}

static void embed_fwd_make(struct lab *l)
{
    embed_shape(l);
    lab_tensor(l, LAB_OUT, lab_type(l), l->n[0] * l->n[1], l->n[3], 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), l->n[2], l->n[3], 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), l->n[1] + 3, l->n[3], 0, 1);
}
static kr_status embed_fwd_call(struct lab *l, int s)
{
    return kern_embed_fwd(Q(l, s), M(l, s, 0), l->ints[0][s], M(l, s, 1),
                          M(l, s, l->n[4] ? 2 : -1), l->n[1],
                          l->n[6] ? l->ints[1][s] : NULL);
}

static void embed_bwd_make(struct lab *l)
{
    enum lab_use use = lab_flip(l) ? LAB_CHANGE : LAB_OUT;

    embed_shape(l);
    l->n[5] = use == LAB_CHANGE;
    lab_tensor(l, use, lab_wide(l), l->n[2], l->n[3], 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), l->n[0] * l->n[1], l->n[3], 0, 1);
    if (l->n[4]) lab_tensor(l, use, lab_wide(l), l->n[1] + 3, l->n[3], 0, 1);
}
static kr_status embed_bwd_call(struct lab *l, int s)
{
    return kern_embed_bwd(Q(l, s), M(l, s, 0), M(l, s, l->n[4] ? 2 : -1), l->ints[0][s],
                          M(l, s, 1), l->n[1], l->n[6] ? l->ints[1][s] : NULL,
                          l->n[5] != 0);
}

/* n[0]: rms; n[1]: no bias; n[2]: add to dx; n[3]: add to dw; n[4]: dx is dy; n[5]: no dw */
static void norm_flags(struct lab *l, int64_t rows, int64_t cols)
{
    for (int i = 0; i < 6; i++)
        l->n[i] = lab_flip(l);
    SHAPE(l, "%s (%lld, %lld)", l->n[0] ? "rms" : "layer", ll(rows), ll(cols));
}
static enum kern_norm norm_kind(const struct lab *l)
{
    return l->n[0] ? KERN_RMSNORM : KERN_LAYERNORM;
}

static void norm_fwd_make(struct lab *l)
{
    int64_t rows = lab_dim(l), cols = lab_dim(l) * (lab_flip(l) ? 1 : 9);

    norm_flags(l, rows, cols);
    lab_tensor(l, LAB_OUT, lab_type(l), rows, cols, 0, 1);
    lab_tensor(l, LAB_OUT, lab_wide(l), 2, rows, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, cols, 0.5, 2);
    lab_tensor(l, LAB_IN, lab_type(l), 1, cols, 1, 0.3);
    lab_tensor(l, LAB_IN, lab_type(l), 1, cols, 0, 1);
}
static kr_status norm_fwd_call(struct lab *l, int s)
{
    return kern_norm_fwd(Q(l, s), norm_kind(l), M(l, s, 0), M(l, s, 1), M(l, s, 2),
                         M(l, s, 3), M(l, s, l->n[1] ? -1 : 4), 1e-2);
}

static void norm_bwd_make(struct lab *l)
{
    static const int64_t by[] = { 1, 1, 9, 9, 40, 80 };
    int64_t rows = lab_dim(l), cols = lab_dim(l) * by[lab_draw(l, 6)];
    enum lab_use sums;

    if (cols > 2000) rows = 1 + rows % 5;
    norm_flags(l, rows, cols);
    if (l->n[4]) l->n[2] = 0;
    if (l->n[5]) l->n[1] = 1;
    sums = l->n[3] || l->n[5] ? LAB_CHANGE : LAB_OUT;
    lab_tensor(l, l->n[2] || l->n[4] ? LAB_CHANGE : LAB_OUT, lab_type(l), rows, cols, 0,
               1);
    lab_tensor(l, sums, lab_wide(l), 1, cols, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, cols, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, cols, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), 1, cols, 1, 0.3);
    lab_tensor(l, LAB_IN, lab_wide(l), 2, rows, 0.7, 0.1);
    if (!l->n[1]) lab_tensor(l, sums, lab_wide(l), 1, cols, 0, 1);
}
static kr_status norm_bwd_call(struct lab *l, int s)
{
    return kern_norm_bwd(Q(l, s), norm_kind(l), M(l, s, 0), l->n[2] != 0,
                         M(l, s, l->n[5] ? -1 : 1), M(l, s, l->n[1] ? -1 : 6),
                         l->n[3] != 0, M(l, s, l->n[4] ? 0 : 2), M(l, s, 3), M(l, s, 4),
                         M(l, s, 5));
}

/* n[0]: gelu; n[1]: du is u */
static enum kern_act act_kind(const struct lab *l)
{
    return l->n[0] ? KERN_GELU_TANH : KERN_SWIGLU;
}
static void act_make(struct lab *l, bool back)
{
    int64_t rows = lab_dim(l), f = lab_dim(l), wide;

    l->n[0] = lab_flip(l);
    l->n[1] = back && lab_flip(l);
    wide = l->n[0] ? f : 2 * f;
    if (back)
        lab_tensor(l, l->n[1] ? LAB_CHANGE : LAB_OUT, lab_type(l), rows, wide, 0, 2);
    else
        lab_tensor(l, LAB_OUT, lab_type(l), rows, f, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, wide, 0, 2);
    lab_tensor(l, LAB_IN, lab_type(l), rows, f, 0, 1);
    SHAPE(l, "%s (%lld, %lld)", l->n[0] ? "gelu" : "swiglu", ll(rows), ll(f));
}
static void act_fwd_make(struct lab *l) { act_make(l, false); }
static void act_bwd_make(struct lab *l) { act_make(l, true); }
static kr_status act_fwd_call(struct lab *l, int s)
{
    return kern_act_fwd(Q(l, s), act_kind(l), M(l, s, 0), M(l, s, 1));
}
static kr_status act_bwd_call(struct lab *l, int s)
{
    return kern_act_bwd(Q(l, s), act_kind(l), M(l, s, 0), M(l, s, 2),
                        M(l, s, l->n[1] ? 0 : 1));
}

/* The activation's width: often one that a kernel cuts into whole tiles. */
static void linear_act_fwd_make(struct lab *l)
{
    int64_t n = lab_dim(l), i = lab_dim(l), f = lab_dim(l), wide;

    if (lab_flip(l)) f = 128 * (1 + lab_draw(l, 2));
    l->n[0] = lab_flip(l);
    l->n[1] = lab_flip(l); /* bias */
    wide = l->n[0] ? f : 2 * f;
    lab_tensor(l, LAB_OUT, lab_type(l), n, f, 0, 1);
    lab_tensor(l, LAB_OUT, lab_type(l), n, wide, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), n, i, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), wide, i, 0, 1 / sqrt((double)i));
    lab_tensor(l, LAB_IN, lab_type(l), 1, wide, 0, 1);
    SHAPE(l, "%s N %lld F %lld I %lld%s", l->n[0] ? "gelu" : "swiglu", ll(n), ll(f),
          ll(i), l->n[1] ? ", bias" : "");
}
static kr_status linear_act_fwd_call(struct lab *l, int s)
{
    return kern_linear_act_fwd(Q(l, s), act_kind(l), M(l, s, 0), M(l, s, 1), M(l, s, 2),
                               M(l, s, 3), M(l, s, l->n[1] ? 4 : -1));
}

static void rope_make(struct lab *l)
{
    int64_t sequences = 1 + lab_draw(l, 2), turn;

    l->n[0] = 1 + lab_draw(l, 4);                             /* heads */
    l->n[1] = (lab_flip(l) ? 2 : 16) * (1 + lab_draw(l, 10)); /* head size */
    l->n[2] = lab_dim(l);                                     /* length */
    l->n[3] = lab_flip(l);
    l->n[4] = lab_flip(l);
    lab_tensor(l, LAB_CHANGE, lab_type(l), sequences * l->n[2], l->n[0] * l->n[1], 0, 1);
    turn = lab_flip(l) ? l->n[1] : 2 * (1 + lab_draw(l, l->n[1] / 2));
    lab_tensor(l, LAB_IN, lab_wide(l), l->n[2] + 2, turn, 0, 1);
    SHAPE(l, "%lld heads of %lld, %lld of them turn", ll(l->n[0]), ll(l->n[1]),
          ll(l->t[1].cols));
}
static kr_status rope_call(struct lab *l, int s)
{
    return kern_rope(Q(l, s), M(l, s, 0), M(l, s, 1), l->n[0], l->n[1], l->n[2],
                     l->n[3] ? KERN_ROPE_HALF : KERN_ROPE_INTERLEAVED, l->n[4] != 0);
}

/* ---- attention, loss ------------------------------------------------------------------ */

enum { HEADS, KV, SIZE, SEQ, SEQUENCES, ALIBI, DOCUMENTS };

static struct kern_heads heads_of(const struct lab *l, int s)
{
    struct kern_heads h = { .heads = l->n[HEADS],
                            .kv_heads = l->n[KV],
                            .head_dim = l->n[SIZE],
                            .seq = l->n[SEQ],
                            .scale = 1 / sqrt((double)l->n[SIZE]),
                            .slopes = l->n[ALIBI] ? l->slopes[s] : NULL,
                            .start = l->n[DOCUMENTS] ? l->ints[0][s] : NULL };

    return h;
}

static void attention_shape(struct lab *l)
{
    static const int64_t dims[] = { 64, 128, 64, 128, 32, 80, 5, 160 };

    l->n[KV] = 1 + lab_draw(l, 2);
    l->n[HEADS] = l->n[KV] * (1 + lab_draw(l, 3));
    l->n[SIZE] = dims[lab_draw(l, 8)];
    l->n[SEQ] = lab_dim(l) + (lab_flip(l) ? l->most : 0);
    l->n[SEQUENCES] = 1 + lab_draw(l, 2);
    l->n[ALIBI] = lab_flip(l);
    l->n[DOCUMENTS] = lab_flip(l);
    if (l->n[ALIBI]) lab_slopes(l, l->n[HEADS]);
    if (l->n[DOCUMENTS]) documents(l, 0, l->n[SEQUENCES], l->n[SEQ]);
    SHAPE(l, "%lld x %lld, %lld/%lld heads of %lld%s%s", ll(l->n[SEQUENCES]),
          ll(l->n[SEQ]), ll(l->n[HEADS]), ll(l->n[KV]), ll(l->n[SIZE]),
          l->n[ALIBI] ? ", ALiBi" : "", l->n[DOCUMENTS] ? ", documents" : "");
}

static void attention_fwd_make(struct lab *l)
{
    int64_t rows, d;

    attention_shape(l);
    rows = l->n[SEQUENCES] * l->n[SEQ];
    d = l->n[SIZE];
    lab_tensor(l, LAB_OUT, lab_type(l), rows, l->n[HEADS] * d, 0, 1);
    lab_tensor(l, LAB_OUT, lab_wide(l), l->n[HEADS], rows, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, (l->n[HEADS] + 2 * l->n[KV]) * d, 0, 1);
}
static kr_status attention_fwd_call(struct lab *l, int s)
{
    struct kern_heads h = heads_of(l, s);

    return kern_attention_fwd(Q(l, s), M(l, s, 0), M(l, s, 1), M(l, s, 2), &h);
}

/* out and lse are what the reference's forward makes of qkv. */
static void attention_bwd_make(struct lab *l)
{
    int64_t rows, d;
    struct kern_heads h;

    attention_shape(l);
    rows = l->n[SEQUENCES] * l->n[SEQ];
    d = l->n[SIZE];
    lab_tensor(l, LAB_OUT, lab_type(l), rows, (l->n[HEADS] + 2 * l->n[KV]) * d, 0, 1);
    lab_tensor(l, LAB_OUT, lab_wide(l), l->n[HEADS], rows, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, l->n[HEADS] * d, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, (l->n[HEADS] + 2 * l->n[KV]) * d, 0, 1);
    lab_tensor(l, LAB_IN, lab_type(l), rows, l->n[HEADS] * d, 0, 1);
    lab_tensor(l, LAB_IN, lab_wide(l), l->n[HEADS], rows, 0, 1);
    h = heads_of(l, 1);
    lab_send(l, 1);
    (void)kern_attention_fwd(Q(l, 1), M(l, 1, 4), M(l, 1, 5), M(l, 1, 3), &h);
    lab_adopt(l, 4);
    lab_adopt(l, 5);
}
static kr_status attention_bwd_call(struct lab *l, int s)
{
    struct kern_heads h = heads_of(l, s);

    return kern_attention_bwd(Q(l, s), M(l, s, 0), M(l, s, 1), M(l, s, 2), M(l, s, 3),
                              M(l, s, 4), M(l, s, 5), &h);
}

/* n[0]: 0 no gradient, 1 in place, 2 beside */
static void cross_entropy_make(struct lab *l)
{
    static const int64_t by[] = { 1, 1, 30, 900 };
    int64_t rows = lab_dim(l), vocab = lab_dim(l) * by[lab_draw(l, 4)];

    if (vocab > 9000) rows = 1 + rows % 2;
    l->n[0] = lab_draw(l, 3);
    lab_ints(l, 0, rows, vocab, true);
    lab_tensor(l, LAB_OUT, lab_wide(l), 1, rows, 0, 1);
    lab_tensor(l, l->n[0] == 1 ? LAB_CHANGE : LAB_IN, lab_type(l), rows, vocab, 0, 3);
    if (l->n[0] == 2) lab_tensor(l, LAB_OUT, lab_type(l), rows, vocab, 0, 1);
    SHAPE(l, "N %lld V %lld", ll(rows), ll(vocab));
}
static kr_status cross_entropy_call(struct lab *l, int s)
{
    return kern_cross_entropy(Q(l, s), M(l, s, 0),
                              M(l, s, l->n[0] == 0 ? -1 : (int)l->n[0]), M(l, s, 1),
                              l->ints[0][s], 0.37);
}

/* ---- sums, optimizer ------------------------------------------------------------------ */

static void sum_make(struct lab *l)
{
    lab_tensor(l, LAB_OUT, KERN_F64, 1, 1, 0, 1);
    lab_tensor(l, LAB_IN, lab_wide(l), 1, lab_dim(l) * lab_dim(l), 1, 1);
    SHAPE(l, "%lld", ll(l->t[1].cols));
}
static kr_status sum_call(struct lab *l, int s)
{
    return kern_sum(Q(l, s), M(l, s, 0).at, M(l, s, 1));
}

static void sumsq_make(struct lab *l)
{
    int64_t n = lab_dim(l) * lab_dim(l);

    lab_tensor(l, LAB_OUT, KERN_F64, 1, (n + KERN_SUM_BLOCK - 1) / KERN_SUM_BLOCK, 0, 1);
    lab_tensor(l, LAB_IN, lab_wide(l), 1, n, 0, 1);
    SHAPE(l, "%lld", ll(n));
}
static kr_status sumsq_call(struct lab *l, int s)
{
    return kern_sumsq(Q(l, s), M(l, s, 0).at, M(l, s, 1));
}

/* bf16 and odd lengths, so that the last word is short and words begin anywhere. */
static void checksum_make(struct lab *l)
{
    int64_t n = lab_dim(l) * lab_dim(l);

    lab_tensor(l, LAB_BITS, KERN_F64, 1, 1, 0, 1);
    lab_tensor(l, LAB_IN, lab_flip(l) ? lab_type(l) : lab_wide(l), 1, n, 0, 1);
    SHAPE(l, "%lld", ll(n));
}
static kr_status checksum_call(struct lab *l, int s)
{
    return kern_checksum(Q(l, s), M(l, s, 0).at, M(l, s, 1));
}

static void adamw_make(struct lab *l)
{
    int64_t n = lab_dim(l) * lab_dim(l);
    bool half = lab_wide(l) == KERN_F32;
    enum kern_dtype moments = half && lab_flip(l) ? KERN_BF16 : lab_wide(l);

    l->n[0] = lab_type(l) != lab_wide(l) && lab_flip(l);
    l->n[4] = lab_draw(l, 100);
    lab_tensor(l, LAB_CHANGE, lab_wide(l), 1, n, 0, 1);
    lab_tensor(l, LAB_CHANGE, moments, 1, n, 0, 0.1);
    lab_tensor(l, LAB_CHANGE, moments, 1, n, 2, 0.1);
    lab_tensor(l, LAB_IN, half && lab_flip(l) ? KERN_BF16 : lab_wide(l), 1, n, 0, 1);
    if (l->n[0]) lab_tensor(l, LAB_OUT, lab_type(l), 1, n, 0, 1);
    SHAPE(l, "%lld from number %lld", ll(n), ll(l->n[4]));
}
static kr_status adamw_call(struct lab *l, int s)
{
    struct kern_adamw p = { .lr = 1e-2,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .weight_decay = 0.1,
                            .correct1 = 0.19,
                            .correct2 = 0.0975,
                            .grad_scale = 0.7,
                            .round = round_of(l) };

    return kern_adamw(Q(l, s), M(l, s, 0), M(l, s, 1), M(l, s, 2), M(l, s, 3),
                      M(l, s, l->n[0] ? 4 : -1), &p);
}

/* Tolerances.  bf16: half a unit in the last place is 2e-3, and two roundings of nearly
 * equal numbers may fall apart by one; what passes through a bf16 intermediate (weights of
 * attention) loses as much again.  fp32: sums of up to 2000 terms in another order. */
const struct lab_case lab_cases[] = {
    { "fill", fill_make, fill_call, 0, 0, false },
    { "copy", copy_make, copy_call, 0, 0, false },
    { "add", add_make, add_call, 0, 0, false },
    { "scale", scale_make, scale_call, 0, 0, false },
    { "add_round", add_round_make, add_round_call, 0, 0, false },
    { "linear_fwd", linear_fwd_make, linear_fwd_call, 3e-3, 1e-6, true },
    { "linear_bwd_x", linear_bwd_x_make, linear_bwd_x_call, 3e-3, 1e-6, true },
    { "linear_bwd_w", linear_bwd_w_make, linear_bwd_w_call, 1e-5, 1e-6, true },
    { "embed_fwd", embed_fwd_make, embed_fwd_call, 0, 0, false },
    { "embed_bwd", embed_bwd_make, embed_bwd_call, 1e-6, 1e-6, false },
    { "norm_fwd", norm_fwd_make, norm_fwd_call, 3e-3, 2e-6, false },
    { "norm_bwd", norm_bwd_make, norm_bwd_call, 3e-3, 2e-6, false },
    { "act_fwd", act_fwd_make, act_fwd_call, 3e-3, 1e-6, false },
    { "linear_act_fwd", linear_act_fwd_make, linear_act_fwd_call, 3e-3, 1e-6, true },
    { "act_bwd", act_bwd_make, act_bwd_call, 3e-3, 1e-6, false },
    { "rope", rope_make, rope_call, 3e-3, 1e-6, false },
    { "attention_fwd", attention_fwd_make, attention_fwd_call, 5e-3, 3e-6, true },
    { "attention_bwd", attention_bwd_make, attention_bwd_call, 1e-2, 1e-5, true },
    { "cross_entropy", cross_entropy_make, cross_entropy_call, 3e-3, 2e-6, false },
    { "sum", sum_make, sum_call, 1e-12, 1e-12, false },
    { "sumsq", sumsq_make, sumsq_call, 1e-12, 1e-12, false },
    { "checksum", checksum_make, checksum_call, 0, 0, false },
    { "adamw", adamw_make, adamw_call, 0, 0, false },
    { 0 },
};
