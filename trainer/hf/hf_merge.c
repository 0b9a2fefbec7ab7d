/* hf_merge.c - rows of B times A, where a stored tensor and an adapter meet. */
#include "trainer/hf/hf_merge.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* One adapter of the block that e is of. */
struct pair {
    int32_t a, b;        /* parameters */
    int64_t first, rows; /* of our matrix */
};

/* False: it has none, or it is beside another matrix. */
static bool find_pair(const struct params *params, const struct model_shape *s,
                      const struct hf_entry *e, int site, struct pair *out)
{
    static const char *const matrices[] = { [BLOCK_QKV] = "attn.qkv",
                                            [BLOCK_OUT] = "attn.out",
                                            [BLOCK_UP] = "mlp.up",
                                            [BLOCK_DOWN] = "mlp.down" };
    const struct param *p = &params->list[e->param];
    char name[PARAMS_NAME];

    if (!lora_has(&s->lora, site)) return false;
    snprintf(name, sizeof name, "block.%d.%s.weight", p->unit - 1,
             matrices[lora_matrix(site)]);
    if (strcmp(name, p->name) != 0) return false;
    snprintf(name, sizeof name, "block.%d.lora.%s.a", p->unit - 1, lora_name(site));
    out->a = params_find(params, name);
    snprintf(name, sizeof name, "block.%d.lora.%s.b", p->unit - 1, lora_name(site));
    out->b = params_find(params, name);
    lora_rows(s, site, &out->first, &out->rows);
    return true;
}

/* row += scale b A; sum has room for a row. */
static void add_row(float *row, const float *b, const float *a, int64_t rank, int64_t in,
                    float scale, float *sum)
{
    memset(sum, 0, (size_t)in * sizeof *sum);
    for (int64_t k = 0; k < rank; k++)
        for (int64_t c = 0; c < in; c++)
            sum[c] += b[k] * a[k * in + c];
    for (int64_t c = 0; c < in; c++)
        row[c] += scale * sum[c];
}

static kr_status add_pair(const struct params *params, const struct lora *lora,
                          const struct hf_entry *e, const struct pair *p,
                          const struct hf_source *source, float *lines)
{
    int64_t rank = lora->rank, in = params->list[p->a].cols;
    int64_t begin = p->first > e->first ? p->first : e->first;
    int64_t end = p->first + p->rows < e->first + e->lines ? p->first + p->rows
                                                           : e->first + e->lines;
    float *a = NULL, *b = NULL, *sum = NULL, scale = (float)(lora->alpha / (double)rank);
    kr_status st = KR_OK;

    if (begin >= end) return KR_OK;
    TRY_OR(st, mem_alloc(&a, (size_t)(rank * in), sizeof *a, "an adapter"), done);
    TRY_OR(st, mem_alloc(&b, (size_t)(p->rows * rank), sizeof *b, "an adapter"), done);
    TRY_OR(st, mem_alloc(&sum, (size_t)in, sizeof *sum, "a row"), done);
    TRY_OR(st, source->read(source->self, p->a, a), done);
    TRY_OR(st, source->read(source->self, p->b, b), done);
    for (int64_t r = begin; r < end; r++)
        add_row(lines + (r - e->first) * in, b + (r - p->first) * rank, a, rank, in,
                scale, sum);
done:
    mem_free(a);
    mem_free(b);
    mem_free(sum);
    return st;
}

kr_status hf_merge(const struct params *params, const struct model_shape *shape,
                   const struct hf_entry *e, const struct hf_source *source, float *lines)
{
    struct pair p;

    for (int site = 0; site < LORA_SITES; site++)
        if (find_pair(params, shape, e, site, &p))
            TRY(add_pair(params, &shape->lora, e, &p, source, lines));
    return KR_OK;
}
