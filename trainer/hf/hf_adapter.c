/* hf_adapter.c - from the family's table to names, places and sites. */
#include "trainer/hf/hf_adapter.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

bool hf_is_adapter(const char *folder)
{
    char path[FS_PATH];

    return fs_path(path, "%s/" HF_ADAPTER_CONFIG, folder) == KR_OK && fs_exists(path);
}

int hf_adapter_site(int family, const struct hf_tensor *row)
{
    static const struct {
        const char *ours;
        enum hf_part part;
        enum lora_site site;
    } list[] = {
        { "block.%d.attn.qkv.weight", HF_ALL, LORA_QKV },
        { "block.%d.attn.qkv.weight", HF_Q, LORA_Q },
        { "block.%d.attn.qkv.weight", HF_K, LORA_K },
        { "block.%d.attn.qkv.weight", HF_V, LORA_V },
        { "block.%d.attn.out.weight", HF_ALL, LORA_OUT },
        { "block.%d.mlp.up.weight", HF_ALL, LORA_GATE_UP },
        { "block.%d.mlp.up.weight", HF_ALL, LORA_UP }, /* not gated */
        { "block.%d.mlp.up.weight", HF_GATE, LORA_GATE },
        { "block.%d.mlp.up.weight", HF_UP, LORA_UP },
        { "block.%d.mlp.down.weight", HF_ALL, LORA_DOWN },
    };
    unsigned there = lora_sites(&families[family]);

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (strcmp(row->ours, list[i].ours) == 0 && row->part == list[i].part &&
            (there >> list[i].site & 1))
            return (int)list[i].site;
    return -1;
}

/* ---- tensors ---------------------------------------------------------------------------- */

static const char *const letters[] = { "A", "B" };

static void name_of(char out[ST_NAME], int family, const struct hf_tensor *row,
                    int64_t block, int which)
{
    const char *hole = strstr(row->theirs, "%d"), *rest = hole + 2;

    snprintf(out, ST_NAME, "base_model.model.%s%.*s%lld%.*s.lora_%s.weight",
             hf_families[family].prefix, (int)(hole - row->theirs), row->theirs,
             (long long)block, (int)(strlen(rest) - strlen(".weight")), rest,
             letters[which]);
}

/* Rows of B lie as those of the matrix do; transposed matrices have theirs in order. */
static void entry_of(struct hf_entry *e, int family, const struct hf_tensor *row,
                     int64_t block, int which, const struct params *params,
                     const struct model_shape *s)
{
    static const struct hf_tensor same = { .layout = HF_SAME },
                                  by_head = { .layout = HF_BY_HEAD };
    char ours[PARAMS_NAME];
    const struct param *p;

    snprintf(ours, sizeof ours, "block.%lld.lora.%s.%s", (long long)block,
             lora_name(hf_adapter_site(family, row)), which ? "b" : "a");
    *e = (struct hf_entry){ .row = which && row->layout == HF_BY_HEAD ? &by_head : &same,
                            .param = params_find(params, ours),
                            .heads = s->heads,
                            .head_dim = s->head_dim,
                            .dims = 2 };
    name_of(e->name, family, row, block, which);
    p = &params->list[e->param];
    e->lines = e->shape[0] = p->rows;
    e->width = e->shape[1] = p->cols;
}

kr_status hf_adapter_plan(struct hf_plan *out, int family, const struct params *params,
                          const struct model_shape *shape)
{
    struct hf_plan p = { 0 };
    kr_status st;

    TRY(mem_alloc(&p.list, (size_t)(2 * LORA_SITES * shape->layers), sizeof *p.list,
                  "list of adapters"));
    for (const struct hf_tensor *t = hf_families[family].tensors; t->theirs; t++) {
        int site = hf_adapter_site(family, t);

        if (site < 0 || !lora_has(&shape->lora, site)) continue;
        for (int64_t l = 0; l < shape->layers; l++)
            for (int which = 0; which < 2; which++)
                entry_of(&p.list[p.count++], family, t, l, which, params, shape);
    }
    st = hf_plan_index(&p, params);
    if (st == KR_OK)
        *out = p;
    else
        hf_plan_free(&p);
    return st;
}

kr_status hf_adapter_sites(unsigned *out, int family, const struct st_header *h,
                           const char *source)
{
    unsigned sites = 0;
    char name[ST_NAME];

    for (const struct hf_tensor *t = hf_families[family].tensors; t->theirs; t++) {
        int site = hf_adapter_site(family, t);

        for (int which = 0; which < 2 && site >= 0; which++) {
            name_of(name, family, t, 0, which);
            if (st_header_find(h, name) >= 0) sites |= 1u << site;
        }
    }
    if (sites == 0)
        return KR_FAIL(KR_ERR_DATA, "%s: has no adapter of a matrix of %s", source,
                       families[family].name);
    *out = sites;
    return KR_OK;
}
