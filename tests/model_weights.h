/*
 * model_weights.h - weights and gradients of a whole model in plain device memory, for
 * tests of the model without ranks.
 */
#ifndef TESTS_MODEL_WEIGHTS_H
#define TESTS_MODEL_WEIGHTS_H

#include <stdlib.h>

#include "base/bf16.h"
#include "kernels/kernels.h"
#include "trainer/model/model.h"

enum { PLAIN_UNITS = 16 };

struct plain {
    struct kern_device *d;
    struct kern_queue *q;
    struct params p;
    struct model *m;
    struct weights face;
    void *w[PLAIN_UNITS], *g[PLAIN_UNITS];
    bool add;                                /* what grads answers */
    int held[PLAIN_UNITS];                   /* acquired and not released */
    int ready[2 * PLAIN_UNITS], ready_count; /* units in the order they became ready */
    int fail_after; /* fail the n-th acquire or grads; 0: never */
    int calls;
};

static inline kr_status plain_fails(struct plain *s)
{
    return ++s->calls == s->fail_after ? KR_ERR_DEVICE : KR_OK;
}

static inline kr_status plain_acquire(void *self, int unit, void **flat)
{
    struct plain *s = self;

    TRY(plain_fails(s));
    s->held[unit]++;
    *flat = s->w[unit];
    return KR_OK;
}

static inline void plain_release(void *self, int unit)
{
    struct plain *s = self;

    s->held[unit]--;
}

static inline kr_status plain_grads(void *self, int unit, void **flat, bool *add)
{
    struct plain *s = self;

    if (unit < s->p.frozen) abort(); /* it has none */
    TRY(plain_fails(s));
    *flat = s->g[unit];
    *add = s->add;
    return KR_OK;
}

static inline kr_status plain_ready(void *self, int unit)
{
    struct plain *s = self;

    s->ready[s->ready_count++] = unit;
    return KR_OK;
}

static inline void plain_open_recompute(struct plain *s, const char *device,
                                        const struct model_shape *shape,
                                        int64_t sequences, enum model_recompute recompute)
{
    *s = (struct plain){ 0 };
    if (kern_device_open(&s->d, device, 0, 2) || params_build(&s->p, shape) ||
        kern_queue_open(&s->q, s->d, KERN_QUEUE_COMPUTE) || s->p.units > PLAIN_UNITS ||
        model_open(&s->m, shape, &s->p, s->q, sequences, true, recompute))
        abort();
    for (int u = 0; u < s->p.units; u++) {
        size_t len = (size_t)s->p.unit_len[u];

        if (kern_alloc(s->d, &s->w[u], len * kern_dtype_bytes(kern_device_type(s->d)),
                       "w") ||
            kern_alloc(s->d, &s->g[u], len * kern_dtype_bytes(kern_device_wide(s->d)),
                       "g"))
            abort();
    }
    s->face =
        (struct weights){ s, plain_acquire, plain_release, plain_grads, plain_ready };
}

static inline void plain_open(struct plain *s, const char *device,
                              const struct model_shape *shape, int64_t sequences)
{
    plain_open_recompute(s, device, shape, sequences, RECOMPUTE_NONE);
}

static inline void plain_close(struct plain *s)
{
    for (int u = 0; u < s->p.units; u++) {
        kern_free(s->d, s->w[u]);
        kern_free(s->d, s->g[u]);
    }
    model_close(s->m);
    params_free(&s->p);
    kern_queue_close(s->q);
    kern_device_close(s->d);
}

/* Element k of an array of this type as a double, and back, rounded to nearest. */
static inline double plain_load(const void *at, int64_t k, enum kern_dtype type)
{
    return type == KERN_F64   ? ((const double *)at)[k]
           : type == KERN_F32 ? (double)((const float *)at)[k]
                              : (double)bf16_value(((const uint16_t *)at)[k]);
}

static inline void plain_store(void *at, int64_t k, enum kern_dtype type, double x)
{
    if (type == KERN_F64)
        ((double *)at)[k] = x;
    else if (type == KERN_F32)
        ((float *)at)[k] = (float)x;
    else
        ((uint16_t *)at)[k] = bf16_round((float)x);
}

/* Move n doubles to or from elements of parameter i, in arrays of this type. */
static inline void plain_move(struct plain *s, void **flats, enum kern_dtype type,
                              int32_t i, int64_t at, int64_t n, double *host, bool up)
{
    const struct param *par = &s->p.list[i];
    size_t elem = kern_dtype_bytes(type);
    char *dev = (char *)flats[par->unit] + (size_t)(par->offset + at) * elem;
    void *raw = malloc((size_t)n * elem);
    kr_status st;

    for (int64_t k = 0; up && k < n; k++)
        plain_store(raw, k, type, host[k]);
    st = up ? kern_upload(s->q, dev, raw, (size_t)n * elem)
            : kern_download(s->q, raw, dev, (size_t)n * elem);
    if (st || kern_queue_sync(s->q)) abort();
    for (int64_t k = 0; !up && k < n; k++)
        host[k] = plain_load(raw, k, type);
    free(raw);
}

static inline void plain_set(struct plain *s, int32_t i, int64_t at, int64_t n,
                             const double *host)
{
    plain_move(s, s->w, kern_device_type(s->d), i, at, n, (double *)(uintptr_t)host,
               true);
}

static inline void plain_get_grad(struct plain *s, int32_t i, int64_t at, int64_t n,
                                  double *host)
{
    plain_move(s, s->g, kern_device_wide(s->d), i, at, n, host, false);
}

/* Tokens and labels on the device; the caller frees them with kern_free. */
static inline struct batch plain_batch(struct plain *s, const int32_t *token,
                                       const int32_t *label, int64_t sequences,
                                       int64_t seq)
{
    size_t bytes = (size_t)(sequences * seq) * sizeof *token;
    void *t = NULL, *l = NULL;

    if (kern_alloc(s->d, &t, bytes, "t") || kern_alloc(s->d, &l, bytes, "l") ||
        kern_upload(s->q, t, token, bytes) || kern_upload(s->q, l, label, bytes) ||
        kern_queue_sync(s->q))
        abort();
    return (struct batch){ .token = t, .label = l, .sequences = sequences, .seq = seq };
}

/* Sum of losses, forward only or with gradients of grad_scale times it. */
static inline double plain_loss(struct plain *s, const struct batch *b, double grad_scale)
{
    double *at = NULL, loss;

    if (kern_alloc(s->d, &at, sizeof *at, "loss")) abort();
    if (grad_scale != 0 ? model_train(s->m, &s->face, b, grad_scale, at)
                        : model_eval(s->m, &s->face, b, at))
        abort();
    if (kern_download(s->q, &loss, at, sizeof loss) || kern_queue_sync(s->q)) abort();
    kern_free(s->d, at);
    return loss;
}

#endif
