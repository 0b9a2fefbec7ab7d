/* hf_plan.c - tables and sizes to lists; index arithmetic. */
#include "trainer/hf/hf_plan.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* A name of the table for one block. */
static void name_of(char *out, size_t room, const char *prefix, const char *pattern,
                    int64_t block)
{
    const char *hole = strstr(pattern, "%d");

    if (hole)
        snprintf(out, room, "%s%.*s%lld%s", prefix, (int)(hole - pattern), pattern,
                 (long long)block, hole + 2);
    else
        snprintf(out, room, "%s%s", prefix, pattern);
}

/* First line and number of lines of a part. */
static void lines_of(enum hf_part part, const struct model_shape *s, struct hf_entry *e)
{
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const int64_t place[][2] = {
        [HF_ALL] = { 0, e->lines }, [HF_Q] = { 0, q },
        [HF_K] = { q, kv },         [HF_V] = { q + kv, kv },
        [HF_GATE] = { 0, s->ffn },  [HF_UP] = { s->ffn, s->ffn },
    };

    e->first = place[part][0];
    e->lines = place[part][1];
}

/* One stored tensor; false: the model has no such parameter. */
static bool entry_of(const struct hf_tensor *t, const struct params *params,
                     const struct model_shape *s, const char *prefix, int64_t block,
                     struct hf_entry *e)
{
    char ours[PARAMS_NAME];
    const struct param *p;
    bool matrix, turned = t->layout == HF_TRANSPOSED;

    name_of(ours, sizeof ours, "", t->ours, block);
    *e = (struct hf_entry){ .row = t, .heads = s->heads, .head_dim = s->head_dim };
    e->copy = model_tied(s) && strcmp(ours, "head.weight") == 0;
    e->param = params_find(params, e->copy ? "embed.token" : ours);
    if (e->param < 0) return false;
    name_of(e->name, sizeof e->name, t->bare ? "" : prefix, t->theirs, block);
    p = &params->list[e->param];
    matrix = p->init == INIT_NORMAL; /* what starts as noise is one, even of one row */
    e->lines = matrix ? p->rows : p->cols;
    e->width = matrix ? p->cols : 1;
    lines_of(t->part, s, e);
    e->dims = matrix ? 2 : 1;
    e->shape[0] = turned ? e->width : e->lines;
    e->shape[1] = turned ? e->lines : e->width;
    return true;
}

kr_status hf_plan_build(struct hf_plan *out, int family, const struct params *params,
                        const struct model_shape *shape, bool prefix)
{
    const struct hf_family *f = &hf_families[family];
    struct hf_plan p = { 0 };
    size_t rows = 0;
    kr_status st;

    for (const struct hf_tensor *t = f->tensors; t->theirs; t++)
        rows += strstr(t->theirs, "%d") ? (size_t)shape->layers : 1;
    TRY(mem_alloc(&p.list, rows, sizeof *p.list, "list of stored tensors"));
    for (const struct hf_tensor *t = f->tensors; t->theirs; t++)
        for (int64_t l = 0; l < (strstr(t->theirs, "%d") ? shape->layers : 1); l++)
            if (entry_of(t, params, shape, prefix ? f->prefix : "", l, &p.list[p.count]))
                p.count++;
    st = hf_plan_index(&p, params);
    if (st == KR_OK)
        *out = p;
    else
        hf_plan_free(&p);
    return st;
}

kr_status hf_plan_index(struct hf_plan *p, const struct params *params)
{
    TRY(mem_alloc(&p->first, (size_t)params->count, sizeof *p->first, "list of tensors"));
    for (int32_t i = 0; i < params->count; i++)
        p->first[i] = -1;
    /* each goes before those that are there already */
    for (int copies = 1; copies >= 0; copies--)
        for (int32_t k = p->count - 1; k >= 0; k--) {
            struct hf_entry *e = &p->list[k];

            if (e->copy != (copies == 1)) continue;
            e->next = p->first[e->param];
            p->first[e->param] = k;
        }
    for (int32_t k = 0; k < p->count; k++) {
        int64_t number;

        TRY(words_add(&p->names, p->list[k].name, strlen(p->list[k].name), &number));
    }
    return KR_OK;
}

void hf_plan_free(struct hf_plan *p)
{
    mem_free(p->list);
    mem_free(p->first);
    words_free(&p->names);
    *p = (struct hf_plan){ 0 };
}

const struct hf_entry *hf_plan_find(const struct hf_plan *p, const char *name)
{
    int64_t i = words_find(&p->names, name, strlen(name));

    return i < 0 ? NULL : &p->list[i];
}

int64_t hf_entry_elements(const struct hf_entry *e) { return e->lines * e->width; }

struct hf_run hf_entry_run(const struct hf_entry *e, int64_t at, int64_t most)
{
    bool turned = e->row->layout == HF_TRANSPOSED;
    int64_t across = turned ? e->lines : e->width; /* of the stored rows */
    int64_t line = at / across, from = at % across, d = e->head_dim;
    struct hf_run run = { 0, 1, most };

    if (e->row->layout == HF_SAME) {
        run.base = at;
        return run;
    }
    if (across - from < most) run.count = across - from;
    if (turned) {
        run.base = from * e->width + line;
        run.stride = e->width;
        return run;
    }
    line = line / d % 3 * e->heads * d + line / (3 * d) * d + line % d;
    run.base = line * e->width + from;
    return run;
}
