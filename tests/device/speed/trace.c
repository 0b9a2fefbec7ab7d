/* trace.c - a table of operations around that of the GPU; takes the place of devices.c. */
#include "tests/device/speed/trace.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/backend.h"

enum { ROWS = 32 };

static struct kern_backend gpu, gpu32; /* those of the library, with our table at times */
static const struct kern_ops *real;
static struct trace_row rows[ROWS];
static int count;

const struct kern_backend *const kern_backends[] = { &gpu, &gpu32, &kern_cpu_backend,
                                                     &kern_cpu16_backend, NULL };

/* ---- rows ----------------------------------------------------------------------------- */

static struct trace_row *row_of(const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(rows[i].name, name) == 0) return &rows[i];
    if (count == ROWS) abort();
    rows[count] = (struct trace_row){ .name = name };
    return &rows[count++];
}

static double begin(void *stream)
{
    (void)gpu.sync(stream);
    return clock_now();
}

static kr_status end(void *stream, kr_status st, double start, const char *name,
                     double flops, double bytes)
{
    struct trace_row *r = row_of(name);

    (void)gpu.sync(stream);
    r->calls++;
    r->seconds += clock_now() - start;
    r->flops += flops;
    r->bytes += bytes;
    return st;
}

static double size(struct kern_mat m)
{
    return m.at ? (double)m.rows * (double)m.cols * (double)kern_dtype_bytes(m.type) : 0;
}

/* Once more if it is added to. */
static double written(struct kern_mat m, bool add) { return (add ? 2 : 1) * size(m); }

#define TRACE(name, flops, bytes, entry, ...)                                   \
    do {                                                                        \
        double start_ = begin(s);                                               \
        return end(s, real->entry(s, __VA_ARGS__), start_, name, flops, bytes); \
    } while (0)

/* ---- the table ------------------------------------------------------------------------ */

static kr_status t_fill(void *s, struct kern_mat y, double value)
{
    TRACE("fill", 0, size(y), fill, y, value);
}
static kr_status t_copy(void *s, struct kern_mat y, struct kern_mat x)
{
    TRACE("copy", 0, size(y) + size(x), copy, y, x);
}
static kr_status t_add(void *s, struct kern_mat y, struct kern_mat a, struct kern_mat b)
{
    TRACE("add", 0, size(y) + size(a) + size(b), add, y, a, b);
}
static kr_status t_scale(void *s, struct kern_mat y, struct kern_mat x, double by)
{
    TRACE("scale", 0, size(y) + size(x), scale, y, x, by);
}
static kr_status t_add_round(void *s, struct kern_mat y, struct kern_mat a,
                             struct kern_mat b, const struct kern_round *r)
{
    TRACE("add", 0, size(y) + size(a) + size(b), add_round, y, a, b, r);
}

static double product(struct kern_mat c, int64_t inner)
{
    return 2.0 * (double)c.rows * (double)c.cols * (double)inner;
}

static kr_status t_matmul(void *s, struct kern_mat c, struct kern_mat a, bool ta,
                          struct kern_mat b, bool tb, bool add)
{
    TRACE(ta ? "product, weight gradient" : "product, data gradient",
          product(c, ta ? a.rows : a.cols), size(a) + size(b) + written(c, add), matmul,
          c, a, ta, b, tb, add);
}
static kr_status t_linear_fwd(void *s, struct kern_mat y, struct kern_mat x,
                              struct kern_mat w, struct kern_mat b, struct kern_mat onto)
{
    TRACE("product, forward", product(y, x.cols),
          size(x) + size(w) + size(y) + size(onto), linear_fwd, y, x, w, b, onto);
}
static kr_status t_sum_rows(void *s, struct kern_mat db, struct kern_mat dy, bool add)
{
    TRACE("bias gradient", 0, size(dy), sum_rows, db, dy, add);
}
static kr_status t_embed_fwd(void *s, struct kern_mat x, const int32_t *token,
                             struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                             const int32_t *start)
{
    TRACE("embedding", 0, 2 * size(x), embed_fwd, x, token, wte, wpe, seq, start);
}
static kr_status t_embed_bwd(void *s, struct kern_mat dwte, struct kern_mat dwpe,
                             const int32_t *token, struct kern_mat dx, int64_t seq,
                             const int32_t *start)
{
    TRACE("embedding backward", 0, 3 * size(dx), embed_bwd, dwte, dwpe, token, dx, seq,
          start);
}
static kr_status t_norm_fwd(void *s, enum kern_norm kind, struct kern_mat y,
                            struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                            struct kern_mat b, double eps)
{
    TRACE("norm", 0, size(y) + size(x), norm_fwd, kind, y, stats, x, w, b, eps);
}
static kr_status t_norm_bwd(void *s, enum kern_norm kind, struct kern_mat dx, bool add_dx,
                            struct kern_mat dw, struct kern_mat db, bool add_dw,
                            struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                            struct kern_mat stats)
{
    TRACE("norm backward", 0, written(dx, add_dx) + size(dy) + size(x), norm_bwd, kind,
          dx, add_dx, dw, db, add_dw, dy, x, w, stats);
}
static kr_status t_act_fwd(void *s, enum kern_act kind, struct kern_mat y,
                           struct kern_mat u)
{
    TRACE("activation", 0, size(y) + size(u), act_fwd, kind, y, u);
}
static kr_status t_linear_act_fwd(void *s, enum kern_act kind, struct kern_mat y,
                                  struct kern_mat u, struct kern_mat x, struct kern_mat w,
                                  struct kern_mat b)
{
    TRACE("product with activation", product(u, x.cols),
          size(x) + size(w) + size(u) + size(y), linear_act_fwd, kind, y, u, x, w, b);
}
static kr_status t_act_bwd(void *s, enum kern_act kind, struct kern_mat du,
                           struct kern_mat dy, struct kern_mat u)
{
    TRACE("activation backward", 0, size(du) + size(dy) + size(u), act_bwd, kind, du, dy,
          u);
}
static kr_status t_rope(void *s, struct kern_mat x, struct kern_mat table, int64_t heads,
                        int64_t head_dim, int64_t seq, enum kern_pairing pairing,
                        bool inverse)
{
    TRACE("rope", 0, 2 * size(x), rope, x, table, heads, head_dim, seq, pairing, inverse);
}

/* Two products over half of T x T. */
static double scores(struct kern_mat out, const struct kern_heads *h)
{
    return 2.0 * (double)out.rows * (double)out.cols * (double)h->seq;
}

static kr_status t_attention_fwd(void *s, struct kern_mat out, struct kern_mat lse,
                                 struct kern_mat qkv, const struct kern_heads *h)
{
    TRACE("attention", scores(out, h), size(out) + size(qkv), attention_fwd, out, lse,
          qkv, h);
}
static kr_status t_attention_bwd(void *s, struct kern_mat dqkv, struct kern_mat delta,
                                 struct kern_mat dout, struct kern_mat qkv,
                                 struct kern_mat out, struct kern_mat lse,
                                 const struct kern_heads *h)
{
    TRACE("attention backward", 2.5 * scores(out, h),
          size(dqkv) + size(qkv) + size(dout) + size(out), attention_bwd, dqkv, delta,
          dout, qkv, out, lse, h);
}
static kr_status t_cross_entropy(void *s, struct kern_mat loss, struct kern_mat dlogits,
                                 struct kern_mat logits, const int32_t *label,
                                 double grad_scale)
{
    TRACE("cross entropy", 0, size(logits) + size(dlogits), cross_entropy, loss, dlogits,
          logits, label, grad_scale);
}
static kr_status t_sum(void *s, double *out, struct kern_mat x)
{
    TRACE("sum of losses", 0, size(x), sum, out, x);
}
static kr_status t_sumsq(void *s, double *out, struct kern_mat x)
{
    TRACE("norm of gradients", 0, size(x), sumsq, out, x);
}
static kr_status t_checksum(void *s, uint64_t *out, struct kern_mat x)
{
    TRACE("checksum", 0, size(x), checksum, out, x);
}
static kr_status t_adamw(void *s, struct kern_mat w, struct kern_mat m, struct kern_mat v,
                         struct kern_mat g, struct kern_mat copy,
                         const struct kern_adamw *p)
{
    TRACE("adamw", 0, 2 * (size(w) + size(m) + size(v)) + size(g) + size(copy), adamw, w,
          m, v, g, copy, p);
}

static const struct kern_ops traced = {
    .name = "traced",
    .fill = t_fill,
    .copy = t_copy,
    .add = t_add,
    .scale = t_scale,
    .add_round = t_add_round,
    .matmul = t_matmul,
    .sum_rows = t_sum_rows,
    .linear_fwd = t_linear_fwd,
    .embed_fwd = t_embed_fwd,
    .embed_bwd = t_embed_bwd,
    .norm_fwd = t_norm_fwd,
    .norm_bwd = t_norm_bwd,
    .act_fwd = t_act_fwd,
    .linear_act_fwd = t_linear_act_fwd,
    .act_bwd = t_act_bwd,
    .rope = t_rope,
    .attention_fwd = t_attention_fwd,
    .attention_bwd = t_attention_bwd,
    .cross_entropy = t_cross_entropy,
    .sum = t_sum,
    .sumsq = t_sumsq,
    .checksum = t_checksum,
    .adamw = t_adamw,
};

/* ---- front doors ---------------------------------------------------------------------- */

/* A table that lacks an operation would be called through nothing. */
static void check_table(void)
{
    typedef void (*entry)(void);
    const entry none = NULL;

    for (size_t at = offsetof(struct kern_ops, fill); at < sizeof traced;
         at += sizeof none) {
        if (memcmp((const char *)real + at, &none, sizeof none) == 0) continue;
        if (memcmp((const char *)&traced + at, &none, sizeof none) != 0) continue;
        fprintf(stderr, "trace: operation number %zu of the GPU is not in this table\n",
                (at - offsetof(struct kern_ops, fill)) / sizeof none);
        abort();
    }
}

void trace_init(void)
{
    gpu = kern_cuda_backend;
    gpu32 = kern_cuda32_backend;
    real = gpu.ops;
    check_table();
}

void trace_on(bool on) { gpu.ops = gpu32.ops = on ? &traced : real; }

void trace_clear(void) { count = 0; }

static int longer(const void *a, const void *b)
{
    const struct trace_row *x = a, *y = b;

    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

int trace_rows(const struct trace_row **out)
{
    qsort(rows, (size_t)count, sizeof *rows, longer);
    *out = rows;
    return count;
}
