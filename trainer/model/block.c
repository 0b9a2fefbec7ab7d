/* block.c - the same block for every family: what is missing is an empty matrix. */
#include "trainer/model/block.h"

#include <math.h>
#include <stdio.h>

struct kern_mat params_view(const struct params *p, int32_t unit, const char *name,
                            void *flat, enum kern_dtype type)
{
    int32_t i = params_find(p, name);
    const struct param *par = &p->list[i < 0 ? 0 : i];

    if (i < 0 || par->unit != unit) return kern_none;
    return kern_mat((char *)flat + (size_t)par->offset * kern_dtype_bytes(type),
                    par->rows, par->cols, type);
}

void block_params(const struct params *p, int32_t layer, void *flat, enum kern_dtype type,
                  struct block_params *out)
{
    struct {
        const char *name;
        struct kern_mat *at;
    } const list[] = {
        { "norm1.weight", &out->norm1 },   { "norm1.bias", &out->norm1_bias },
        { "attn.qkv.weight", &out->qkv },  { "attn.qkv.bias", &out->qkv_bias },
        { "attn.out.weight", &out->out },  { "attn.out.bias", &out->out_bias },
        { "norm2.weight", &out->norm2 },   { "norm2.bias", &out->norm2_bias },
        { "mlp.up.weight", &out->up },     { "mlp.up.bias", &out->up_bias },
        { "mlp.down.weight", &out->down }, { "mlp.down.bias", &out->down_bias },
    };
    char name[PARAMS_NAME];

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        snprintf(name, sizeof name, "block.%d.%s", layer, list[i].name);
        *list[i].at = params_view(p, layer + 1, name, flat, type);
    }
}

static int64_t qkv_cols(const struct model_shape *s)
{
    return (s->heads + 2 * s->kv_heads) * s->head_dim;
}

static int64_t up_cols(const struct model_shape *s)
{
    return (s->family->act == KERN_SWIGLU ? 2 : 1) * s->ffn;
}

void block_lay_out(struct arena *a, const struct model_shape *s, int64_t rows,
                   struct block_acts *out)
{
    *out = (struct block_acts){
        .x = arena_mat(a, rows, s->dim),
        .stats1 = arena_mat(a, 2, rows),
        .normed1 = arena_mat(a, rows, s->dim),
        .qkv = arena_mat(a, rows, qkv_cols(s)),
        .att = arena_mat(a, rows, s->heads * s->head_dim),
        .lse = arena_mat(a, s->heads, rows),
        .mid = arena_mat(a, rows, s->dim),
        .stats2 = arena_mat(a, 2, rows),
        .normed2 = arena_mat(a, rows, s->dim),
        .up = arena_mat(a, rows, up_cols(s)),
        .act = arena_mat(a, rows, s->ffn),
    };
}

void block_lay_out_scratch(struct arena *a, const struct model_shape *s, int64_t rows,
                           struct block_scratch *out)
{
    *out = (struct block_scratch){
        .d_normed = arena_mat(a, rows, s->dim),
        .d_att = arena_mat(a, rows, s->heads * s->head_dim),
        .d_qkv = arena_mat(a, rows, qkv_cols(s)),
        .delta = arena_mat(a, s->heads, rows),
        .d_up = arena_mat(a, rows, up_cols(s)),
        .d_act = arena_mat(a, rows, s->ffn),
    };
}

static struct kern_heads heads_of(const struct block_env *e)
{
    const struct model_shape *s = e->shape;

    return (struct kern_heads){ .heads = s->heads,
                                .kv_heads = s->kv_heads,
                                .head_dim = s->head_dim,
                                .seq = e->seq,
                                .scale = 1 / sqrt((double)s->head_dim),
                                .start = e->start };
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

kr_status block_fwd(const struct block_env *e, const struct block_params *w,
                    const struct block_acts *a, struct kern_mat out)
{
    const struct family *f = e->shape->family;
    struct kern_heads heads = heads_of(e);

    TRY(kern_norm_fwd(e->q, f->norm, a->normed1, a->stats1, a->x, w->norm1, w->norm1_bias,
                      f->norm_eps));
    TRY(kern_linear_fwd(e->q, a->qkv, a->normed1, w->qkv, w->qkv_bias, false));
    TRY(rotate(e, a->qkv, false));
    TRY(kern_attention_fwd(e->q, a->att, a->lse, a->qkv, &heads));
    TRY(kern_copy(e->q, a->mid, a->x));
    TRY(kern_linear_fwd(e->q, a->mid, a->att, w->out, w->out_bias, true));

    TRY(kern_norm_fwd(e->q, f->norm, a->normed2, a->stats2, a->mid, w->norm2,
                      w->norm2_bias, f->norm_eps));
    TRY(kern_linear_fwd(e->q, a->up, a->normed2, w->up, w->up_bias, false));
    TRY(kern_act_fwd(e->q, f->act, a->act, a->up));
    TRY(kern_copy(e->q, out, a->mid));
    return kern_linear_fwd(e->q, out, a->act, w->down, w->down_bias, true);
}

static kr_status mlp_bwd(const struct block_env *e, const struct block_params *w,
                         const struct block_params *g, bool add,
                         const struct block_acts *a, const struct block_scratch *s,
                         struct kern_mat d)
{
    const struct family *f = e->shape->family;

    TRY(kern_linear_bwd_w(e->q, g->down, g->down_bias, d, a->act, add));
    TRY(kern_linear_bwd_x(e->q, s->d_act, d, w->down, false));
    TRY(kern_act_bwd(e->q, f->act, s->d_up, s->d_act, a->up));
    TRY(kern_linear_bwd_w(e->q, g->up, g->up_bias, s->d_up, a->normed2, add));
    TRY(kern_linear_bwd_x(e->q, s->d_normed, s->d_up, w->up, false));
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

    TRY(kern_linear_bwd_w(e->q, g->out, g->out_bias, d, a->att, add));
    TRY(kern_linear_bwd_x(e->q, s->d_att, d, w->out, false));
    TRY(kern_attention_bwd(e->q, s->d_qkv, s->delta, s->d_att, a->qkv, a->att, a->lse,
                           &heads));
    TRY(rotate(e, s->d_qkv, true));
    TRY(kern_linear_bwd_w(e->q, g->qkv, g->qkv_bias, s->d_qkv, a->normed1, add));
    TRY(kern_linear_bwd_x(e->q, s->d_normed, s->d_qkv, w->qkv, false));
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
