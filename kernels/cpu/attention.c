/*
 * attention.c - causal attention in tiles, with online softmax (Dao et al. 2022).
 *
 * A tile is QUERIES x KEYS scores.  Forward: for a block of queries, walk over the blocks
 * of keys it may see; keep per row the running maximum and sum, and rescale what was
 * gathered when the maximum grows.  Backward: for a block of keys, walk over the blocks
 * of queries that see it and over the query heads of its group, in order, so dK and dV
 * have one order of summation; dQ gathers over blocks of keys, in order.  Tiles that lie
 * before the documents of all their rows are skipped, so packed documents cost what they
 * would cost alone.
 *
 * Pieces for threads: (sequence, query head) forward, (sequence, key/value head)
 * backward.  The small products are calls of the matrix library on strided views.
 * Scratch: one tile per thread forward, two backward.
 */
#include <stdlib.h>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/ops.h"

enum { QUERIES = 64, KEYS = 64, TILE = QUERIES * KEYS };

/* Where one head of one sequence lies. */
struct head {
    const real *q, *k, *v;
    int64_t ld; /* of q, k, v */
    int64_t seq, dim;
    real scale, slope;    /* slope 0: no ALiBi */
    const int32_t *start; /* of the sequence, or NULL */
    int64_t base;         /* row of position 0: starts count from row 0 */
};

static struct head head_of(struct kern_mat qkv, const struct kern_heads *h,
                           int64_t seq_no, int64_t head)
{
    int64_t group = h->heads / h->kv_heads, d = h->head_dim;
    const real *at = row(qkv, seq_no * h->seq);

    return (struct head){
        .q = at + head * d,
        .k = at + (h->heads + head / group) * d,
        .v = at + (h->heads + h->kv_heads + head / group) * d,
        .ld = qkv.ld,
        .seq = h->seq,
        .dim = d,
        .scale = (real)h->scale,
        .slope = h->slopes ? (real)h->slopes[head] : 0,
        .start = h->start ? h->start + seq_no * h->seq : NULL,
        .base = seq_no * h->seq,
    };
}

/* Position of the first key that query i sees. */
static int64_t first_seen(const struct head *h, int64_t i)
{
    return h->start ? h->start[i] - h->base : 0;
}

static int64_t within(int64_t x, int64_t most) { return x < 0 ? 0 : x < most ? x : most; }

/* s (n, m) = scale q k^T + slope (j - i), -inf above the diagonal and before the row's
 * document.  i, j: positions of the first query and key. */
static void scores(real *s, const struct head *h, int64_t i, int64_t n, int64_t j,
                   int64_t m)
{
    CPU(gemm)
    (false, true, n, m, h->dim, h->scale, h->q + i * h->ld, h->ld, h->k + j * h->ld,
     h->ld, 0, s, KEYS);
    for (int64_t y = 0; y < n; y++) {
        /* the keys of this tile that row y may see */
        int64_t begin = within(first_seen(h, i + y) - j, m),
                end = within(i + y - j + 1, m);

        if (h->slope != 0)
            for (int64_t x = 0; x < m; x++)
                s[y * KEYS + x] += h->slope * (real)(j + x - i - y);
        for (int64_t x = 0; x < begin; x++)
            s[y * KEYS + x] = -(real)INFINITY;
        for (int64_t x = end; x < m; x++)
            s[y * KEYS + x] = -(real)INFINITY;
    }
}

/* One row of a tile: fold its scores into (most, sum), turn them into weights, and
 * rescale what was gathered so far. */
static void soften(real *s, real *out, real *most, real *sum, int64_t m, int64_t dim)
{
    real top = *most, total = 0, shrink;

#pragma omp simd reduction(max : top)
    for (int64_t x = 0; x < m; x++)
        top = s[x] > top ? s[x] : top;
    shrink = exp_real(*most - top);
#pragma omp simd reduction(+ : total)
    for (int64_t x = 0; x < m; x++) {
        s[x] = exp_real(s[x] - top);
        total += s[x];
    }
    *sum = *sum * shrink + total;
    *most = top;
    if (shrink == 1) return;
#pragma omp simd
    for (int64_t c = 0; c < dim; c++)
        out[c] *= shrink;
}

/* Queries i .. i + n of one head.  out: first row of the result, ld apart. */
static void forward_block(const struct head *h, int64_t i, int64_t n, real *out,
                          int64_t ld, real *lse)
{
    real s[TILE], most[QUERIES], sum[QUERIES];

    for (int64_t y = 0; y < n; y++) {
        most[y] = -(real)INFINITY;
        sum[y] = 0;
        memset(out + y * ld, 0, (size_t)h->dim * sizeof(real));
    }
    for (int64_t j = first_seen(h, i) / KEYS * KEYS; j < i + n; j += KEYS) {
        int64_t m = i + n - j < KEYS ? i + n - j : KEYS;

        scores(s, h, i, n, j, m);
        for (int64_t y = 0; y < n; y++)
            if (first_seen(h, i + y) < j + m)
                soften(s + y * KEYS, out + y * ld, &most[y], &sum[y], m, h->dim);
            else /* nothing to see here; by position, so that a NaN is no mask */
                memset(s + y * KEYS, 0, (size_t)m * sizeof *s);
        CPU(gemm)
        (false, false, n, h->dim, m, 1, s, KEYS, h->v + j * h->ld, h->ld, 1, out, ld);
    }
    for (int64_t y = 0; y < n; y++) {
        for (int64_t c = 0; c < h->dim; c++)
            out[y * ld + c] /= sum[y];
        lse[y] = most[y] + (real)log((double)sum[y]);
    }
}

kr_status CPU(attention_fwd)(void *stream, struct kern_mat out, struct kern_mat lse,
                             struct kern_mat qkv, const struct kern_heads *h)
{
    int64_t sequences = out.rows / h->seq;

#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(host_threads(stream))
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t n = 0; n < h->heads; n++) {
            struct head head = head_of(qkv, h, b, n);

            for (int64_t i = h->first; i < h->seq; i += QUERIES)
                forward_block(&head, i, h->seq - i < QUERIES ? h->seq - i : QUERIES,
                              row(out, b * h->seq + i) + n * h->head_dim, out.ld,
                              row(lse, n) + b * h->seq + i);
        }
    return KR_OK;
}

/* Gradients of one query head against one block of keys. */
struct back {
    const real *dout, *lse, *delta; /* of the head, from position 0 */
    real *dq, *dk, *dv;
    int64_t ld_out, ld; /* of dout; of dq, dk, dv */
};

static void backward_tile(const struct head *h, const struct back *g, int64_t i,
                          int64_t n, int64_t j, int64_t m)
{
    real p[TILE], dp[TILE];
    const real *dout = g->dout + i * g->ld_out;

    scores(p, h, i, n, j, m);
    CPU(gemm)
    (false, true, n, m, h->dim, 1, dout, g->ld_out, h->v + j * h->ld, h->ld, 0, dp, KEYS);
    for (int64_t y = 0; y < n; y++) {
        real lse = g->lse[i + y], delta = g->delta[i + y];

#pragma omp simd
        for (int64_t x = 0; x < m; x++) {
            real w = exp_real(p[y * KEYS + x] - lse);

            p[y * KEYS + x] = w;
            dp[y * KEYS + x] = h->scale * w * (dp[y * KEYS + x] - delta);
        }
    }
    CPU(gemm)
    (true, false, m, h->dim, n, 1, p, KEYS, dout, g->ld_out, 1, g->dv + j * g->ld, g->ld);
    CPU(gemm)
    (true, false, m, h->dim, n, 1, dp, KEYS, h->q + i * h->ld, h->ld, 1,
     g->dk + j * g->ld, g->ld);
    CPU(gemm)
    (false, false, n, h->dim, m, 1, dp, KEYS, h->k + j * h->ld, h->ld, 1,
     g->dq + i * g->ld, g->ld);
}

/* One key/value head of one sequence with the query heads of its group. */
static void backward_group(struct kern_mat dqkv, struct kern_mat delta,
                           struct kern_mat dout, struct kern_mat qkv, struct kern_mat lse,
                           const struct kern_heads *h, int64_t b, int64_t kv)
{
    int64_t group = h->heads / h->kv_heads, d = h->head_dim;
    real *base = row(dqkv, b * h->seq);

    for (int64_t j = 0; j < h->seq; j += KEYS)
        for (int64_t n = kv * group; n < (kv + 1) * group; n++) {
            struct head head = head_of(qkv, h, b, n);
            struct back g = {
                row(dout, b * h->seq) + n * d,
                row(lse, n) + b * h->seq,
                row(delta, n) + b * h->seq,
                base + n * d,
                base + (h->heads + kv) * d,
                base + (h->heads + h->kv_heads + kv) * d,
                dout.ld,
                dqkv.ld,
            };
            int64_t m = h->seq - j < KEYS ? h->seq - j : KEYS;

            for (int64_t i = j / QUERIES * QUERIES;
                 i < h->seq && first_seen(&head, i) < j + m; i += QUERIES)
                backward_tile(&head, &g, i, h->seq - i < QUERIES ? h->seq - i : QUERIES,
                              j, m);
        }
}

/* delta[n, i] = dout . out over the channels of head n. */
static void dot_rows(struct kern_mat delta, struct kern_mat dout, struct kern_mat out,
                     const struct kern_heads *h, int64_t i)
{
    for (int64_t n = 0; n < h->heads; n++) {
        const real *a = row(dout, i) + n * h->head_dim,
                   *b = row(out, i) + n * h->head_dim;
        real sum = 0;

#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < h->head_dim; c++)
            sum += a[c] * b[c];
        row(delta, n)[i] = sum;
    }
}

kr_status CPU(attention_bwd)(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                             struct kern_mat dout, struct kern_mat qkv,
                             struct kern_mat out, struct kern_mat lse,
                             const struct kern_heads *h)
{
    int64_t sequences = out.rows / h->seq;

    TRY(CPU(fill)(stream, dqkv, 0));
#pragma omp parallel for num_threads(team(stream, out.rows *out.cols))
    for (int64_t i = 0; i < out.rows; i++)
        dot_rows(delta, dout, out, h, i);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(host_threads(stream))
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t kv = 0; kv < h->kv_heads; kv++)
            backward_group(dqkv, delta, dout, qkv, lse, h, b, kv);
    return KR_OK;
}
