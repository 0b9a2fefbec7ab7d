/*
 * kernels.h - the operations of a transformer, for one device.
 *
 * Every tensor is a matrix view: rows are tokens, columns are channels, heads are a way
 * to read columns.  Letters in shapes: N tokens (sequences times their length), T length
 * of a sequence, C channels, V vocabulary, F width of the MLP, H query heads, K key/value
 * heads, D head size.
 *
 * All operations are [queued] on q.  The front doors below check types and shapes once
 * (KR_ERR_ARG, one line, nothing enqueued) and call the table of q's device; entries
 * of the table trust their arguments.  A view with at == NULL means "there is none": a
 * missing bias, a gradient nobody wants.
 *
 * Types: device.h has the rule.  Unless said otherwise, matrices are of the device's
 * `type`; "wide" marks those of its wide type.  Sums are formed in the wide type and
 * rounded once, to nearest even, where they are stored narrower.
 *
 * Unless said otherwise, outputs may not overlap inputs.  `add`: false overwrites the
 * output, true adds to what is there.
 *
 * The same input gives the same bits, on any number of threads: every sum has one order,
 * fixed by the shapes.  docs/numerics.md says which order.
 */
#ifndef KERN_KERNELS_H
#define KERN_KERNELS_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A view; owns nothing.  ld: elements from one row to the next, >= cols. */
struct kern_mat {
    void *at;
    int64_t rows, cols, ld;
    enum kern_dtype type;
};

enum kern_norm { KERN_LAYERNORM, KERN_RMSNORM };
enum kern_act { KERN_GELU_TANH, KERN_SWIGLU };
enum kern_pairing { KERN_ROPE_HALF, KERN_ROPE_INTERLEAVED };
enum { KERN_IGNORE = -100 };    /* a label that carries no loss */
enum { KERN_SUM_BLOCK = 4096 }; /* elements, see kern_sumsq */

/* How rows of qkv (N, (H + 2K) D) are read: H query heads, then K key heads, then K value
 * heads; query head h uses key/value head h / (H / K).  N = whole sequences of T rows. */
struct kern_heads {
    int64_t heads, kv_heads, head_dim, seq;
    double scale;        /* of the scores, 1 / sqrt(D) */
    const float *slopes; /* device, (H), ALiBi: scores += slope * (j - i); or NULL */
    /* Device, (N): the first row that each row sees, that is the start of its document;
     * inside the row's sequence, not after the row, never less than that of the row
     * before.  NULL: the first row of its sequence. */
    const int32_t *start;
    /* Forward only: rows of a sequence before this one are there as keys and values; their
     * out and lse need not be made and are unspecified. */
    int64_t first;
};

/* Stochastic rounding to bf16, as bf16_round_row (base/bf16.h): the bits depend on the
 * numbers of the elements, not on who owns them. */
struct kern_round {
    uint64_t key;
    uint32_t sub;
    int64_t first; /* number of element 0 */
};

struct kern_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    double correct1, correct2; /* 1 - beta1^t, 1 - beta2^t */
    double grad_scale;         /* multiplies every gradient: clipping, token count */
    struct kern_round round;   /* of m where it is bf16; of v, with sub + 1 */
};

static inline struct kern_mat kern_mat(void *at, int64_t rows, int64_t cols,
                                       enum kern_dtype type)
{
    struct kern_mat m = { at, rows, cols, cols, type };

    return m;
}

static const struct kern_mat kern_none = { 0 };

/* Views into a view. */
struct kern_mat kern_rows(struct kern_mat m, int64_t first, int64_t count);
struct kern_mat kern_cols(struct kern_mat m, int64_t first, int64_t count);

/* y (N, C) = value.  y: type, wide or bf16. */
kr_status kern_fill(struct kern_queue *q, struct kern_mat y, double value);

/* y (N, C) = x, rounded to nearest even where y is narrower.  Both: type, wide or bf16. */
kr_status kern_copy(struct kern_queue *q, struct kern_mat y, struct kern_mat x);

/* y = a + b, all (N, C) and of one type, which may be wide; y may be a or b. */
kr_status kern_add(struct kern_queue *q, struct kern_mat y, struct kern_mat a,
                   struct kern_mat b);

/* y (N, C) = s x, of the device's type; y may be x. */
kr_status kern_scale(struct kern_queue *q, struct kern_mat y, struct kern_mat x,
                     double s);

/* y (1, n) bf16 = a + b, summed in fp32 and rounded by chance.  a may be none (0) or y; b
 * may be y; both wide or bf16.  Not on devices whose wide type is fp64. */
kr_status kern_add_round(struct kern_queue *q, struct kern_mat y, struct kern_mat a,
                         struct kern_mat b, const struct kern_round *r);

/*
 * y = onto + x w^T + b:   y (N, O)  x (N, I)  w (O, I)  b (1, O) or none;
 * onto (N, O), y itself or another (a residual), or none.
 */
kr_status kern_linear_fwd(struct kern_queue *q, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, struct kern_mat onto);

/* dx (N, I) [+]= dy (N, O) w (O, I). */
kr_status kern_linear_bwd_x(struct kern_queue *q, struct kern_mat dx, struct kern_mat dy,
                            struct kern_mat w, bool add);

/* dw (O, I) wide [+]= dy^T x;  db (1, O) wide or none [+]= sum of the rows of dy, in
 * order. */
kr_status kern_linear_bwd_w(struct kern_queue *q, struct kern_mat dw, struct kern_mat db,
                            struct kern_mat dy, struct kern_mat x, bool add);

/*
 * x (N, C) = wte (V, C) row token[n] + wpe (P, C) row p(n), wpe may be none.
 * token: device, N of int32, each in 0 .. V-1 (the caller has checked).  T <= P.
 * start: as in struct kern_heads.  p(n) = n - start[n], or n mod T if it is NULL.
 */
kr_status kern_embed_fwd(struct kern_queue *q, struct kern_mat x, const int32_t *token,
                         struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                         const int32_t *start);

/* dwte[token[n]] += dx[n], in the order of n; dwpe[p(n)] [+]= dx[n] in the order of n.
 * dwte, dwpe wide.  `add` as above; false clears them first. */
kr_status kern_embed_bwd(struct kern_queue *q, struct kern_mat dwte, struct kern_mat dwpe,
                         const int32_t *token, struct kern_mat dx, int64_t seq,
                         const int32_t *start, bool add);

/*
 * Row by row:  LayerNorm  y = (x - mean) * r * w + b,  r = 1 / sqrt(var + eps)
 *              RMSNorm    y = x * r * w,               r = 1 / sqrt(mean(x^2) + eps)
 * stats (2, N) wide: mean (LayerNorm only) and r, kept for the backward.  w, b (1, C); b may
 * be none.
 */
kr_status kern_norm_fwd(struct kern_queue *q, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps);

/*
 * With xh = (x - mean) r and g = dy * w:
 *   LayerNorm  dx [+]= r (g - mean(g) - xh mean(g xh))
 *   RMSNorm    dx [+]= r (g - xh mean(g xh))          (mean = 0)
 *   dw [+]= sum of the rows of dy xh;  db [+]= sum of the rows of dy; in row order;
 * both wide; without dw only dx is made.
 * add_dx and add_dw as `add`.  dx may be dy.
 */
kr_status kern_norm_bwd(struct kern_queue *q, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats);

/*
 * GELU_TANH  y = u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3)))     u (N, F)   y (N, F)
 * SWIGLU     y = silu(gate) * up;  u = [gate | up]                 u (N, 2F)  y (N, F)
 */
kr_status kern_act_fwd(struct kern_queue *q, enum kern_act kind, struct kern_mat y,
                       struct kern_mat u);
/* u = x w^T + b, and y = act(u): kern_linear_fwd and kern_act_fwd in one; the backward
 * wants u.  w (columns of u, I). */
kr_status kern_linear_act_fwd(struct kern_queue *q, enum kern_act kind, struct kern_mat y,
                              struct kern_mat u, struct kern_mat x, struct kern_mat w,
                              struct kern_mat b);
/* du of the shape of u; du may be u itself. */
kr_status kern_act_bwd(struct kern_queue *q, enum kern_act kind, struct kern_mat du,
                       struct kern_mat dy, struct kern_mat u);

/*
 * Rotate `heads` heads of size D that lie side by side in x (N, heads * D), in place.
 * Row n has position n mod T.  table (T, R) wide: cos of R/2 angles, then sin; the first R
 * dims of each head turn, the rest stays.  Pair (a, b) -> (a cos - b sin, b cos + a sin),
 * a and b are dims (i, i + R/2) for HALF, (2i, 2i + 1) for INTERLEAVED.  `inverse` turns
 * back: the backward.
 */
kr_status kern_rope(struct kern_queue *q, struct kern_mat x, struct kern_mat table,
                    int64_t heads, int64_t head_dim, int64_t seq,
                    enum kern_pairing pairing, bool inverse);

/*
 * Causal attention, tiled, with online softmax; no T x T matrix is ever stored.  Row i sees
 * rows start[i] .. i of its sequence; tiles that no row sees are not computed.
 *   out (N, H D)   lse (H, N) wide: log of the sum of exp(scores), for the backward
 *   qkv (N, (H + 2K) D)
 */
kr_status kern_attention_fwd(struct kern_queue *q, struct kern_mat out,
                             struct kern_mat lse, struct kern_mat qkv,
                             const struct kern_heads *h);

/*
 * With P = exp(scores - lse), Delta_i = dout_i . out_i, dS = P (dout V^T - Delta):
 *   dV = P^T dout   dQ = scale dS K   dK = scale dS^T Q
 * dK and dV sum over the H / K query heads of a group, in order.
 *   dqkv as qkv, overwritten   delta (H, N) wide, scratch   dout, out (N, H D)
 */
kr_status kern_attention_bwd(struct kern_queue *q, struct kern_mat dqkv,
                             struct kern_mat delta, struct kern_mat dout,
                             struct kern_mat qkv, struct kern_mat out,
                             struct kern_mat lse, const struct kern_heads *h);

/*
 * Per row n: loss[n] = log sum exp(logits[n]) - logits[n, label[n]], 0 where label[n] is
 * KERN_IGNORE; dlogits[n] = grad_scale * (softmax - one hot), 0 where ignored.
 *   loss (1, N) wide   dlogits (N, V) or none, may be logits   label: device, N of int32
 */
kr_status kern_cross_entropy(struct kern_queue *q, struct kern_mat loss,
                             struct kern_mat dlogits, struct kern_mat logits,
                             const int32_t *label, double grad_scale);

/* out[0] (device, double) = sum of x (1, n) wide, pairwise over fixed blocks. */
kr_status kern_sum(struct kern_queue *q, double *out, struct kern_mat x);

/* out[i] (device, doubles) = sum of squares of elements i * KERN_SUM_BLOCK ... of x
 * (1, n), wide or bf16; the last block may be short.  Blocks lie at fixed places, so whoever owns
 * whole blocks computes the same numbers.  NaN and inf come through. */
kr_status kern_sumsq(struct kern_queue *q, double *out, struct kern_mat x);

/*
 * out[0] (device) = the sum modulo 2^64, over the 8-byte words w[i] of x (1, n), of any
 * type of the device, the last word filled up with zeros, of
 *   f(y) = y ^ y >> 32 after twice y = (y ^ y >> 32) 0xd6e8feb86659fd93,
 *   y = w[i] + (i + 1) 0x9e3779b97f4a7c15
 * To compare arrays that should hold the same bits, without moving them.  For each i a word
 * has a number of its own, so a change within one word always shows; other changes, also of
 * places, are missed once in 2^64.  Sums of integers have no order, so any device makes it
 * in parallel; XXH3 (base/hash.h), which names what is stored, mixes each KiB into the
 * state of all before, so it does not come in parts.
 */
kr_status kern_checksum(struct kern_queue *q, uint64_t *out, struct kern_mat x);

/*
 * AdamW (Loshchilov, Hutter 2019), in place, element by element:
 *   g' = g grad_scale   m = b1 m + (1 - b1) g'   v = b2 v + (1 - b2) g'^2
 *   w -= lr (m / correct1 / (sqrt(v / correct2) + eps) + weight_decay w)
 * w, m, v, g (1, n).  w wide: the master weights.  m and v: both wide, or both bf16 and
 * then rounded by chance after w has used what was rounded away.  g wide or bf16.
 * copy (1, n), of the device's type, or none: also gets the new w, rounded to nearest
 * even; none where the type is the wide one.
 */
kr_status kern_adamw(struct kern_queue *q, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                     const struct kern_adamw *p);

/*
 * One table per back end.  Entries have the meaning of the front doors above.  Entries
 * marked opt may be NULL; the front door then composes them from others.
 */
struct kern_ops {
    const char *name;
    kr_status (*fill)(void *stream, struct kern_mat y, double value);
    kr_status (*copy)(void *stream, struct kern_mat y, struct kern_mat x);
    kr_status (*add)(void *stream, struct kern_mat y, struct kern_mat a,
                     struct kern_mat b);
    kr_status (*scale)(void *stream, struct kern_mat y, struct kern_mat x, double s);
    kr_status (*add_round)(void *stream, struct kern_mat y, struct kern_mat a,
                           struct kern_mat b, const struct kern_round *r);
    /* c (M, N) [+]= op(a) op(b); ta: a is (K, M), read transposed; tb: b is (N, K);
     * c of the device's type or wide */
    kr_status (*matmul)(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                        struct kern_mat b, bool tb, bool add);
    kr_status (*sum_rows)(void *stream, struct kern_mat db, struct kern_mat dy, bool add);
    kr_status (*linear_fwd)(void *stream, struct kern_mat y, struct kern_mat x,
                            struct kern_mat w, struct kern_mat b, struct kern_mat onto);
    kr_status (*embed_fwd)(void *stream, struct kern_mat x, const int32_t *token,
                           struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                           const int32_t *start);
    kr_status (*embed_bwd)(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                           const int32_t *token, struct kern_mat dx, int64_t seq,
                           const int32_t *start);
    kr_status (*norm_fwd)(void *stream, enum kern_norm kind, struct kern_mat y,
                          struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                          struct kern_mat b, double eps);
    kr_status (*norm_bwd)(void *stream, enum kern_norm kind, struct kern_mat dx,
                          bool add_dx, struct kern_mat dw, struct kern_mat db,
                          bool add_dw, struct kern_mat dy, struct kern_mat x,
                          struct kern_mat w, struct kern_mat stats);
    kr_status (*act_fwd)(void *stream, enum kern_act kind, struct kern_mat y,
                         struct kern_mat u);
    /* opt: linear_fwd and act_fwd in one */
    kr_status (*linear_act_fwd)(void *stream, enum kern_act kind, struct kern_mat y,
                                struct kern_mat u, struct kern_mat x, struct kern_mat w,
                                struct kern_mat b);
    kr_status (*act_bwd)(void *stream, enum kern_act kind, struct kern_mat du,
                         struct kern_mat dy, struct kern_mat u);
    kr_status (*rope)(void *stream, struct kern_mat x, struct kern_mat table,
                      int64_t heads, int64_t head_dim, int64_t seq,
                      enum kern_pairing pairing, bool inverse);
    kr_status (*attention_fwd)(void *stream, struct kern_mat out, struct kern_mat lse,
                               struct kern_mat qkv, const struct kern_heads *h);
    kr_status (*attention_bwd)(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                               struct kern_mat dout, struct kern_mat qkv,
                               struct kern_mat out, struct kern_mat lse,
                               const struct kern_heads *h);
    kr_status (*cross_entropy)(void *stream, struct kern_mat loss,
                               struct kern_mat dlogits, struct kern_mat logits,
                               const int32_t *label, double grad_scale);
    kr_status (*sum)(void *stream, double *out, struct kern_mat x);
    kr_status (*sumsq)(void *stream, double *out, struct kern_mat x);
    kr_status (*checksum)(void *stream, uint64_t *out, struct kern_mat x);
    kr_status (*adamw)(void *stream, struct kern_mat w, struct kern_mat m,
                       struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                       const struct kern_adamw *p);
};

#ifdef __cplusplus
}
#endif
#endif
