/* model_scratch.c - the operations of a pass that keep memory beside their operands. */
#include <string.h>

#include "trainer/model/model_parts.h"

/* The largest of the calls that it is shown. */
struct search {
    const char *device;
    const struct kern_whose *whose;
    size_t most;
};

static kr_status look(struct search *s, struct kern_call c)
{
    size_t bytes;

    TRY(kern_device_scratch(s->device, s->whose, &c, &bytes));
    if (bytes > s->most) s->most = bytes;
    return KR_OK;
}

static kr_status product(struct search *s, int64_t rows, int64_t cols, int64_t inner)
{
    return look(s, (struct kern_call){ KERN_CALL_MATMUL, rows, cols, inner, 0, 0, 0 });
}

/* Forward and backward of a matrix over n rows. */
static kr_status matrix(struct search *s, const struct param *p, bool trained, int64_t n)
{
    TRY(product(s, n, p->rows, p->cols));
    TRY(product(s, n, p->cols, p->rows));
    return trained ? product(s, p->rows, p->cols, n) : KR_OK;
}

/* The matrix of logits sees their chunks, of which the last one may be shorter. */
static kr_status head(struct search *s, const struct param *p, bool trained, int64_t n,
                      int64_t chunk)
{
    TRY(matrix(s, p, trained, chunk));
    return n % chunk ? matrix(s, p, trained, n % chunk) : KR_OK;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n >= m && strcmp(name + n - m, end) == 0;
}

/* What parameter i is read and learned by. */
static kr_status parameter(struct search *s, const struct model_shape *shape,
                           const struct params *all, int32_t i, int64_t n, int64_t chunk)
{
    const struct param *p = &all->list[i];
    bool trained = i >= all->first, embeds = strncmp(p->name, "embed.", 6) == 0;
    const char *name = model_tied(shape) ? "embed.token" : "head.weight";

    if (strcmp(p->name, name) == 0) return head(s, p, trained, n, chunk);
    if (p->decay) return embeds ? KR_OK : matrix(s, p, trained, n);
    if (!trained) return KR_OK;
    if (ends_with(p->name, ".bias") && i > 0 && all->list[i - 1].decay)
        return look(s, (struct kern_call){
                           .operation = KERN_CALL_SUM_ROWS, .rows = n, .cols = p->cols });
    return look(s, (struct kern_call){
                       .operation = KERN_CALL_NORM_BWD, .rows = n, .cols = p->cols });
}

kr_status model_scratch(size_t *out, const char *device, const struct kern_whose *whose,
                        const struct model_shape *shape, const struct params *params,
                        int64_t sequences)
{
    struct search s = { .device = device, .whose = whose };
    int64_t n = sequences * shape->context;
    struct kern_kind kind;

    TRY(kern_device_kind(device, &kind));
    for (int32_t i = 0; i < params->count; i++)
        TRY(parameter(&s, shape, params, i, n,
                      model_chunk_rows(n, shape->vocab, kind.type)));
    if (!params->frozen)
        TRY(look(&s, (struct kern_call){ .operation = KERN_CALL_EMBED_BWD,
                                         .rows = n,
                                         .cols = shape->dim }));
    TRY(look(&s, (struct kern_call){ .operation = KERN_CALL_ATTENTION_BWD,
                                     .rows = n,
                                     .heads = shape->heads,
                                     .head_dim = shape->head_dim,
                                     .seq = shape->context }));
    TRY(look(&s, (struct kern_call){ .operation = KERN_CALL_SUM, .rows = 1, .cols = n }));
    *out = s.most;
    return KR_OK;
}
