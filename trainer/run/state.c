/* state.c - the list of tensors, and which part of each this rank stands for. */
#include "trainer/run/state.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"

static const char *const kinds[] = { "weight", "adam_m", "adam_v" };
enum { KINDS = sizeof kinds / sizeof *kinds };

static void *array_of(const struct shard_own *o, int kind)
{
    return kind == 0 ? o->w : kind == 1 ? o->m : o->v;
}

static enum kern_dtype type_of(const struct trainer *t, int kind)
{
    return kind == 0 ? kern_device_wide(t->device) : t->moments;
}

/* The elements of parameter i in a part of its unit. */
static struct span in_unit(const struct param *p, struct span part)
{
    return part_meet(part, (struct span){ p->offset, p->offset + p->rows * p->cols });
}

/* The part of parameter i that this rank stands for; false if there is none. */
static bool piece_of(const struct trainer *t, const struct shard_own *share, int32_t i,
                     int kind, struct ckpt_piece *out)
{
    const struct param *p = &t->params.list[i];
    const struct shard_own *o = &share[p->unit];
    struct span both = in_unit(p, o->span);
    size_t elem = kern_dtype_bytes(type_of(t, kind));

    if (both.begin == both.end) return false;
    *out = (struct ckpt_piece){
        .begin = both.begin - p->offset,
        .count = both.end - both.begin,
        .at = (char *)array_of(o, kind) + (size_t)(both.begin - o->span.begin) * elem,
    };
    return true;
}

static void name_tensor(const struct trainer *t, int32_t i, int kind,
                        struct ckpt_tensor *out)
{
    const struct param *p = &t->params.list[i];

    snprintf(out->name, sizeof out->name, "%s/%s", kinds[kind], p->name);
    out->rows = p->rows;
    out->cols = p->cols;
    out->type = type_of(t, kind);
}

/* The tensors and pieces of parameters [begin, end). */
static kr_status open_list(struct state *out, const struct trainer *t, int used,
                           int32_t begin, int32_t end)
{
    int count;
    const struct shard_own *share = shard_share(t->shard, &count);
    size_t most = (size_t)((end - begin) * used);
    struct state s = { 0 };
    kr_status st;

    TRY_OR(st, mem_alloc(&s.tensors, most, sizeof *s.tensors, "list of tensors"), done);
    TRY_OR(st, mem_alloc(&s.pieces, most, sizeof *s.pieces, "list of pieces"), done);
    for (int kind = 0; kind < used; kind++)
        for (int32_t i = begin; i < end; i++) {
            struct ckpt_piece *piece = &s.pieces[s.view.piece_count];

            name_tensor(t, i, kind, &s.tensors[s.view.tensor_count]);
            if (piece_of(t, share, i, kind, piece)) {
                piece->tensor = s.view.tensor_count;
                s.view.piece_count++;
            }
            s.view.tensor_count++;
        }
    s.view.tensors = s.tensors;
    s.view.pieces = s.pieces;
    *out = s;
done:
    if (st != KR_OK) state_close(&s);
    return st;
}

static kr_status open_kinds(struct state *out, const struct trainer *t, int used)
{
    return open_list(out, t, used, t->params.first, t->params.count);
}

kr_status state_open(struct state *out, const struct trainer *t)
{
    return open_kinds(out, t, t->training ? KINDS : 1);
}

kr_status state_open_weights(struct state *out, const struct trainer *t)
{
    return open_kinds(out, t, 1);
}

kr_status state_open_frozen(struct state *out, const struct trainer *t, int unit)
{
    return open_list(out, t, 1, t->params.begin[unit], t->params.begin[unit + 1]);
}

void state_close(struct state *s)
{
    mem_free(s->tensors);
    mem_free(s->pieces);
    *s = (struct state){ 0 };
}

/* As piece_of, for the rank and the number of ranks that shard.h would give the share. */
static bool extent_of(const struct trainer *t, int32_t world, int32_t rank, int32_t i,
                      int kind, struct snapshot_extent *out)
{
    int32_t first = t->params.first, trained = t->params.count - first;
    const struct param *p = &t->params.list[i];
    struct span both = in_unit(p, part_own(t->params.unit_len[p->unit], world, rank));

    if (both.begin == both.end) return false;
    *out = (struct snapshot_extent){ kind * trained + i - first, both.begin - p->offset,
                                     both.end - both.begin };
    return true;
}

kr_status state_layout(void *self, int32_t world, int32_t rank,
                       struct snapshot_extent **out, int32_t *count)
{
    const struct trainer *t = self;
    int used = t->training ? KINDS : 1;
    struct snapshot_extent *list = NULL;
    int32_t n = 0;

    TRY(mem_alloc(&list, (size_t)(t->params.count * used), sizeof *list, "a layout"));
    for (int kind = 0; kind < used; kind++)
        for (int32_t i = t->params.first; i < t->params.count; i++)
            n += extent_of(t, world, rank, i, kind, &list[n]);
    *out = list;
    *count = n;
    return KR_OK;
}

uint64_t state_fingerprint(const struct state *s, const struct settings *set)
{
    struct mem_text text = { 0 };
    uint64_t sum;
    char value[2 * SETTINGS_TEXT];

    for (const struct cfg_field *f = settings_table; f->name; f++)
        if (f->fixed)
            mem_printf(&text, "%s=%s\n", f->name, cfg_value(f, set, value, sizeof value));
    for (int32_t i = 0; i < s->view.tensor_count; i++)
        mem_printf(&text, "%s %" PRId64 " %" PRId64 " %d\n", s->tensors[i].name,
                   s->tensors[i].rows, s->tensors[i].cols, (int)s->tensors[i].type);
    sum = text.failed ? 0 : hash64(text.at, text.len);
    mem_text_free(&text);
    return sum;
}
