/*
 * kernels.c - the front doors: check shapes once, open the gate, call the table.
 *
 * Each front door states what must hold as one list of conditions, so that a wrong call
 * is one line with the shapes in it and nothing runs.
 */
#include "kernels/kernels.h"

#include <inttypes.h>

#include "kernels/backend.h"
#include "kernels/handles.h"

struct kern_mat kern_rows(struct kern_mat m, int64_t first, int64_t count)
{
    char *at = m.at;

    m.at = at + (size_t)(first * m.ld) * kern_dtype_bytes(m.type);
    m.rows = count;
    return m;
}

struct kern_mat kern_cols(struct kern_mat m, int64_t first, int64_t count)
{
    char *at = m.at;

    m.at = at + (size_t)first * kern_dtype_bytes(m.type);
    m.cols = count;
    return m;
}

/* ---- checks --------------------------------------------------------------------------- */

/* A whole view, of any type. */
static bool whole(struct kern_mat m)
{
    return m.at && m.rows >= 0 && m.cols >= 0 && m.ld >= m.cols;
}

static bool shaped(struct kern_mat m, int64_t rows, int64_t cols)
{
    return whole(m) && m.rows == rows && m.cols == cols;
}

static enum kern_dtype type_of(const struct kern_queue *q)
{
    return q->device->back->type;
}

static enum kern_dtype wide_of(const struct kern_queue *q)
{
    return q->device->back->wide;
}

/* A whole view of the device's type. */
static bool sound(const struct kern_queue *q, struct kern_mat m)
{
    return whole(m) && m.type == type_of(q);
}

static bool is(const struct kern_queue *q, struct kern_mat m, int64_t rows, int64_t cols)
{
    return shaped(m, rows, cols) && m.type == type_of(q);
}

static bool is_or_none(const struct kern_queue *q, struct kern_mat m, int64_t rows,
                       int64_t cols)
{
    return !m.at || is(q, m, rows, cols);
}

static bool is_wide(const struct kern_queue *q, struct kern_mat m, int64_t rows,
                    int64_t cols)
{
    return shaped(m, rows, cols) && m.type == wide_of(q);
}

static bool is_wide_or_none(const struct kern_queue *q, struct kern_mat m, int64_t rows,
                            int64_t cols)
{
    return !m.at || is_wide(q, m, rows, cols);
}

/* What optimizer state may be kept in: wide, or bf16 beside fp32. */
static bool is_kept(const struct kern_queue *q, struct kern_mat m, int64_t rows,
                    int64_t cols)
{
    return shaped(m, rows, cols) &&
           (m.type == wide_of(q) || (m.type == KERN_BF16 && wide_of(q) == KERN_F32));
}

/* Any type that this device stores. */
static bool is_stored(const struct kern_queue *q, struct kern_mat m, int64_t rows,
                      int64_t cols)
{
    return is(q, m, rows, cols) || is_kept(q, m, rows, cols);
}

static kr_status refuse(const char *name, struct kern_mat a, struct kern_mat b)
{
    static const char *const types[] = { "fp32", "fp64", "bf16" };

    return KR_FAIL(KR_ERR_ARG,
                   "%s: operands do not fit: %s (%" PRId64 ", %" PRId64 ") ld %" PRId64
                   " and %s (%" PRId64 ", %" PRId64 ") ld %" PRId64,
                   name, types[a.type], a.rows, a.cols, a.ld, types[b.type], b.rows,
                   b.cols, b.ld);
}

/* Call entry with the gate of the device open. */
#define ENTER(q, entry, ...)                                   \
    do {                                                       \
        const struct kern_backend *back_ = (q)->device->back;  \
        kr_status status_;                                     \
        if (back_->enter) back_->enter((q)->device->state);    \
        status_ = back_->ops->entry((q)->stream, __VA_ARGS__); \
        if (back_->leave) back_->leave((q)->device->state);    \
        return status_;                                        \
    } while (0)

/* ---- elementwise ---------------------------------------------------------------------- */

kr_status kern_fill(struct kern_queue *q, struct kern_mat y, double value)
{
    if (!is_stored(q, y, y.rows, y.cols)) return refuse("fill", y, y);
    ENTER(q, fill, y, value);
}

kr_status kern_copy(struct kern_queue *q, struct kern_mat y, struct kern_mat x)
{
    if (!is_stored(q, x, x.rows, x.cols) || !is_stored(q, y, x.rows, x.cols))
        return refuse("copy", y, x);
    ENTER(q, copy, y, x);
}

kr_status kern_add(struct kern_queue *q, struct kern_mat y, struct kern_mat a,
                   struct kern_mat b)
{
    if (!(sound(q, y) || is_wide(q, y, y.rows, y.cols)) || a.type != y.type ||
        b.type != y.type || !shaped(a, y.rows, y.cols) || !shaped(b, y.rows, y.cols))
        return refuse("add", a, b);
    ENTER(q, add, y, a, b);
}

kr_status kern_scale(struct kern_queue *q, struct kern_mat y, struct kern_mat x, double s)
{
    if (!sound(q, y) || !is(q, x, y.rows, y.cols)) return refuse("scale", y, x);
    ENTER(q, scale, y, x, s);
}

kr_status kern_add_round(struct kern_queue *q, struct kern_mat y, struct kern_mat a,
                         struct kern_mat b, const struct kern_round *r)
{
    if (y.type != KERN_BF16 || !is_kept(q, y, 1, y.cols) ||
        (a.at && !is_kept(q, a, 1, y.cols)) || !is_kept(q, b, 1, y.cols) || r->first < 0)
        return refuse("add_round", y, b);
    ENTER(q, add_round, y, a, b, r);
}

/* ---- linear --------------------------------------------------------------------------- */

static kr_status matmul(struct kern_queue *q, struct kern_mat c, struct kern_mat a,
                        bool ta, struct kern_mat b, bool tb, bool add)
{
    ENTER(q, matmul, c, a, ta, b, tb, add);
}

static kr_status sum_rows(struct kern_queue *q, struct kern_mat db, struct kern_mat dy,
                          bool add)
{
    ENTER(q, sum_rows, db, dy, add);
}

kr_status kern_linear_fwd(struct kern_queue *q, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, struct kern_mat onto)
{
    if (!sound(q, y) || !is(q, x, y.rows, w.cols) || !is(q, w, y.cols, x.cols) ||
        !is_or_none(q, b, 1, y.cols) || !is_or_none(q, onto, y.rows, y.cols))
        return refuse("linear_fwd", x, w);
    ENTER(q, linear_fwd, y, x, w, b, onto);
}

kr_status kern_linear_bwd_x(struct kern_queue *q, struct kern_mat dx, struct kern_mat dy,
                            struct kern_mat w, bool add)
{
    if (!sound(q, dx) || !is(q, dy, dx.rows, w.rows) || !is(q, w, dy.cols, dx.cols))
        return refuse("linear_bwd_x", dy, w);
    return matmul(q, dx, dy, false, w, false, add);
}

kr_status kern_linear_bwd_w(struct kern_queue *q, struct kern_mat dw, struct kern_mat db,
                            struct kern_mat dy, struct kern_mat x, bool add)
{
    if (!is_wide(q, dw, dw.rows, dw.cols) || !is(q, dy, x.rows, dw.rows) ||
        !is(q, x, dy.rows, dw.cols) || !is_wide_or_none(q, db, 1, dw.rows))
        return refuse("linear_bwd_w", dy, x);
    TRY(matmul(q, dw, dy, true, x, false, add));
    return db.at ? sum_rows(q, db, dy, add) : KR_OK;
}

/* ---- embedding, norms, activations, positions ----------------------------------------- */

kr_status kern_embed_fwd(struct kern_queue *q, struct kern_mat x, const int32_t *token,
                         struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                         const int32_t *start)
{
    if (!token || seq < 1 || !sound(q, x) || !is(q, wte, wte.rows, x.cols) ||
        !is_or_none(q, wpe, wpe.rows, x.cols) || (wpe.at && wpe.rows < seq) ||
        x.rows % seq != 0)
        return refuse("embed_fwd", x, wte);
    ENTER(q, embed_fwd, x, token, wte, wpe, seq, start);
}

static kr_status embed_bwd(struct kern_queue *q, struct kern_mat dwte,
                           struct kern_mat dwpe, const int32_t *token, struct kern_mat dx,
                           int64_t seq, const int32_t *start)
{
    ENTER(q, embed_bwd, dwte, dwpe, token, dx, seq, start);
}

kr_status kern_embed_bwd(struct kern_queue *q, struct kern_mat dwte, struct kern_mat dwpe,
                         const int32_t *token, struct kern_mat dx, int64_t seq,
                         const int32_t *start, bool add)
{
    if (!token || seq < 1 || !sound(q, dx) || !is_wide(q, dwte, dwte.rows, dx.cols) ||
        !is_wide_or_none(q, dwpe, dwpe.rows, dx.cols) || (dwpe.at && dwpe.rows < seq) ||
        dx.rows % seq != 0)
        return refuse("embed_bwd", dx, dwte);
    if (!add) TRY(kern_fill(q, dwte, 0));
    if (!add && dwpe.at) TRY(kern_fill(q, dwpe, 0));
    return embed_bwd(q, dwte, dwpe, token, dx, seq, start);
}

kr_status kern_norm_fwd(struct kern_queue *q, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps)
{
    if (!sound(q, x) || x.cols < 1 || !is(q, y, x.rows, x.cols) ||
        !is_wide(q, stats, 2, x.rows) || !is(q, w, 1, x.cols) ||
        !is_or_none(q, b, 1, x.cols) || !(eps > 0))
        return refuse("norm_fwd", x, w);
    ENTER(q, norm_fwd, kind, y, stats, x, w, b, eps);
}

kr_status kern_norm_bwd(struct kern_queue *q, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats)
{
    if (!sound(q, x) || x.cols < 1 || !is(q, dx, x.rows, x.cols) ||
        !is(q, dy, x.rows, x.cols) || !is_wide_or_none(q, dw, 1, x.cols) ||
        !is_wide_or_none(q, db, 1, x.cols) || (db.at && !dw.at) || !is(q, w, 1, x.cols) ||
        !is_wide(q, stats, 2, x.rows))
        return refuse("norm_bwd", dy, x);
    ENTER(q, norm_bwd, kind, dx, add_dx, dw, db, add_dw, dy, x, w, stats);
}

/* Columns of the input of an activation with F outputs. */
static int64_t act_inputs(enum kern_act kind, int64_t f)
{
    return kind == KERN_SWIGLU ? 2 * f : f;
}

kr_status kern_act_fwd(struct kern_queue *q, enum kern_act kind, struct kern_mat y,
                       struct kern_mat u)
{
    if (!sound(q, y) || !is(q, u, y.rows, act_inputs(kind, y.cols)))
        return refuse("act_fwd", y, u);
    ENTER(q, act_fwd, kind, y, u);
}

kr_status kern_linear_act_fwd(struct kern_queue *q, enum kern_act kind, struct kern_mat y,
                              struct kern_mat u, struct kern_mat x, struct kern_mat w,
                              struct kern_mat b)
{
    if (!sound(q, y) || !is(q, u, y.rows, act_inputs(kind, y.cols)) ||
        !is(q, x, y.rows, w.cols) || !is(q, w, u.cols, x.cols) ||
        !is_or_none(q, b, 1, u.cols))
        return refuse("linear_act_fwd", x, w);
    if (q->device->back->ops->linear_act_fwd)
        ENTER(q, linear_act_fwd, kind, y, u, x, w, b);
    TRY(kern_linear_fwd(q, u, x, w, b, kern_none));
    return kern_act_fwd(q, kind, y, u);
}

kr_status kern_act_bwd(struct kern_queue *q, enum kern_act kind, struct kern_mat du,
                       struct kern_mat dy, struct kern_mat u)
{
    if (!sound(q, dy) || !is(q, u, dy.rows, act_inputs(kind, dy.cols)) ||
        !is(q, du, u.rows, u.cols))
        return refuse("act_bwd", dy, u);
    ENTER(q, act_bwd, kind, du, dy, u);
}

kr_status kern_rope(struct kern_queue *q, struct kern_mat x, struct kern_mat table,
                    int64_t heads, int64_t head_dim, int64_t seq,
                    enum kern_pairing pairing, bool inverse)
{
    if (heads < 1 || seq < 1 || !is(q, x, x.rows, heads * head_dim) ||
        !is_wide(q, table, table.rows, table.cols) || table.rows < seq ||
        table.cols % 2 != 0 || table.cols > head_dim || x.rows % seq != 0)
        return refuse("rope", x, table);
    ENTER(q, rope, x, table, heads, head_dim, seq, pairing, inverse);
}

/* ---- attention, loss ------------------------------------------------------------------ */

static bool heads_fit(const struct kern_queue *q, struct kern_mat out,
                      struct kern_mat lse, struct kern_mat qkv,
                      const struct kern_heads *h)
{
    return h->heads >= 1 && h->kv_heads >= 1 && h->heads % h->kv_heads == 0 &&
           h->head_dim >= 1 && h->seq >= 1 && h->first >= 0 && h->first < h->seq &&
           sound(q, out) && out.cols == h->heads * h->head_dim &&
           out.rows % h->seq == 0 &&
           is(q, qkv, out.rows, (h->heads + 2 * h->kv_heads) * h->head_dim) &&
           is_wide(q, lse, h->heads, out.rows);
}

kr_status kern_attention_fwd(struct kern_queue *q, struct kern_mat out,
                             struct kern_mat lse, struct kern_mat qkv,
                             const struct kern_heads *h)
{
    if (!heads_fit(q, out, lse, qkv, h)) return refuse("attention_fwd", out, qkv);
    ENTER(q, attention_fwd, out, lse, qkv, h);
}

kr_status kern_attention_bwd(struct kern_queue *q, struct kern_mat dqkv,
                             struct kern_mat delta, struct kern_mat dout,
                             struct kern_mat qkv, struct kern_mat out,
                             struct kern_mat lse, const struct kern_heads *h)
{
    if (!heads_fit(q, out, lse, qkv, h) || !heads_fit(q, dout, delta, dqkv, h) ||
        dout.rows != out.rows)
        return refuse("attention_bwd", dout, qkv);
    ENTER(q, attention_bwd, dqkv, delta, dout, qkv, out, lse, h);
}

kr_status kern_cross_entropy(struct kern_queue *q, struct kern_mat loss,
                             struct kern_mat dlogits, struct kern_mat logits,
                             const int32_t *label, double grad_scale)
{
    if (!label || !sound(q, logits) || logits.cols < 1 ||
        !is_wide(q, loss, 1, logits.rows) ||
        !is_or_none(q, dlogits, logits.rows, logits.cols))
        return refuse("cross_entropy", loss, logits);
    ENTER(q, cross_entropy, loss, dlogits, logits, label, grad_scale);
}

/* ---- sums, optimizer ------------------------------------------------------------------ */

kr_status kern_sum(struct kern_queue *q, double *out, struct kern_mat x)
{
    if (!out || !is_wide(q, x, 1, x.cols)) return refuse("sum", x, x);
    ENTER(q, sum, out, x);
}

kr_status kern_sumsq(struct kern_queue *q, double *out, struct kern_mat x)
{
    if (!out || !is_kept(q, x, 1, x.cols)) return refuse("sumsq", x, x);
    ENTER(q, sumsq, out, x);
}

kr_status kern_checksum(struct kern_queue *q, uint64_t *out, struct kern_mat x)
{
    if (!out || !is_stored(q, x, 1, x.cols)) return refuse("checksum", x, x);
    ENTER(q, checksum, out, x);
}

kr_status kern_adamw(struct kern_queue *q, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                     const struct kern_adamw *p)
{
    if (!is_wide(q, w, 1, w.cols) || !is_kept(q, m, 1, w.cols) || m.type != v.type ||
        !shaped(v, 1, w.cols) || !is_kept(q, g, 1, w.cols) || p->round.first < 0 ||
        (copy.at && (type_of(q) == wide_of(q) || !is(q, copy, 1, w.cols))))
        return refuse("adamw", w, g);
    ENTER(q, adamw, w, m, v, g, copy, p);
}
