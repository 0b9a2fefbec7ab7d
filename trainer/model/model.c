/* model.c - life, embedding and blocks; model_head.c is the rest. */
#include "trainer/model/model_parts.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

/* So many logits exist at a time: what caches hold; in bf16 what it takes to fill a GPU. */
enum { CHUNK_CACHE = 1 << 24, CHUNK_GPU = 1 << 29, CHUNK_ROWS = 64 };

/* ---- layout ---------------------------------------------------------------------------- */

static const struct block_acts *acts_of(const struct model *m, int64_t layer)
{
    return &m->acts[m->train ? layer : 0];
}

static void lay_out(struct model *m, struct arena *a)
{
    const struct model_shape *s = &m->shape;
    int64_t layers = m->train ? s->layers : 1;
    int64_t wide = (s->vocab + 7) / 8 * 8; /* logits: rows at multiples of 16 bytes */
    struct block_acts shared = { 0 };

    m->rope = arena_wide(a, s->context, model_rope_dims(s));
    if (s->family->pos == POS_ALIBI)
        m->slopes = arena_bytes(a, (size_t)s->heads * sizeof(float));
    if (s->family->embed_norm) {
        m->embedded = arena_mat(a, m->rows, s->dim);
        m->embed_stats = arena_wide(a, 2, m->rows);
    }
    block_lay_out(a, s, m->rows, BLOCK_ALL & ~m->kept, &shared);
    for (int64_t l = 0; l < layers; l++) {
        m->acts[l] = shared;
        block_lay_out(a, s, m->rows, m->kept, &m->acts[l]);
    }
    m->last = arena_mat(a, m->rows, s->dim);
    m->stats = arena_wide(a, 2, m->rows);
    m->normed = arena_mat(a, m->rows, s->dim);
    m->logits = kern_cols(arena_mat(a, m->chunk, wide), 0, s->vocab);
    m->loss = arena_wide(a, 1, m->rows);
    if (s->lora.rank) m->low = arena_mat(a, m->rows, s->lora.rank);
    if (!m->train) return;
    if (s->lora.rank) m->d_low = arena_mat(a, m->rows, s->lora.rank);
    block_lay_out_scratch(a, s, m->rows, &m->scratch);
    m->d = arena_mat(a, m->rows, s->dim);
    m->d_normed = arena_mat(a, m->rows, s->dim);
}

/* cos and sin of position * frequency, and their magnitude, in double, rounded once.  A
 * magnitude makes the turn no rotation, but the backward is still its transpose: the same
 * table with the sines negated. */
static kr_status fill_rope(struct model *m)
{
    int64_t dims = model_rope_dims(&m->shape), half = dims / 2, rows = m->shape.context;
    size_t count = (size_t)(rows * dims), elem = kern_dtype_bytes(m->wide);
    double *omega = NULL, *wide = NULL, size = model_rope_magnitude(&m->shape);
    float *narrow = NULL;
    kr_status st = KR_OK;

    if (dims == 0) return KR_OK;
    TRY_OR(st, mem_alloc(&omega, (size_t)half, sizeof *omega, "frequencies"), done);
    TRY_OR(st, mem_alloc(&wide, count, sizeof *wide, "angles"), done);
    TRY_OR(st, mem_alloc(&narrow, count, sizeof *narrow, "angles"), done);
    model_rope_frequencies(&m->shape, omega);
    for (int64_t i = 0; i < rows * half; i++) {
        int64_t at = i / half * dims + i % half;
        double angle = (double)(i / half) * omega[i % half];

        wide[at] = size * cos(angle);
        wide[at + half] = size * sin(angle);
    }
    for (size_t i = 0; i < count; i++)
        narrow[i] = (float)wide[i];
    TRY_OR(st,
           kern_upload(m->q, m->rope.at,
                       m->wide == KERN_F64 ? (void *)wide : (void *)narrow, count * elem),
           done);
    st = kern_queue_sync(m->q);
done:
    mem_free(omega);
    mem_free(wide);
    mem_free(narrow);
    return st;
}

static kr_status fill_slopes(struct model *m)
{
    size_t count = (size_t)m->shape.heads;
    float *slopes = NULL;
    kr_status st;

    if (!m->slopes) return KR_OK;
    TRY(mem_alloc(&slopes, count, sizeof *slopes, "slopes"));
    model_alibi_slopes(&m->shape, slopes);
    st = kern_upload(m->q, m->slopes, slopes, count * sizeof *slopes);
    if (st == KR_OK) st = kern_queue_sync(m->q);
    mem_free(slopes);
    return st;
}

int64_t model_chunk_rows(int64_t rows, int64_t vocab, enum kern_dtype type)
{
    int64_t most = type == KERN_BF16 ? CHUNK_GPU : CHUNK_CACHE;
    int64_t fit = most / vocab / CHUNK_ROWS * CHUNK_ROWS;

    if (fit < CHUNK_ROWS) fit = CHUNK_ROWS;
    return fit < rows ? fit : rows;
}

/* Everything but memory on a device: sizes, and how much memory there will be. */
static kr_status size_up(struct model *m, const struct model_shape *shape,
                         int64_t sequences, bool train, enum model_recompute recompute,
                         enum kern_dtype type, enum kern_dtype wide)
{
    static const unsigned kept[] = { [RECOMPUTE_NONE] = BLOCK_ALL,
                                     [RECOMPUTE_SELECTIVE] = BLOCK_INPUT | BLOCK_DEAR,
                                     [RECOMPUTE_FULL] = BLOCK_INPUT };
    struct arena a = { .type = type, .wide = wide };

    m->shape = *shape;
    m->type = type;
    m->wide = wide;
    m->train = train;
    m->kept = train ? kept[recompute] : BLOCK_ALL;
    if (shape->lora.rank) m->lora_scale = shape->lora.alpha / (double)shape->lora.rank;
    m->rows = sequences * shape->context;
    m->chunk = model_chunk_rows(m->rows, shape->vocab, type);
    TRY(mem_alloc(&m->acts, (size_t)(train ? shape->layers : 1), sizeof *m->acts,
                  "list of activations"));
    lay_out(m, &a);
    m->bytes = a.used;
    return KR_OK;
}

kr_status model_plan(struct model_plan *out, const struct model_shape *shape,
                     int64_t sequences, bool train, enum model_recompute recompute,
                     enum kern_dtype type, enum kern_dtype wide)
{
    struct model m = { 0 };

    TRY(size_up(&m, shape, sequences, train, recompute, type, wide));
    mem_free(m.acts);
    *out = (struct model_plan){ m.bytes, (size_t)(m.chunk * m.logits.ld) *
                                             kern_dtype_bytes(type) };
    return KR_OK;
}

kr_status model_open(struct model **out, const struct model_shape *shape,
                     const struct params *params, struct kern_queue *q, int64_t sequences,
                     bool train, enum model_recompute recompute)
{
    struct kern_device *d = kern_queue_device(q);
    struct model *m = NULL;
    struct arena a;
    kr_status st;

    TRY(mem_alloc(&m, 1, sizeof *m, "model"));
    m->params = params;
    m->q = q;
    m->device = d;
    TRY_OR(st,
           size_up(m, shape, sequences, train, recompute, kern_device_type(d),
                   kern_device_wide(d)),
           done);
    TRY_OR(st, kern_alloc(d, &m->block, m->bytes, "activations"), done);
    a = (struct arena){ .base = m->block, .type = m->type, .wide = m->wide };
    lay_out(m, &a);
    TRY_OR(st, fill_rope(m), done);
    TRY_OR(st, fill_slopes(m), done);
    *out = m;
done:
    if (st != KR_OK) model_close(m);
    return st;
}

void model_close(struct model *m)
{
    if (!m) return;
    kern_free(m->device, m->block);
    kern_free(m->device, m->cache);
    mem_free(m->acts);
    mem_free(m);
}

size_t model_bytes(const struct model *m) { return m->bytes; }

/* ---- views for one micro-batch ---------------------------------------------------------- */

/* The batch may be smaller than what the model was opened for. */
static struct block_acts cut_acts(const struct block_acts *a, int64_t n)
{
    return (struct block_acts){
        first_rows(a->x, n),           first_cols(a->stats1, n),
        first_rows(a->normed1, n),     first_rows(a->qkv, n),
        first_rows(a->att, n),         first_cols(a->lse, n),
        first_rows(a->raw1, n),        first_cols(a->stats_post1, n),
        first_rows(a->mid, n),         first_cols(a->stats2, n),
        first_rows(a->normed2, n),     first_rows(a->up, n),
        first_rows(a->act, n),         first_rows(a->raw2, n),
        first_cols(a->stats_post2, n),
    };
}

static struct block_scratch cut_scratch(const struct block_scratch *s, int64_t n)
{
    return (struct block_scratch){
        first_rows(s->d_normed, n), first_rows(s->d_att, n), first_rows(s->d_qkv, n),
        first_cols(s->delta, n),    first_rows(s->d_up, n),  first_rows(s->d_act, n),
        first_rows(s->d_raw, n),
    };
}

static struct block_env env_of(const struct model *m, const struct batch *b)
{
    int64_t n = model_rows(b);
    struct kern_mat rope = m->rope;

    if (m->past && rope.at) rope = kern_rows(rope, m->past, rope.rows - m->past);
    return (struct block_env){
        .q = m->q,
        .shape = &m->shape,
        .rope = rope,
        .slopes = m->slopes,
        .seq = b->seq,
        .start = b->start,
        .past = m->past,
        .lora = { m->q, m->lora_scale, first_rows(m->low, n), first_rows(m->d_low, n) },
    };
}

static kr_status check_batch(const struct model *m, const struct batch *b)
{
    if (b->seq >= 1 && b->seq <= m->shape.context && b->sequences >= 1 &&
        model_rows(b) <= m->rows)
        return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "a batch of %" PRId64 " sequences of %" PRId64 " tokens",
                   b->sequences, b->seq);
}

/* Views of the cache and of what attention makes, past rows first. */
static void with_past(const struct model *m, int64_t layer, int64_t n,
                      struct block_acts *acts)
{
    int64_t cols = model_qkv_rows(&m->shape), rows = m->past + n;
    size_t at = (size_t)(layer * m->shape.context * cols) * kern_dtype_bytes(m->type);

    acts->qkv = kern_mat((char *)m->cache + at, rows, cols, m->type);
    acts->att = first_rows(acts_of(m, layer)->att, rows);
    acts->lse = first_cols(acts_of(m, layer)->lse, rows);
}

/* Input of layer l; of layer L, the output of the last. */
static struct kern_mat input_of(const struct model *m, int64_t layer, int64_t n)
{
    return first_rows(layer == m->shape.layers ? m->last : acts_of(m, layer)->x, n);
}

/* ---- forward ---------------------------------------------------------------------------- */

static kr_status embed(struct model *m, const struct weights *w, const struct batch *b)
{
    int64_t n = model_rows(b);
    struct kern_mat x = input_of(m, 0, n);
    bool normed = m->shape.family->embed_norm;
    struct kern_mat position;
    void *flat;
    kr_status st;

    TRY(w->acquire(w->self, 0, &flat));
    position = model_view(m, 0, "embed.position", flat);
    if (position.at) position = kern_rows(position, m->past, position.rows - m->past);
    st =
        kern_embed_fwd(m->q, normed ? first_rows(m->embedded, n) : x, b->token,
                       model_view(m, 0, "embed.token", flat), position, b->seq, b->start);
    if (st == KR_OK && normed)
        st = kern_norm_fwd(
            m->q, m->shape.family->norm, x, first_cols(m->embed_stats, n),
            first_rows(m->embedded, n), model_view(m, 0, "embed.norm.weight", flat),
            model_view(m, 0, "embed.norm.bias", flat), model_norm_eps(&m->shape));
    w->release(w->self, 0);
    return st;
}

/* The units of a layer: the block's and, where there are adapters, theirs. */
struct layer_units {
    int block, lora; /* lora: -1 */
    void *block_flat, *lora_flat;
};

static kr_status acquire_layer(const struct model *m, const struct weights *w,
                               int64_t layer, struct layer_units *out)
{
    struct layer_units u = { (int)layer + 1, params_lora_unit(m->params, layer), NULL,
                             NULL };
    kr_status st;

    TRY(w->acquire(w->self, u.block, &u.block_flat));
    st = u.lora < 0 ? KR_OK : w->acquire(w->self, u.lora, &u.lora_flat);
    if (st == KR_OK)
        *out = u;
    else
        w->release(w->self, u.block);
    return st;
}

static void release_layer(const struct weights *w, const struct layer_units *u)
{
    if (u->lora >= 0) w->release(w->self, u->lora);
    w->release(w->self, u->block);
}

static kr_status forward_layer(struct model *m, const struct weights *w,
                               const struct batch *b, int64_t layer)
{
    struct block_acts acts = cut_acts(acts_of(m, layer), model_rows(b));
    struct block_env env = env_of(m, b);
    struct kern_mat out = input_of(m, layer + 1, model_rows(b));
    struct block_params params;
    struct layer_units u;
    kr_status st;

    TRY(acquire_layer(m, w, layer, &u));
    block_params(m->params, (int32_t)layer, u.block_flat, u.lora_flat, m->type, &params);
    if (m->caching) with_past(m, layer, model_rows(b), &acts);
    st = block_fwd(&env, &params, &acts, out);
    release_layer(w, &u);
    return st;
}

/* Everything up to the input of the head. */
static kr_status forward(struct model *m, const struct weights *w, const struct batch *b)
{
    TRY(check_batch(m, b));
    TRY(embed(m, w, b));
    for (int64_t l = 0; l < m->shape.layers; l++)
        TRY(forward_layer(m, w, b, l));
    return KR_OK;
}

/* ---- backward --------------------------------------------------------------------------- */

/* Where gradients of a layer go. */
static kr_status layer_grads(const struct model *m, const struct weights *w,
                             const struct layer_units *u, int64_t layer,
                             struct block_params *out, bool *add)
{
    void *flat, *lora = NULL;

    TRY(model_grads(m, w, u->block, &flat, add));
    if (u->lora >= 0) TRY(model_grads(m, w, u->lora, &lora, add));
    block_params(m->params, (int32_t)layer, flat, lora, m->wide, out);
    return KR_OK;
}

static kr_status backward_layer(struct model *m, const struct weights *w,
                                const struct batch *b, int64_t layer)
{
    struct block_acts acts = cut_acts(acts_of(m, layer), model_rows(b));
    struct block_scratch scratch = cut_scratch(&m->scratch, model_rows(b));
    struct block_env env = env_of(m, b);
    struct block_params params, grads;
    struct layer_units u;
    bool add;
    kr_status st;

    TRY(acquire_layer(m, w, layer, &u));
    TRY_OR(st, layer_grads(m, w, &u, layer, &grads, &add), done);
    block_params(m->params, (int32_t)layer, u.block_flat, u.lora_flat, m->type, &params);
    /* the members that layers share are still those of the last one */
    if (layer < m->shape.layers - 1)
        TRY_OR(st, block_remake(&env, &params, &acts, &scratch, m->kept), done);
    TRY_OR(st,
           block_bwd(&env, &params, &grads, add, &acts, &scratch,
                     first_rows(m->d, model_rows(b))),
           done);
    st = model_grads_ready(m, w, u.lora < 0 ? u.block : u.lora);
done:
    release_layer(w, &u);
    return st;
}

/* Turns d from the gradient of the normed embedding into that of the embedding. */
static kr_status backward_embed_norm(struct model *m, const struct weights *w,
                                     const struct batch *b)
{
    struct kern_mat d = first_rows(m->d, model_rows(b));
    void *flat, *grad_flat;
    bool add;
    kr_status st;

    TRY(w->acquire(w->self, 0, &flat));
    TRY_OR(st, w->grads(w->self, 0, &grad_flat, &add), done);
    st = kern_norm_bwd(m->q, m->shape.family->norm, d, false,
                       model_view_grad(m, 0, "embed.norm.weight", grad_flat),
                       model_view_grad(m, 0, "embed.norm.bias", grad_flat), add, d,
                       first_rows(m->embedded, model_rows(b)),
                       model_view(m, 0, "embed.norm.weight", flat),
                       first_cols(m->embed_stats, model_rows(b)));
done:
    w->release(w->self, 0);
    return st;
}

static kr_status backward_embed(struct model *m, const struct weights *w,
                                const struct batch *b)
{
    bool tied = model_tied(&m->shape), add;
    struct kern_mat d_token, d_position;
    void *flat;

    if (m->params->frozen) return KR_OK;
    if (m->shape.family->embed_norm) TRY(backward_embed_norm(m, w, b));
    TRY(w->grads(w->self, 0, &flat, &add));
    d_token = model_view_grad(m, 0, "embed.token", flat);
    d_position = model_view_grad(m, 0, "embed.position", flat);
    /* a tied matrix has the head's gradient already */
    if (tied && !add && d_position.at) TRY(kern_fill(m->q, d_position, 0));
    TRY(kern_embed_bwd(m->q, d_token, d_position, b->token,
                       first_rows(m->d, model_rows(b)), b->seq, b->start, add || tied));
    return w->grads_ready(w->self, 0);
}

/* ---- front doors ------------------------------------------------------------------------ */

kr_status model_eval(struct model *m, const struct weights *w, const struct batch *b,
                     double *loss)
{
    TRY(forward(m, w, b));
    TRY(head_eval(m, w, b));
    return kern_sum(m->q, loss, first_cols(m->loss, model_rows(b)));
}

kr_status model_train(struct model *m, const struct weights *w, const struct batch *b,
                      double grad_scale, double *loss)
{
    TRY(forward(m, w, b));
    TRY(head_train(m, w, b, grad_scale));
    for (int64_t l = m->shape.layers - 1; l >= 0; l--)
        TRY(backward_layer(m, w, b, l));
    TRY(backward_embed(m, w, b));
    return kern_sum(m->q, loss, first_cols(m->loss, model_rows(b)));
}

kr_status model_logits(struct model *m, const struct weights *w, const struct batch *b,
                       struct kern_mat logits)
{
    TRY(forward(m, w, b));
    return head_logits(m, w, b, logits);
}

kr_status model_open_cache(struct model *m)
{
    size_t elements =
        (size_t)(m->shape.layers * m->shape.context * model_qkv_rows(&m->shape));

    return kern_alloc(m->device, &m->cache, elements * kern_dtype_bytes(m->type),
                      "keys and values");
}

kr_status model_next(struct model *m, const struct weights *w, const struct batch *b,
                     int64_t past, struct kern_mat logits)
{
    kr_status st;

    if (!m->cache || past < 0 || b->sequences != 1 || past + b->seq > m->shape.context)
        return KR_FAIL(KR_ERR_ARG, "%" PRId64 " tokens after %" PRId64 " of a sequence",
                       b->seq, past);
    m->caching = true;
    m->past = past;
    st = model_logits(m, w, b, logits);
    m->caching = false;
    m->past = 0;
    return st;
}
