/*
 * t_model_grads.c - gradients of whole models against finite differences, and the rules
 * by which the model uses weights.h.
 */
#include "base/log.h"
#include "base/rng.h"
#include "tests/check.h"
#include "tests/model_weights.h"

enum { SEQ = 6, SEQUENCES = 2, ROWS = SEQ * SEQUENCES, VOCAB = 23, CONTEXT = 8 };
enum { MOST = CONTEXT * SEQUENCES /* rows that the activations have room for */ };

static const struct model_shape gpt2 = {
    .family = &families[FAMILY_GPT2],
    .layers = 2,
    .dim = 12,
    .heads = 3,
    .kv_heads = 3,
    .head_dim = 4,
    .ffn = 20,
    .vocab = VOCAB,
    .context = CONTEXT,
    .rope_theta = 1e4,
};
static const struct model_shape llama = {
    .family = &families[FAMILY_LLAMA],
    .layers = 2,
    .dim = 16,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 4,
    .ffn = 12,
    .vocab = VOCAB,
    .context = CONTEXT,
    .rope_theta = 1e2,
};

static double noise(int32_t i, int64_t k)
{
    return rng_normal(5, RNG_TEST, (uint32_t)i, (uint64_t)k);
}

static void randomize(struct plain *s)
{
    for (int32_t i = 0; i < s->p.count; i++) {
        int64_t n = s->p.list[i].rows * s->p.list[i].cols;
        double *x = malloc((size_t)n * sizeof *x);

        for (int64_t k = 0; k < n; k++)
            x[k] = (s->p.list[i].init == INIT_ONE) + 0.3 * noise(i, k);
        plain_set(s, i, 0, n, x);
        free(x);
    }
}

static struct batch make_batch(struct plain *s)
{
    int32_t token[ROWS], label[ROWS];

    for (int i = 0; i < ROWS; i++) {
        token[i] = (int32_t)(rng_u64(6, RNG_TEST, 0, (uint64_t)i) % VOCAB);
        label[i] = (int32_t)(rng_u64(7, RNG_TEST, 0, (uint64_t)i) % VOCAB);
    }
    label[3] = label[ROWS - 1] = KERN_IGNORE;
    return plain_batch(s, token, label, SEQUENCES, SEQ);
}

static void drop_batch(struct plain *s, struct batch *b)
{
    kern_free(s->d, (void *)(uintptr_t)b->token);
    kern_free(s->d, (void *)(uintptr_t)b->label);
}

/* dLoss/dw of parameter i, element k, by central difference. */
static double slope(struct plain *s, const struct batch *b, int32_t i, int64_t k,
                    double x)
{
    const double h = 1e-5;
    double up, down;

    plain_set(s, i, k, 1, &(double){ x + h });
    up = plain_loss(s, b, 0);
    plain_set(s, i, k, 1, &(double){ x - h });
    down = plain_loss(s, b, 0);
    plain_set(s, i, k, 1, &x);
    return (up - down) / (2 * h);
}

static void check_param(struct plain *s, const struct batch *b, int32_t i)
{
    int64_t n = s->p.list[i].rows * s->p.list[i].cols;
    double *g = malloc((size_t)n * sizeof *g), *w = malloc((size_t)n * sizeof *w);

    plain_get_grad(s, i, 0, n, g);
    plain_move(s, s->w, kern_device_type(s->d), i, 0, n, w, false);
    for (int64_t pick = 0; pick < (s->p.frozen ? 4 : 12) && pick < n; pick++) {
        int64_t k =
            (int64_t)(rng_u64(8, RNG_TEST, (uint32_t)i, (uint64_t)pick) % (uint64_t)n);
        double want = slope(s, b, i, k, w[k]);

        if (!(fabs(g[k] - want) <= 1e-6 * (1 + fabs(want))))
            printf("# %s\n", s->p.list[i].name);
        CHECK_NEAR(g[k], want, 1e-6 * (1 + fabs(want)));
    }
    free(g);
    free(w);
}

static void check_gradients(const struct model_shape *shape)
{
    struct plain s;
    struct batch b;

    plain_open(&s, "cpu64", shape, SEQUENCES);
    randomize(&s);
    b = make_batch(&s);
    (void)plain_loss(&s, &b, 1);
    for (int32_t i = s.p.first; i < s.p.count; i++)
        check_param(&s, &b, i);
    drop_batch(&s, &b);
    plain_close(&s);
}

/* Six heads are no power of two; heads over dim are no whole number; 4 of 6 channels of a
 * head turn where the family turns half of them. */
static void gradients_of_every_family_are_slopes(void)
{
    for (int f = 0; f < FAMILY_COUNT; f++) {
        struct model_shape shape = llama;

        shape.family = &families[f];
        shape.heads = 6;
        shape.kv_heads = f == FAMILY_GPT2 || f == FAMILY_BLOOM ? 6 : 2;
        shape.head_dim = 6;
        shape.rope_dims = families[f].rope_share < 1 ? 4 : 0;
        printf("# %s\n", families[f].name);
        check_gradients(&shape);
    }
}

/* rank: of adapters on everything a family has. */
static struct model_shape of_family(int f, int64_t rank)
{
    struct model_shape shape = llama;

    shape.family = &families[f];
    shape.rope_dims = families[f].rope_share < 1 ? 2 : 0;
    shape.lora = (struct lora){ rank, 1.5 * (double)rank, lora_sites(&families[f]) };
    return shape;
}

/* Where matrices are one elsewhere too, and where adapters stand beside some rows. */
static void gradients_of_adapters_are_slopes(void)
{
    struct model_shape shape = of_family(FAMILY_LLAMA, 3);

    for (int f = 0; f < FAMILY_COUNT; f++) {
        struct model_shape every = of_family(f, f == FAMILY_GLM ? 1 : 3);

        printf("# %s\n", families[f].name);
        check_gradients(&every);
    }
    shape.lora.sites = 1u << LORA_K | 1u << LORA_UP;
    check_gradients(&shape);
    shape.tied = shape.qkv_bias = shape.out_bias = shape.mlp_bias = FAMILY_YES;
    check_gradients(&shape);
}

/* With B zero an adapter adds nothing, whatever A is; then it adds something. */
static void adapters_begin_by_changing_nothing(void)
{
    static const char *const devices[] = { "guard", "cpu16" };

    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (int f = 0; f < FAMILY_COUNT; f++) {
            double loss[3];

            for (int how = 0; how < 3; how++) {
                struct model_shape shape = of_family(f, how ? 2 : 0);
                struct plain s;
                struct batch b;

                plain_open(&s, devices[d], &shape, SEQUENCES);
                randomize(&s);
                for (int32_t i = s.p.first; how == 1 && i < s.p.count; i++) {
                    double x[512] = { 0 };
                    int64_t n = s.p.list[i].rows * s.p.list[i].cols;

                    if (s.p.list[i].init == INIT_ZERO) plain_set(&s, i, 0, n, x);
                }
                b = make_batch(&s);
                loss[how] = plain_loss(&s, &b, 0);
                drop_batch(&s, &b);
                plain_close(&s);
            }
            CHECK(loss[0] == loss[1]);
            CHECK(loss[0] != loss[2]);
        }
}

/* Gradients of all that is trained, one after the other, with weights that bf16 holds exactly;
 * the caller frees them.  *bytes: of activations. */
static double *all_gradients(const char *device, const struct model_shape *shape,
                             enum model_recompute recompute, int64_t *count,
                             int64_t *bytes)
{
    struct plain s;
    struct batch b;
    double *all, *at;

    plain_open_recompute(&s, device, shape, SEQUENCES, recompute);
    *bytes = (int64_t)model_bytes(s.m);
    all = at = malloc((size_t)s.p.total * sizeof *all);
    for (int32_t i = 0; i < s.p.count; i++) {
        int64_t n = s.p.list[i].rows * s.p.list[i].cols;

        for (int64_t k = 0; k < n; k++)
            at[k] = (double)bf16_value(
                bf16_round((float)((s.p.list[i].init == INIT_ONE) + 0.3 * noise(i, k))));
        plain_set(&s, i, 0, n, at);
    }
    b = make_batch(&s);
    (void)plain_loss(&s, &b, 1);
    for (int32_t i = s.p.first; i < s.p.count; i++) {
        plain_get_grad(&s, i, 0, s.p.list[i].rows * s.p.list[i].cols, at);
        at += s.p.list[i].rows * s.p.list[i].cols;
    }
    *count = s.p.trained;
    drop_batch(&s, &b);
    plain_close(&s);
    return all;
}

/* Activations of 8 bits: the whole gradient is off by one or two parts in a hundred; with
 * adapters their sums are rounded once more. */
static void bf16_gradients_are_near_those_in_fp32(void)
{
    for (int f = 0; f < 2 * FAMILY_COUNT; f++) {
        struct model_shape shape = of_family(f % FAMILY_COUNT, f / FAMILY_COUNT * 3);
        double *wide, *narrow, off = 0, norm = 0;
        int64_t n, bytes;

        wide = all_gradients("cpu", &shape, RECOMPUTE_NONE, &n, &bytes);
        narrow = all_gradients("cpu16", &shape, RECOMPUTE_NONE, &n, &bytes);
        for (int64_t i = 0; i < n; i++) {
            off += (narrow[i] - wide[i]) * (narrow[i] - wide[i]);
            norm += wide[i] * wide[i];
        }
        printf("# %s: off by %.4f of the norm\n", shape.family->name, sqrt(off / norm));
        CHECK(sqrt(off / norm) < (shape.lora.rank ? 0.04 : 0.03));
        CHECK(off > 0);
        free(wide);
        free(narrow);
    }
}

/* Bytes of an array of so many rows and columns, as an arena aligns it. */
static int64_t room(int64_t rows, int64_t cols, int64_t elem)
{
    return (rows * cols * elem + 255) / 256 * 256;
}

/* What selective and full recomputation do not keep, of one llama layer. */
static int64_t cheap_bytes(const struct model_shape *s, int64_t elem)
{
    return 2 * room(MOST, s->dim, elem) + room(MOST, s->ffn, elem);
}
static int64_t dear_bytes(const struct model_shape *s, int64_t elem)
{
    int64_t heads = s->heads * s->head_dim, both = heads + 2 * s->kv_heads * s->head_dim;

    return room(MOST, both, elem) + room(MOST, heads, elem) + room(MOST, s->dim, elem) +
           room(MOST, 2 * s->ffn, elem) + 2 * room(2, MOST, 4) + room(s->heads, MOST, 4);
}

static void check_recompute(const struct model_shape *shape, const char *device)
{
    int64_t n, bytes[3], elem = strcmp(device, "cpu16") == 0 ? 2 : 4;
    double *want = all_gradients(device, shape, RECOMPUTE_NONE, &n, &bytes[0]);

    for (int how = RECOMPUTE_SELECTIVE; how <= RECOMPUTE_FULL; how++) {
        double *got =
            all_gradients(device, shape, (enum model_recompute)how, &n, &bytes[how]);

        CHECK(memcmp(want, got, (size_t)n * sizeof *got) == 0);
        free(got);
    }
    CHECK_I64(bytes[1], <, bytes[0]);
    CHECK_I64(bytes[2], <, bytes[1]);
    if (shape->family == &families[FAMILY_LLAMA] && shape->lora.rank == 0) {
        int64_t layers = shape->layers - 1, cheap = cheap_bytes(shape, elem);

        CHECK_I64(bytes[1], ==, bytes[0] - layers * cheap);
        CHECK_I64(bytes[2], ==, bytes[1] - layers * dear_bytes(shape, elem));
    }
    free(want);
}

static void recomputed_activations_give_the_same_bits_in_less_memory(void)
{
    for (int f = 0; f <= FAMILY_COUNT; f++) { /* the last one again, with adapters */
        struct model_shape shape =
            f < FAMILY_COUNT ? of_family(f, 0) : of_family(f - 1, 3);

        shape.layers = 3;
        check_recompute(&shape, "cpu");
        check_recompute(&shape, "cpu16");
    }
}

/* What a model may have against its family's habit. */
static void gradients_of_unusual_models_are_slopes(void)
{
    struct model_shape shape = llama;

    shape.tied = shape.qkv_bias = shape.out_bias = shape.mlp_bias = FAMILY_YES;
    check_gradients(&shape);
    shape = gpt2;
    shape.tied = shape.qkv_bias = shape.out_bias = shape.mlp_bias = FAMILY_NO;
    check_gradients(&shape);
    shape = llama;
    shape.family = &families[FAMILY_GLM4];
    shape.tied = FAMILY_YES;
    shape.qkv_bias = FAMILY_NO;
    check_gradients(&shape);
}

/* Adding the same micro-batch once more doubles every gradient. */
static void check_adding(const struct model_shape *shape)
{
    struct plain s;
    struct batch b;
    double once, twice;
    int32_t i;

    plain_open(&s, "cpu64", shape, SEQUENCES);
    randomize(&s);
    b = make_batch(&s);
    for (i = s.p.first; i < s.p.count; i++) {
        s.add = false;
        (void)plain_loss(&s, &b, 0.5);
        plain_get_grad(&s, i, 0, 1, &once);
        s.add = true;
        (void)plain_loss(&s, &b, 0.5);
        plain_get_grad(&s, i, 0, 1, &twice);
        CHECK_NEAR(twice, 2 * once, 1e-12 * (1 + fabs(once)));
        s.ready_count = 0;
    }
    drop_batch(&s, &b);
    plain_close(&s);
}

static void adding_a_micro_batch_adds_its_gradient(void)
{
    struct model_shape shape = of_family(FAMILY_LLAMA, 2);

    check_adding(&shape);
    shape = gpt2;
    check_adding(&gpt2);
    shape.family = &families[FAMILY_BLOOM];
    check_adding(&shape);
    shape.family = &families[FAMILY_GLM4];
    check_adding(&shape);
}

static void check_ready(const struct model_shape *shape, const int *want, int count)
{
    struct plain s;
    struct batch b;

    plain_open(&s, "cpu64", shape, SEQUENCES);
    randomize(&s);
    b = make_batch(&s);
    (void)plain_loss(&s, &b, 1);
    CHECK_I64(s.ready_count, ==, count);
    for (int i = 0; i < count; i++)
        CHECK_I64(s.ready[i], ==, want[i]);
    drop_batch(&s, &b);
    plain_close(&s);
}

/* Of adapters, nothing else. */
static void units_become_ready_once_from_the_head_down(void)
{
    static const int all[] = { 3, 2, 1, 0 }, adapters[] = { 5, 4 };
    struct model_shape shape = of_family(FAMILY_LLAMA, 2);

    check_ready(&gpt2, all, 4);
    check_ready(&shape, adapters, 2);
}

/* Whatever call fails, every unit that was acquired is released. */
static void a_failing_call_leaves_nothing_held(void)
{
    for (int fail = 1; fail < 60; fail++) {
        struct model_shape shape = fail % 2 ? gpt2 : of_family(FAMILY_GLM4, 2);
        struct plain s;
        struct batch b;
        double *loss = NULL;
        kr_status st;

        plain_open(&s, "cpu64", &shape, SEQUENCES);
        randomize(&s);
        b = make_batch(&s);
        CHECK(kern_alloc(s.d, &loss, sizeof *loss, "loss") == KR_OK);
        s.fail_after = (fail + 1) / 2;
        st = model_train(s.m, &s.face, &b, 1, loss);
        for (int u = 0; u < s.p.units; u++)
            CHECK_I64(s.held[u], ==, 0);
        CHECK_I64(st == KR_OK, ==, s.calls < (fail + 1) / 2);
        kern_free(s.d, loss);
        drop_batch(&s, &b);
        plain_close(&s);
    }
}

/* A later token changes nothing before it. */
static void the_future_is_not_seen(void)
{
    int32_t token[SEQ] = { 1, 2, 3, 4, 5, 6 }, label[SEQ] = { 0 };
    double before[VOCAB], after[VOCAB];
    struct plain s;
    struct batch b;
    void *at = NULL;

    plain_open(&s, "cpu64", &llama, 1);
    randomize(&s);
    CHECK(kern_alloc(s.d, &at, sizeof before, "logits") == KR_OK);
    for (int pass = 0; pass < 2; pass++) {
        label[0] = 7;
        for (int i = 1; i < SEQ; i++)
            label[i] = KERN_IGNORE;
        token[SEQ - 1] = pass ? 17 : 6;
        b = plain_batch(&s, token, label, 1, SEQ);
        (pass ? after : before)[0] = plain_loss(&s, &b, 0);
        drop_batch(&s, &b);
    }
    CHECK(before[0] == after[0]);
    kern_free(s.d, at);
    plain_close(&s);
}

/* Two documents in one sequence have the losses that they have alone: neither sees the other,
 * rotary positions are relative, learned ones begin again. */
static void check_strangers(const struct model_shape *shape)
{
    const int32_t token[SEQ] = { 3, 1, 4, 1, 5, 9 }, label[SEQ] = { 1, 4, 7, 5, 9, 2 };
    const int32_t start[SEQ] = { 0, 0, 0, 3, 3, 3 };
    struct batch first, second, both;
    struct plain s;
    double alone;
    void *at = NULL;

    plain_open(&s, "cpu64", shape, 1);
    randomize(&s);
    first = plain_batch(&s, token, label, 1, 3);
    second = plain_batch(&s, token + 3, label + 3, 1, 3);
    both = plain_batch(&s, token, label, 1, SEQ);
    alone = plain_loss(&s, &first, 0) + plain_loss(&s, &second, 0);
    CHECK(fabs(plain_loss(&s, &both, 0) - alone) > 1e-3);
    CHECK(kern_alloc(s.d, &at, sizeof start, "start") == KR_OK);
    CHECK(kern_upload(s.q, at, start, sizeof start) == KR_OK);
    both.start = at;
    CHECK_NEAR(plain_loss(&s, &both, 0), alone, 1e-12);
    kern_free(s.d, at);
    drop_batch(&s, &first);
    drop_batch(&s, &second);
    drop_batch(&s, &both);
    plain_close(&s);
}

static void packed_documents_are_strangers(void)
{
    struct model_shape bloom = gpt2;

    bloom.family = &families[FAMILY_BLOOM];
    check_strangers(&llama);
    check_strangers(&gpt2);
    check_strangers(&bloom);
}

int main(void)
{
    log_capture(NULL, NULL);
    RUN(gradients_of_every_family_are_slopes);
    RUN(gradients_of_unusual_models_are_slopes);
    RUN(gradients_of_adapters_are_slopes);
    RUN(adapters_begin_by_changing_nothing);
    RUN(bf16_gradients_are_near_those_in_fp32);
    RUN(recomputed_activations_give_the_same_bits_in_less_memory);
    RUN(adding_a_micro_batch_adds_its_gradient);
    RUN(units_become_ready_once_from_the_head_down);
    RUN(a_failing_call_leaves_nothing_held);
    RUN(the_future_is_not_seen);
    RUN(packed_documents_are_strangers);
    return check_done();
}
