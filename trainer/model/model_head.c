/* model_head.c - from the output of the last block to losses, logits and gradients. */
#include "trainer/model/model_parts.h"

/* The matrix and the norm, with the units they lie in held. */
struct head {
    int norm_unit, matrix_unit;
    struct kern_mat norm, norm_bias, matrix;
};

static const char *matrix_name(const struct model *m)
{
    return model_tied(&m->shape) ? "embed.token" : "head.weight";
}

static kr_status acquire(struct model *m, const struct weights *w, struct head *out)
{
    struct head h = { .norm_unit = (int)m->shape.layers + 1 };
    void *flat;
    kr_status st;

    h.matrix_unit = model_tied(&m->shape) ? 0 : h.norm_unit;
    TRY(w->acquire(w->self, h.norm_unit, &flat));
    h.norm = model_view(m, h.norm_unit, "norm.weight", flat);
    h.norm_bias = model_view(m, h.norm_unit, "norm.bias", flat);
    st = w->acquire(w->self, h.matrix_unit, &flat);
    if (st != KR_OK) {
        w->release(w->self, h.norm_unit);
        return st;
    }
    h.matrix = model_view(m, h.matrix_unit, matrix_name(m), flat);
    *out = h;
    return KR_OK;
}

static void release(const struct weights *w, const struct head *h)
{
    w->release(w->self, h->matrix_unit);
    w->release(w->self, h->norm_unit);
}

static kr_status norm_last(struct model *m, const struct head *h, int64_t n)
{
    const struct family *f = m->shape.family;

    return kern_norm_fwd(m->q, f->norm, first_rows(m->normed, n), first_cols(m->stats, n),
                         first_rows(m->last, n), h->norm, h->norm_bias,
                         model_norm_eps(&m->shape));
}

/* Logits and losses of rows at .. at + n; their gradient too if grad_scale is not 0. */
static kr_status chunk_loss(struct model *m, const struct head *h, const struct batch *b,
                            int64_t at, int64_t n, double grad_scale)
{
    struct kern_mat logits = first_rows(m->logits, n), x = kern_rows(m->normed, at, n);

    TRY(kern_linear_fwd(m->q, logits, x, h->matrix, kern_none, kern_none));
    return kern_cross_entropy(m->q, kern_cols(m->loss, at, n),
                              grad_scale != 0 ? logits : kern_none, logits, b->label + at,
                              grad_scale);
}

static int64_t chunk_len(const struct model *m, int64_t at, int64_t rows)
{
    return rows - at < m->chunk ? rows - at : m->chunk;
}

kr_status head_eval(struct model *m, const struct weights *w, const struct batch *b)
{
    int64_t rows = model_rows(b);
    struct head h;
    kr_status st;

    TRY(acquire(m, w, &h));
    TRY_OR(st, norm_last(m, &h, rows), done);
    for (int64_t at = 0; at < rows; at += m->chunk)
        TRY_OR(st, chunk_loss(m, &h, b, at, chunk_len(m, at, rows), 0), done);
done:
    release(w, &h);
    return st;
}

/* Forward and backward, chunk by chunk; leaves d: the gradient of `last`. */
static kr_status train(struct model *m, const struct weights *w, const struct batch *b,
                       double grad_scale, const struct head *h)
{
    int64_t rows = model_rows(b);
    struct kern_mat dw;
    void *norm_flat, *matrix_flat;
    bool add, add_matrix;

    TRY(model_grads(m, w, h->norm_unit, &norm_flat, &add));
    TRY(model_grads(m, w, h->matrix_unit, &matrix_flat, &add_matrix));
    dw = model_view_grad(m, h->matrix_unit, matrix_name(m), matrix_flat);
    TRY(norm_last(m, h, rows));
    for (int64_t at = 0; at < rows; at += m->chunk) {
        int64_t n = chunk_len(m, at, rows);
        struct kern_mat dlogits = first_rows(m->logits, n);

        TRY(chunk_loss(m, h, b, at, n, grad_scale));
        TRY(kern_linear_bwd_x(m->q, kern_rows(m->d_normed, at, n), dlogits, h->matrix,
                              false));
        if (dw.at)
            TRY(kern_linear_bwd_w(m->q, dw, kern_none, dlogits,
                                  kern_rows(m->normed, at, n), add_matrix || at > 0));
    }
    TRY(kern_norm_bwd(m->q, m->shape.family->norm, first_rows(m->d, rows), false,
                      model_view_grad(m, h->norm_unit, "norm.weight", norm_flat),
                      model_view_grad(m, h->norm_unit, "norm.bias", norm_flat), add,
                      first_rows(m->d_normed, rows), first_rows(m->last, rows), h->norm,
                      first_cols(m->stats, rows)));
    return model_grads_ready(m, w, h->norm_unit);
}

kr_status head_train(struct model *m, const struct weights *w, const struct batch *b,
                     double grad_scale)
{
    struct head h;
    kr_status st;

    TRY(acquire(m, w, &h));
    st = train(m, w, b, grad_scale, &h);
    release(w, &h);
    return st;
}

kr_status head_logits(struct model *m, const struct weights *w, const struct batch *b,
                      struct kern_mat logits)
{
    int64_t rows = model_rows(b);
    struct head h;
    kr_status st;

    TRY(acquire(m, w, &h));
    TRY_OR(st, norm_last(m, &h, rows), done);
    st = kern_linear_fwd(m->q, logits, kern_rows(m->normed, rows - 1, 1), h.matrix,
                         kern_none, kern_none);
done:
    release(w, &h);
    return st;
}
