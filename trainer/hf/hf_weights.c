/* hf_weights.c - piece by piece, and what adapters add. */
#include "trainer/hf/hf_weights.h"

#include <stdio.h>

#include "base/bf16.h"
#include "base/mem.h"
#include "checkpoints/shard_read.h"
#include "trainer/hf/hf_merge.h"
#include "trainer/run/base.h"

enum { PIECE = 1 << 20 /* elements read at a time */ };

static kr_status open_base(struct hf_weights *w)
{
    if (w->params.frozen == 0) return KR_OK;
    TRY(base_find(&w->set, w->base.folder));
    return manifest_read(&w->base.m, w->base.folder);
}

static kr_status open_all(struct hf_weights *w, const struct options *o)
{
    TRY(mem_alloc(&w->raw, PIECE, sizeof(double), "part of a parameter"));
    TRY(manifest_read(&w->own.m, w->own.folder));
    TRY(cfg_defaults(settings_table, &w->set));
    TRY(cfg_read_text(settings_table, &w->set, w->own.m.settings, w->own.folder));
    for (int i = 0; i < o->set_count; i++)
        TRY(cfg_set(settings_table, &w->set, o->sets[i], "--set"));
    settings_shape(&w->set, &w->shape);
    TRY(model_shape_check(&w->shape));
    TRY(params_build(&w->params, &w->shape));
    return open_base(w);
}

kr_status hf_weights_open(struct hf_weights *w, const char *folder,
                          const struct options *o)
{
    kr_status st;

    *w = (struct hf_weights){ .raw = NULL };
    st = fs_path(w->own.folder, "%s", folder);
    if (st == KR_OK) st = open_all(w, o);
    if (st != KR_OK) hf_weights_close(w);
    return st;
}

void hf_weights_close(struct hf_weights *w)
{
    manifest_free(&w->own.m);
    manifest_free(&w->base.m);
    params_free(&w->params);
    mem_free(w->raw);
    *w = (struct hf_weights){ .raw = NULL };
}

/* Where parameter i is, and as which tensor. */
static kr_status tensor_of(const struct hf_weights *w, int32_t i,
                           const struct hf_stored **from, int32_t *tensor)
{
    const struct param *p = &w->params.list[i];
    const struct hf_stored *s = i < w->params.first ? &w->base : &w->own;
    char name[CKPT_NAME];

    snprintf(name, sizeof name, "weight/%s", p->name);
    *tensor = manifest_find(&s->m, name);
    if (*tensor < 0) return KR_FAIL(KR_ERR_DATA, "%s: has no tensor %s", s->folder, name);
    if (s->m.tensors[*tensor].rows != p->rows || s->m.tensors[*tensor].cols != p->cols)
        return KR_FAIL(KR_ERR_DATA,
                       "%s: tensor %s has another shape than its settings say", s->folder,
                       name);
    *from = s;
    return KR_OK;
}

static float value_at(const char *raw, enum kern_dtype type, int64_t i)
{
    if (type == KERN_F64) return (float)((const double *)(const void *)raw)[i];
    if (type == KERN_BF16) return bf16_value(((const uint16_t *)(const void *)raw)[i]);
    return ((const float *)(const void *)raw)[i];
}

/* Elements [first, first + total) of parameter i. */
static kr_status read_param(struct hf_weights *w, int32_t i, int64_t first, int64_t total,
                            float *out)
{
    const struct hf_stored *s = NULL;
    int32_t tensor = -1;

    TRY(tensor_of(w, i, &s, &tensor));
    for (int64_t at = 0; at < total; at += PIECE) {
        int64_t n = total - at < PIECE ? total - at : PIECE;

        TRY(shard_read(&s->m, s->folder, tensor, first + at, n, w->raw));
        for (int64_t k = 0; k < n; k++)
            out[at + k] = value_at(w->raw, s->m.tensors[tensor].type, k);
    }
    return KR_OK;
}

static kr_status read_whole(void *self, int32_t param, float *out)
{
    struct hf_weights *w = self;
    const struct param *p = &w->params.list[param];

    return read_param(w, param, 0, p->rows * p->cols, out);
}

kr_status hf_weights_read(struct hf_weights *w, const struct hf_entry *e, float *lines)
{
    struct hf_source source = { read_whole, w };

    TRY(read_param(w, e->param, e->first * e->width, hf_entry_elements(e), lines));
    if (e->param >= w->params.first) return KR_OK;
    return hf_merge(&w->params, &w->shape, e, &source, lines);
}
