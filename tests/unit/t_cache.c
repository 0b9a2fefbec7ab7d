/*
 * t_cache.c - going on with kept keys and values gives the logits of the whole sequence, for
 * every family, in steps of any size; also after going back.
 */
#include "base/log.h"
#include "base/rng.h"
#include "tests/check.h"
#include "tests/model_weights.h"

enum { SEQ = 24, VOCAB = 19, CONTEXT = 32 };

static void fill(struct plain *s)
{
    for (int32_t i = 0; i < s->p.count; i++) {
        int64_t n = s->p.list[i].rows * s->p.list[i].cols;
        double *x = malloc((size_t)n * sizeof *x);

        for (int64_t k = 0; k < n; k++)
            x[k] = (s->p.list[i].init == INIT_ONE) +
                   0.3 * rng_normal(5, RNG_TEST, (uint32_t)i, (uint64_t)k);
        plain_set(s, i, 0, n, x);
        free(x);
    }
}

/* Logits after tokens [0, count); past < 0: of the whole at once, else those before `past`
 * are in the cache. */
static void logits_of(struct plain *s, const struct batch *all, int64_t past,
                      int64_t count, double *out)
{
    int64_t from = past < 0 ? 0 : past;
    enum kern_dtype type = kern_device_type(s->d);
    struct batch b = { .token = all->token + from, .sequences = 1, .seq = count - from };
    struct kern_mat row;
    char raw[VOCAB * 8];
    void *at = NULL;

    CHECK(kern_alloc(s->d, &at, sizeof raw, "logits") == KR_OK);
    row = kern_mat(at, 1, VOCAB, type);
    CHECK((past < 0 ? model_logits(s->m, &s->face, &b, row)
                    : model_next(s->m, &s->face, &b, past, row)) == KR_OK);
    CHECK(kern_download(s->q, raw, at, VOCAB * kern_dtype_bytes(type)) == KR_OK);
    CHECK(kern_queue_sync(s->q) == KR_OK);
    for (int i = 0; i < VOCAB; i++)
        out[i] = plain_load(raw, i, type);
    kern_free(s->d, at);
}

static void compare(struct plain *s, const struct batch *b, int64_t past, int64_t count,
                    double tolerance)
{
    double whole[VOCAB], next[VOCAB], far = 0;

    logits_of(s, b, past, count, next);
    logits_of(s, b, -1, count, whole);
    for (int i = 0; i < VOCAB; i++)
        far = fmax(far, fabs(whole[i] - next[i]));
    CHECK_NEAR(far, 0, tolerance);
    CHECK(fabs(whole[0] - whole[1]) > 1e-3); /* something to compare */
}

static void try_family(const struct family *family, const char *device, double tolerance)
{
    struct model_shape shape = { .family = family,
                                 .layers = 2,
                                 .dim = 16,
                                 .heads = 4,
                                 .kv_heads = family->pos == POS_ROPE ? 2 : 4,
                                 .head_dim = 4,
                                 .ffn = 24,
                                 .vocab = VOCAB,
                                 .context = CONTEXT,
                                 .rope_theta = 1e2 };
    int32_t token[SEQ];
    struct plain s;
    struct batch b;

    plain_open(&s, device, &shape, 1);
    fill(&s);
    for (int i = 0; i < SEQ; i++)
        token[i] = (int32_t)(rng_u64(6, RNG_TEST, 0, (uint64_t)i) % VOCAB);
    b = plain_batch(&s, token, token, 1, SEQ);
    CHECK(model_open_cache(s.m) == KR_OK);
    compare(&s, &b, 0, 5, tolerance); /* a prompt */
    for (int64_t n = 6; n < 12; n++)
        compare(&s, &b, n - 1, n, tolerance); /* token by token */
    compare(&s, &b, 11, 20, tolerance);       /* several at once */
    compare(&s, &b, 7, 22, tolerance);        /* back to an earlier place */
    compare(&s, &b, 0, SEQ, tolerance);
    kern_free(s.d, (void *)(uintptr_t)b.token);
    kern_free(s.d, (void *)(uintptr_t)b.label);
    plain_close(&s);
}

static void logits_are_those_of_the_whole_in_double(void)
{
    for (int f = 0; f < FAMILY_COUNT; f++)
        try_family(&families[f], "cpu64", 1e-12);
}

static void logits_are_those_of_the_whole_up_to_rounding(void)
{
    for (int f = 0; f < FAMILY_COUNT; f++)
        try_family(&families[f], "cpu", 1e-4);
}

static void nobody_looks_at_device_memory(void)
{
    for (int f = 0; f < FAMILY_COUNT; f++)
        try_family(&families[f], "guard", 1e-4);
}

static void beyond_the_context_is_refused(void)
{
    struct model_shape shape = { .family = &families[FAMILY_LLAMA],
                                 .layers = 1,
                                 .dim = 8,
                                 .heads = 2,
                                 .kv_heads = 2,
                                 .head_dim = 4,
                                 .ffn = 8,
                                 .vocab = VOCAB,
                                 .context = CONTEXT,
                                 .rope_theta = 1e2 };
    struct batch b = { .sequences = 1, .seq = 8 };
    struct plain s;

    plain_open(&s, "cpu", &shape, 1);
    log_mute(true);
    CHECK(model_next(s.m, &s.face, &b, 0, kern_none) == KR_ERR_ARG); /* no cache */
    CHECK(model_open_cache(s.m) == KR_OK);
    CHECK(model_next(s.m, &s.face, &b, CONTEXT - 7, kern_none) == KR_ERR_ARG);
    CHECK(model_next(s.m, &s.face, &b, -1, kern_none) == KR_ERR_ARG);
    log_mute(false);
    plain_close(&s);
}

int main(void)
{
    RUN(logits_are_those_of_the_whole_in_double);
    RUN(logits_are_those_of_the_whole_up_to_rounding);
    RUN(nobody_looks_at_device_memory);
    RUN(beyond_the_context_is_refused);
    return check_done();
}
