/* block.c - the same block for every family: what is missing is an empty matrix. */
#include "trainer/model/block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct kern_mat params_view(const struct params *p, int32_t unit, const char *name,
                            void *flat, enum kern_dtype type)
{
    if (!flat) return kern_none;
    for (int32_t i = p->begin[unit]; i < p->begin[unit + 1]; i++) {
        const struct param *par = &p->list[i];

        if (strcmp(par->name, name) == 0)
            return kern_mat((char *)flat + (size_t)par->offset * kern_dtype_bytes(type),
                            par->rows, par->cols, type);
    }
    return kern_none;
}

static void lora_params(const struct params *p, int32_t layer, void *flat,
                        enum kern_dtype type, struct lora_pair out[LORA_SITES])
{
    int32_t unit = params_lora_unit(p, layer);
    char name[PARAMS_NAME];

    for (int i = 0; i < LORA_SITES; i++) {
        out[i] = (struct lora_pair){ kern_none, kern_none };
        if (!flat) continue;
        snprintf(name, sizeof name, "block.%d.lora.%s.a", layer, lora_name(i));
        out[i].a = params_view(p, unit, name, flat, type);
        snprintf(name, sizeof name, "block.%d.lora.%s.b", layer, lora_name(i));
        out[i].b = params_view(p, unit, name, flat, type);
    }
}

void block_params(const struct params *p, int32_t layer, void *flat, void *adapters,
                  enum kern_dtype type, struct block_params *out)
{
    struct {
        const char *name;
        struct kern_mat *at;
    } const list[] = {
        { "norm1.weight", &out->norm1 },
        { "norm1.bias", &out->norm1_bias },
        { "attn.qkv.weight", &out->w[BLOCK_QKV] },
        { "attn.qkv.bias", &out->b[BLOCK_QKV] },
        { "attn.out.weight", &out->w[BLOCK_OUT] },
        { "attn.out.bias", &out->b[BLOCK_OUT] },
        { "post1.weight", &out->post1 },
        { "post1.bias", &out->post1_bias },
        { "norm2.weight", &out->norm2 },
        { "norm2.bias", &out->norm2_bias },
        { "mlp.up.weight", &out->w[BLOCK_UP] },
        { "mlp.up.bias", &out->b[BLOCK_UP] },
        { "mlp.down.weight", &out->w[BLOCK_DOWN] },
        { "mlp.down.bias", &out->b[BLOCK_DOWN] },
        { "post2.weight", &out->post2 },
        { "post2.bias", &out->post2_bias },
    };
    char name[PARAMS_NAME];

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        snprintf(name, sizeof name, "block.%d.%s", layer, list[i].name);
        *list[i].at = params_view(p, layer + 1, name, flat, type);
    }
    lora_params(p, layer, adapters, type, out->lora);
}

void block_lay_out(struct arena *a, const struct model_shape *s, int64_t rows,
                   unsigned roles, struct block_acts *out)
{
    int64_t heads = s->heads * s->head_dim, raw = s->family->sandwich ? s->dim : 0;
    struct {
        struct kern_mat *at;
        enum block_role role;
        int64_t cols;  /* (rows, cols) of the device's type, or */
        int64_t stats; /* (stats, rows), wide */
    } const list[] = {
        { &out->x, BLOCK_INPUT, s->dim, 0 },
        { &out->stats1, BLOCK_DEAR, 0, 2 },
        { &out->normed1, BLOCK_CHEAP, s->dim, 0 },
        { &out->qkv, BLOCK_DEAR, model_qkv_rows(s), 0 },
        { &out->att, BLOCK_DEAR, heads, 0 },
        { &out->lse, BLOCK_DEAR, 0, s->heads },
        { &out->raw1, BLOCK_DEAR, raw, 0 },
        { &out->stats_post1, BLOCK_DEAR, 0, raw ? 2 : 0 },
        { &out->mid, BLOCK_DEAR, s->dim, 0 },
        { &out->stats2, BLOCK_DEAR, 0, 2 },
        { &out->normed2, BLOCK_CHEAP, s->dim, 0 },
        { &out->up, BLOCK_DEAR, model_up_rows(s), 0 },
        { &out->act, BLOCK_CHEAP, s->ffn, 0 },
        { &out->raw2, BLOCK_DEAR, raw, 0 },
        { &out->stats_post2, BLOCK_DEAR, 0, raw ? 2 : 0 },
    };

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if (!((unsigned)list[i].role & roles)) continue;
        if (list[i].cols) *list[i].at = arena_mat(a, rows, list[i].cols);
        if (list[i].stats) *list[i].at = arena_wide(a, list[i].stats, rows);
    }
}

void block_lay_out_scratch(struct arena *a, const struct model_shape *s, int64_t rows,
                           struct block_scratch *out)
{
    *out = (struct block_scratch){
        .d_normed = arena_mat(a, rows, s->dim),
        .d_att = arena_mat(a, rows, s->heads * s->head_dim),
        .d_qkv = arena_mat(a, rows, model_qkv_rows(s)),
        .delta = arena_wide(a, s->heads, rows),
        .d_up = arena_mat(a, rows, model_up_rows(s)),
        .d_act = arena_mat(a, rows, s->ffn),
    };
    if (s->family->sandwich) out->d_raw = arena_mat(a, rows, s->dim);
}

static struct kern_heads heads_of(const struct block_env *e)
{
    const struct model_shape *s = e->shape;

    return (struct kern_heads){ .heads = s->heads,
                                .kv_heads = s->kv_heads,
                                .head_dim = s->head_dim,
                                .seq = e->past + e->seq,
                                .scale = 1 / sqrt((double)s->head_dim),
                                .slopes = e->slopes,
                                .start = e->start,
                                .first = e->past };
}

/* Rotate queries and keys, which lie side by side. */
static kr_status rotate(const struct block_env *e, struct kern_mat qkv, bool inverse)
{
    const struct model_shape *s = e->shape;
    int64_t heads = s->heads + s->kv_heads;

    if (s->family->pos != POS_ROPE) return KR_OK;
    return kern_rope(e->q, kern_cols(qkv, 0, heads * s->head_dim), e->rope, heads,
                     s->head_dim, e->seq, s->family->pairing, inverse);
}

/* ---- the matrices and their adapters --------------------------------------------------- */

/* Columns of a product of matrix m that belong to an adapter; false: not to this one. */
static bool part_of(const struct block_env *e, const struct block_params *w, int site,
                    enum block_matrix m, struct kern_mat *y)
{
    int64_t first, rows;

    if (!w->lora[site].a.at || lora_matrix(site) != m) return false;
    lora_rows(e->shape, site, &first, &rows);
    *y = kern_cols(*y, first, rows);
    return true;
}

/* y = onto + x w^T + b, and what the adapters add; onto may be none. */
static kr_status linear_fwd(const struct block_env *e, const struct block_params *w,
                            enum block_matrix m, struct kern_mat y, struct kern_mat x,
                            struct kern_mat onto)
{
    TRY(kern_linear_fwd(e->q, y, x, w->w[m], w->b[m], onto));
    for (int i = 0; i < LORA_SITES; i++) {
        struct kern_mat part = y;

        if (part_of(e, w, i, m, &part)) TRY(lora_fwd(&e->lora, &w->lora[i], part, x));
    }
    return KR_OK;
}

/* dx = dy w, and through the adapters; g: where gradients of parameters go. */
static kr_status linear_bwd(const struct block_env *e, const struct block_params *w,
                            const struct block_params *g, bool add, enum block_matrix m,
                            struct kern_mat dx, struct kern_mat dy, struct kern_mat x)
{
    if (g->w[m].at) TRY(kern_linear_bwd_w(e->q, g->w[m], g->b[m], dy, x, add));
    TRY(kern_linear_bwd_x(e->q, dx, dy, w->w[m], false));
    for (int i = 0; i < LORA_SITES; i++) {
        struct kern_mat part = dy;

        if (part_of(e, w, i, m, &part))
            TRY(lora_bwd(&e->lora, &w->lora[i], &g->lora[i], add, dx, part, x));
    }
    return KR_OK;
}

/* Where a sublayer meets the residual stream: its last matrix, and in a sandwich family
 * the norm after it. */
struct join {
    enum block_matrix m;
    struct kern_mat in, norm, norm_bias, raw, stats;
};

static struct join join_of_attention(const struct block_params *w,
                                     const struct block_acts *a)
{
    struct kern_mat att = kern_rows(a->att, a->att.rows - a->x.rows, a->x.rows);

    return (
        struct join){ BLOCK_OUT, att, w->post1, w->post1_bias, a->raw1, a->stats_post1 };
}

static struct join join_of_mlp(const struct block_params *w, const struct block_acts *a)
{
    return (struct join){ BLOCK_DOWN,    a->act,  w->post2,
                          w->post2_bias, a->raw2, a->stats_post2 };
}

/* out = x + what the sublayer says. */
static kr_status join_fwd(const struct block_env *e, const struct block_params *w,
                          const struct join *j, struct kern_mat out, struct kern_mat x)
{
    const struct model_shape *s = e->shape;

    if (s->family->sandwich) {
        TRY(linear_fwd(e, w, j->m, j->raw, j->in, kern_none));
        TRY(kern_norm_fwd(e->q, s->family->norm, out, j->stats, j->raw, j->norm,
                          j->norm_bias, model_norm_eps(s)));
        return kern_add(e->q, out, out, x);
    }
    return linear_fwd(e, w, j->m, out, j->in, x);
}

/* d: gradient of the sum, unchanged; d_in of what the last matrix read.  dj: where the
 * gradients of j's norm go. */
static kr_status join_bwd(const struct block_env *e, const struct block_params *w,
                          const struct block_params *g, const struct join *j,
                          const struct join *dj, bool add, const struct block_scratch *s,
                          struct kern_mat d_in, struct kern_mat d)
{
    enum kern_norm norm = e->shape->family->norm;

    if (e->shape->family->sandwich) {
        TRY(kern_norm_bwd(e->q, norm, s->d_raw, false, dj->norm, dj->norm_bias, add, d,
                          j->raw, j->norm, j->stats));
        d = s->d_raw;
    }
    return linear_bwd(e, w, g, add, j->m, d_in, d, j->in);
}

static kr_status norm_before_attention(const struct block_env *e,
                                       const struct block_params *w,
                                       const struct block_acts *a)
{
    return kern_norm_fwd(e->q, e->shape->family->norm, a->normed1, a->stats1, a->x,
                         w->norm1, w->norm1_bias, model_norm_eps(e->shape));
}

static kr_status norm_before_mlp(const struct block_env *e, const struct block_params *w,
                                 const struct block_acts *a)
{
    return kern_norm_fwd(e->q, e->shape->family->norm, a->normed2, a->stats2, a->mid,
                         w->norm2, w->norm2_bias, model_norm_eps(e->shape));
}

static kr_status activate(const struct block_env *e, const struct block_acts *a)
{
    return kern_act_fwd(e->q, e->shape->family->act, a->act, a->up);
}

/* The MLP's first matrix and its activation, in one where nothing comes between. */
static kr_status rise(const struct block_env *e, const struct block_params *w,
                      const struct block_acts *a)
{
    struct kern_mat part = a->up;

    for (int i = 0; i < LORA_SITES; i++)
        if (part_of(e, w, i, BLOCK_UP, &part)) {
            TRY(linear_fwd(e, w, BLOCK_UP, a->up, a->normed2, kern_none));
            return activate(e, a);
        }
    return kern_linear_act_fwd(e->q, e->shape->family->act, a->act, a->up, a->normed2,
                               w->w[BLOCK_UP], w->b[BLOCK_UP]);
}

/* All that the MLP's last matrix reads. */
static kr_status up_to_act(const struct block_env *e, const struct block_params *w,
                           const struct block_acts *a)
{
    struct kern_heads heads = heads_of(e);
    struct join attention = join_of_attention(w, a);
    struct kern_mat qkv = kern_rows(a->qkv, e->past, a->x.rows);

    TRY(norm_before_attention(e, w, a));
    TRY(linear_fwd(e, w, BLOCK_QKV, qkv, a->normed1, kern_none));
    TRY(rotate(e, qkv, false));
    TRY(kern_attention_fwd(e->q, a->att, a->lse, a->qkv, &heads));
    TRY(join_fwd(e, w, &attention, a->mid, a->x));

    TRY(norm_before_mlp(e, w, a));
    return rise(e, w, a);
}

kr_status block_fwd(const struct block_env *e, const struct block_params *w,
                    const struct block_acts *a, struct kern_mat out)
{
    struct join mlp = join_of_mlp(w, a);

    TRY(up_to_act(e, w, a));
    return join_fwd(e, w, &mlp, out, a->mid);
}

kr_status block_remake(const struct block_env *e, const struct block_params *w,
                       const struct block_acts *a, const struct block_scratch *s,
                       unsigned kept)
{
    struct join mlp = join_of_mlp(w, a);

    if (!(kept & BLOCK_DEAR)) {
        TRY(up_to_act(e, w, a));
        /* a sandwich norm's backward wants what the last product gave */
        return e->shape->family->sandwich ? join_fwd(e, w, &mlp, s->d_normed, a->mid)
                                          : KR_OK;
    }
    if (kept & BLOCK_CHEAP) return KR_OK;
    TRY(norm_before_attention(e, w, a));
    TRY(norm_before_mlp(e, w, a));
    return activate(e, a);
}

static kr_status mlp_bwd(const struct block_env *e, const struct block_params *w,
                         const struct block_params *g, bool add,
                         const struct block_acts *a, const struct block_scratch *s,
                         struct kern_mat d)
{
    const struct family *f = e->shape->family;
    struct join join = join_of_mlp(w, a), grads = join_of_mlp(g, a);

    TRY(join_bwd(e, w, g, &join, &grads, add, s, s->d_act, d));
    TRY(kern_act_bwd(e->q, f->act, s->d_up, s->d_act, a->up));
    TRY(linear_bwd(e, w, g, add, BLOCK_UP, s->d_normed, s->d_up, a->normed2));
    return kern_norm_bwd(e->q, f->norm, d, true, g->norm2, g->norm2_bias, add,
                         s->d_normed, a->mid, w->norm2, a->stats2);
}

static kr_status attention_bwd(const struct block_env *e, const struct block_params *w,
                               const struct block_params *g, bool add,
                               const struct block_acts *a, const struct block_scratch *s,
                               struct kern_mat d)
{
    const struct family *f = e->shape->family;
    struct kern_heads heads = heads_of(e);
    struct join join = join_of_attention(w, a), grads = join_of_attention(g, a);

    TRY(join_bwd(e, w, g, &join, &grads, add, s, s->d_att, d));
    TRY(kern_attention_bwd(e->q, s->d_qkv, s->delta, s->d_att, a->qkv, a->att, a->lse,
                           &heads));
    TRY(rotate(e, s->d_qkv, true));
    TRY(linear_bwd(e, w, g, add, BLOCK_QKV, s->d_normed, s->d_qkv, a->normed1));
    return kern_norm_bwd(e->q, f->norm, d, true, g->norm1, g->norm1_bias, add,
                         s->d_normed, a->x, w->norm1, a->stats1);
}

kr_status block_bwd(const struct block_env *e, const struct block_params *w,
                    const struct block_params *g, bool add, const struct block_acts *a,
                    const struct block_scratch *s, struct kern_mat d)
{
    TRY(mlp_bwd(e, w, g, add, a, s, d));
    return attention_bwd(e, w, g, add, a, s, d);
}
