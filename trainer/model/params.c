/* params.c - the list, unit by unit. */
#include "trainer/model/params.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

enum { PER_BLOCK = 16 + 2 * LORA_SITES, OTHERS = 8 };
static const double base_std = 0.02; /* GPT-2's */

/* Append one parameter to the unit; rows == 0: there is none. */
static void add(struct params *p, int32_t unit, const char *name, int64_t rows,
                int64_t cols, enum param_init init, double std)
{
    struct param *new = &p->list[p->count];
    int64_t *len = &p->unit_len[unit];

    if (rows == 0) return;
    snprintf(new->name, sizeof new->name, "%s", name);
    new->rows = rows;
    new->cols = cols;
    new->unit = unit;
    new->offset = *len;
    new->init = init;
    new->std = std;
    new->decay = rows > 1 || init == INIT_UNIFORM;
    *len += (rows * cols + PARAMS_ALIGN - 1) / PARAMS_ALIGN * PARAMS_ALIGN;
    p->total += rows * cols;
    p->count++;
}

static void add_norm(struct params *p, int32_t unit, const char *prefix,
                     const struct model_shape *s)
{
    char name[PARAMS_NAME];

    snprintf(name, sizeof name, "%s.weight", prefix);
    add(p, unit, name, 1, s->dim, INIT_ONE, 0);
    snprintf(name, sizeof name, "%s.bias", prefix);
    add(p, unit, name, s->family->norm_bias, s->dim, INIT_ZERO, 0);
}

/* A matrix (out, in) and its bias. */
static void add_linear(struct params *p, int32_t unit, const char *prefix, int64_t out,
                       int64_t in, bool bias, double std)
{
    char name[PARAMS_NAME];

    snprintf(name, sizeof name, "%s.weight", prefix);
    add(p, unit, name, out, in, INIT_NORMAL, std);
    snprintf(name, sizeof name, "%s.bias", prefix);
    add(p, unit, name, bias, out, INIT_ZERO, 0);
}

static void add_block(struct params *p, int32_t layer, const struct model_shape *s)
{
    /* what adds to the residual stream starts smaller, for it adds 2 L times */
    double residual_std = base_std / sqrt(2 * (double)s->layers);
    char name[PARAMS_NAME / 2], at[PARAMS_NAME];
    int32_t unit = layer + 1;

    snprintf(name, sizeof name, "block.%d", layer);
#define AT(what) (snprintf(at, sizeof at, "%s.%s", name, what), at)
    add_norm(p, unit, AT("norm1"), s);
    add_linear(p, unit, AT("attn.qkv"), model_qkv_rows(s), s->dim, model_qkv_bias(s),
               base_std);
    add_linear(p, unit, AT("attn.out"), s->dim, s->heads * s->head_dim, model_out_bias(s),
               residual_std);
    if (s->family->sandwich) add_norm(p, unit, AT("post1"), s);
    add_norm(p, unit, AT("norm2"), s);
    add_linear(p, unit, AT("mlp.up"), model_up_rows(s), s->dim, model_mlp_bias(s),
               base_std);
    add_linear(p, unit, AT("mlp.down"), s->dim, s->ffn, model_mlp_bias(s), residual_std);
    if (s->family->sandwich) add_norm(p, unit, AT("post2"), s);
#undef AT
}

/* Adapters: A as torch's Linear and PEFT begin it (Kaiming's uniform with a = sqrt 5, that is
 * up to 1 / sqrt(in)), B zero, so that they begin by changing nothing. */
static void add_lora(struct params *p, int32_t layer, const struct model_shape *s)
{
    int32_t unit = params_lora_unit(p, layer);
    char name[PARAMS_NAME];

    for (int i = 0; i < LORA_SITES; i++) {
        int64_t first, rows, in = lora_inputs(s, i);

        if (!lora_has(&s->lora, i)) continue;
        lora_rows(s, i, &first, &rows);
        snprintf(name, sizeof name, "block.%d.lora.%s.a", layer, lora_name(i));
        add(p, unit, name, s->lora.rank, in, INIT_UNIFORM, 1 / sqrt(3 * (double)in));
        snprintf(name, sizeof name, "block.%d.lora.%s.b", layer, lora_name(i));
        add(p, unit, name, rows, s->lora.rank, INIT_ZERO, 0);
    }
}

kr_status params_build(struct params *out, const struct model_shape *s)
{
    struct params p = { .units = (int32_t)s->layers + 2 };
    int32_t head = p.units - 1;
    kr_status st;

    if (s->lora.rank > 0) {
        p.frozen = p.units;
        p.units += (int32_t)s->layers;
    }

    TRY_OR(st,
           mem_alloc(&p.list, (size_t)(PER_BLOCK * s->layers + OTHERS), sizeof *p.list,
                     "list of parameters"),
           done);
    TRY_OR(st,
           mem_alloc(&p.unit_len, (size_t)p.units, sizeof *p.unit_len, "list of units"),
           done);
    TRY_OR(st, mem_alloc(&p.begin, (size_t)p.units + 1, sizeof *p.begin, "list of units"),
           done);
    add(&p, 0, "embed.token", s->vocab, s->dim, INIT_NORMAL, base_std);
    add(&p, 0, "embed.position", s->family->pos == POS_LEARNED ? s->context : 0, s->dim,
        INIT_NORMAL, base_std);
    if (s->family->embed_norm) add_norm(&p, 0, "embed.norm", s);
    for (int32_t l = 0; l < s->layers; l++)
        add_block(&p, l, s);
    add_norm(&p, head, "norm", s);
    add_linear(&p, head, "head", model_tied(s) ? 0 : s->vocab, s->dim, false, base_std);
    p.trained = p.total;
    if (p.frozen) {
        p.first = p.count;
        for (int32_t l = 0; l < s->layers; l++)
            add_lora(&p, l, s);
        p.trained = p.total - p.trained;
    }
    for (int32_t i = 0; i < p.count; i++) {
        int64_t number;

        p.begin[p.list[i].unit + 1] = i + 1;
        TRY_OR(st, words_add(&p.names, p.list[i].name, strlen(p.list[i].name), &number),
               done);
    }
    *out = p;
done:
    if (st != KR_OK) params_free(&p);
    return st;
}

void params_free(struct params *p)
{
    mem_free(p->list);
    words_free(&p->names);
    mem_free(p->begin);
    mem_free(p->unit_len);
    *p = (struct params){ 0 };
}

int32_t params_find(const struct params *p, const char *name)
{
    return (int32_t)words_find(&p->names, name, strlen(name));
}

void params_init(const struct params *p, int32_t i, uint64_t seed, int64_t begin,
                 int64_t count, double *out)
{
    const struct param *par = &p->list[i];

    for (int64_t k = 0; k < count; k++) {
        switch (par->init) {
        case INIT_ZERO: out[k] = 0; break;
        case INIT_ONE: out[k] = 1; break;
        case INIT_NORMAL:
            out[k] =
                par->std * rng_normal(seed, RNG_INIT, (uint32_t)i, (uint64_t)(begin + k));
            break;
        case INIT_UNIFORM:
            out[k] =
                par->std * sqrt(3) *
                (2 * rng_uniform(seed, RNG_INIT, (uint32_t)i, (uint64_t)(begin + k)) - 1);
        }
    }
}
