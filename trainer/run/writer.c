/* writer.c - forward, choose, append. */
#include "trainer/run/writer.h"

#include <string.h>

#include "base/bf16.h"
#include "base/rng.h"

struct writer {
    struct trainer *t;
    bool cache;
    struct ids there; /* tokens whose keys and values the model keeps */
    double *logits;
    void *raw, *device; /* the same, of the device's type */
};

kr_status writer_open(struct writer **out, struct trainer *t, bool cache)
{
    size_t vocab = (size_t)t->set.vocab,
           elem = kern_dtype_bytes(kern_device_type(t->device));
    struct writer *w = NULL;
    kr_status st;

    TRY(mem_alloc(&w, 1, sizeof *w, "writer"));
    w->t = t;
    w->cache = cache;
    TRY_OR(st, mem_alloc(&w->logits, vocab, sizeof *w->logits, "logits"), done);
    TRY_OR(st, mem_alloc(&w->raw, vocab, elem, "logits"), done);
    TRY_OR(st, kern_alloc(t->device, &w->device, vocab * elem, "logits"), done);
    if (cache) st = model_open_cache(t->model);
    *out = w;
done:
    if (st != KR_OK) writer_close(w);
    return st;
}

void writer_close(struct writer *w)
{
    if (!w) return;
    kern_free(w->t->device, w->device);
    mem_free(w->logits);
    mem_free(w->raw);
    ids_free(&w->there);
    mem_free(w);
}

static double as_double(const void *raw, int64_t i, enum kern_dtype type)
{
    switch (type) {
    case KERN_F64: return ((const double *)raw)[i];
    case KERN_F32: return (double)((const float *)raw)[i];
    case KERN_BF16: return (double)bf16_value(((const uint16_t *)raw)[i]);
    }
    return 0;
}

/* How many tokens need no forward: those that are kept and alike, but the last one does. */
static int64_t kept(const struct writer *w, const struct ids *ids)
{
    size_t n = 0;

    while (n < w->there.count && n + 1 < ids->count && w->there.at[n] == ids->at[n])
        n++;
    return (int64_t)n;
}

static kr_status forward(struct writer *w, const struct ids *ids, struct kern_mat logits)
{
    struct trainer *t = w->t;
    int64_t context = t->set.context, count = (int64_t)ids->count;
    bool fits = count <= context;
    int64_t past = w->cache && fits ? kept(w, ids) : fits ? 0 : count - context;
    struct batch b = { .token = t->token, .sequences = 1, .seq = count - past };

    TRY(kern_upload(t->q, t->token, ids->at + past, (size_t)b.seq * sizeof(int32_t)));
    if (!w->cache || !fits)
        return model_logits(t->model, shard_weights(t->shard), &b, logits);
    TRY(model_next(t->model, shard_weights(t->shard), &b, past, logits));
    w->there.count = (size_t)past;
    return ids_add(&w->there, ids->at + past, (size_t)b.seq);
}

/* Logits after the last token, to the host as doubles. */
static kr_status predict(struct writer *w, const struct ids *ids)
{
    struct trainer *t = w->t;
    struct kern_mat row =
        kern_mat(w->device, 1, t->set.vocab, kern_device_type(t->device));

    TRY(forward(w, ids, row));
    TRY(kern_download(t->q, w->raw, row.at,
                      (size_t)row.cols * kern_dtype_bytes(row.type)));
    TRY(kern_queue_sync(t->q));
    for (int64_t i = 0; i < row.cols; i++)
        w->logits[i] = as_double(w->raw, i, row.type);
    return KR_OK;
}

kr_status writer_go_on(struct writer *w, struct ids *ids, const struct writer_how *how)
{
    for (int64_t i = 0; i < how->tokens; i++) {
        double u = rng_uniform((uint64_t)how->seed, RNG_SAMPLE, 0, (uint64_t)i);
        int32_t id;

        TRY(predict(w, ids));
        TRY(sample_token(w->logits, w->t->set.vocab, &how->sample, u, &id));
        if (how->ends && how->ends(how->arg, id)) break;
        TRY(ids_add(ids, &id, 1));
        if (how->told) how->told(how->arg, id);
    }
    return KR_OK;
}
