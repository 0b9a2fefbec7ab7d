/*
 * t_bf16.c - bf16 as numbers, rounding by chance, and the device "cpu16" against the CPU:
 * an operation on bf16 operands is the fp32 operation on the same numbers, rounded once.
 */
#include <stdlib.h>

#include "base/bf16.h"
#include "base/log.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "tests/check.h"

static struct kern_device *wide_dev, *dev;
static struct kern_queue *wide_q, *q;

/* ---- numbers -------------------------------------------------------------------------- */

static float single(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static void every_bf16_comes_back(void)
{
    int64_t wrong = 0;

    for (uint32_t h = 0; h < 65536; h++) {
        float x = bf16_value((uint16_t)h);

        if (isnan(x))
            wrong += !isnan(bf16_value(bf16_round(x))) ||
                     !isnan(bf16_value(bf16_round_random(x, 0xffff)));
        else
            wrong += bf16_round(x) != h || bf16_round_random(x, 0xffff) != h;
    }
    CHECK_I64(wrong, ==, 0);
}

static void rounds_to_nearest_even(void)
{
    int64_t wrong = 0;

    CHECK_I64(bf16_round(single(0x3f808000)), ==, 0x3f80); /* tie, to even */
    CHECK_I64(bf16_round(single(0x3f818000)), ==, 0x3f82);
    CHECK_I64(bf16_round(single(0x3f808001)), ==, 0x3f81);
    CHECK_I64(bf16_round(single(0x7f7fffff)), ==, 0x7f80); /* above the largest: inf */
    CHECK_I64(bf16_round(single(0xff800000)), ==, 0xff80);
    CHECK(isnan(bf16_value(bf16_round(single(0x7f800001)))));
    CHECK(isnan(bf16_value(bf16_round(single(0x7fffffff)))));
    for (uint64_t i = 0; i < 100000; i++) {
        float x = single((uint32_t)rng_u64(1, RNG_TEST, 0, i) & 0xbfffffffu);
        uint16_t h = bf16_round(x);
        double off = fabs((double)bf16_value(h) - (double)x);

        wrong +=
            off > fabs((double)bf16_value((uint16_t)(h + 1)) - (double)x) ||
            (h & 0x7fff ? off > fabs((double)bf16_value((uint16_t)(h - 1)) - (double)x)
                        : 0);
    }
    CHECK_I64(wrong, ==, 0);
}

/* Over all 65536 draws the mean is the number itself. */
static void rounding_by_chance_is_exact_in_the_mean(void)
{
    static const float list[] = { 1.0001f, -3.14159f, 1e-30f, -6.5e4f, 1e-39f, 255.999f };

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        double sum = 0, scale = fabs((double)list[i]);

        for (uint32_t r = 0; r < 65536; r++)
            sum += (double)bf16_value(bf16_round_random(list[i], r)) / scale;
        CHECK_NEAR(sum / 65536, (double)list[i] / scale, 1e-11);
    }
    CHECK_I64(bf16_round_random(single(0x7f800000), 0xffff), ==, 0x7f80);
}

/* ---- matrices ------------------------------------------------------------------------- */

/* All memory that the tests took, to be freed at the end. */
enum { MADE = 512 };
static struct {
    struct kern_device *device;
    void *at;
} made[MADE];
static int made_count;

/* The same numbers as bf16 on `dev` and as fp32 on `wide_dev`. */
struct pair {
    struct kern_mat narrow, wide;
};

static struct kern_mat new_mat(struct kern_device *d, int64_t rows, int64_t cols,
                               int64_t ld, enum kern_dtype type)
{
    struct kern_mat m = { NULL, rows, cols, ld, type };

    if (made_count == MADE ||
        kern_alloc(d, &m.at, (size_t)(rows * ld) * kern_dtype_bytes(type), "test"))
        abort();
    made[made_count].device = d;
    made[made_count++].at = m.at;
    return m;
}

static struct pair pair(int64_t rows, int64_t cols, int64_t ld, uint32_t seed)
{
    struct pair p = { new_mat(dev, rows, cols, ld, KERN_BF16),
                      new_mat(wide_dev, rows, cols, ld, KERN_F32) };

    for (int64_t i = 0; i < rows * ld; i++) {
        uint16_t h = bf16_round((float)rng_normal(seed, RNG_TEST, 0, (uint64_t)i));

        ((uint16_t *)p.narrow.at)[i] = h;
        ((float *)p.wide.at)[i] = bf16_value(h);
    }
    return p;
}

/* The same fp32 numbers on both. */
static struct pair wide_pair(int64_t rows, int64_t cols, uint32_t seed)
{
    struct pair p = { new_mat(dev, rows, cols, cols, KERN_F32),
                      new_mat(wide_dev, rows, cols, cols, KERN_F32) };

    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)p.wide.at)[i] = (float)rng_normal(seed, RNG_TEST, 1, (uint64_t)i);
    memcpy(p.narrow.at, p.wide.at, (size_t)(rows * cols) * sizeof(float));
    return p;
}

/* Elements, gaps between rows included, that are not those of the fp32 twin, rounded. */
static int64_t differing(struct pair p)
{
    int64_t wrong = 0;

    for (int64_t i = 0; i < p.wide.rows * p.wide.ld; i++) {
        bool gap = i % p.wide.ld >= p.wide.cols;
        float want = ((float *)p.wide.at)[i];

        if (p.narrow.type == KERN_F32)
            wrong += ((float *)p.narrow.at)[i] != want;
        else if (!gap)
            wrong += ((uint16_t *)p.narrow.at)[i] != bf16_round(want);
    }
    return wrong;
}

#define BOTH(call_narrow, call_wide) \
    CHECK((call_narrow) == KR_OK);   \
    CHECK((call_wide) == KR_OK)

static void linear_rounds_once(void)
{
    struct pair x = pair(9, 70, 75, 1), w = pair(33, 70, 70, 2), b = pair(1, 33, 33, 3);
    struct pair y = pair(9, 33, 40, 4), dx = pair(9, 70, 71, 5);
    struct pair onto = pair(9, 33, 35, 8);
    struct pair dw = wide_pair(33, 70, 6), db = wide_pair(1, 33, 7);

    BOTH(kern_linear_fwd(q, y.narrow, x.narrow, w.narrow, b.narrow, y.narrow),
         kern_linear_fwd(wide_q, y.wide, x.wide, w.wide, b.wide, y.wide));
    CHECK_I64(differing(y), ==, 0);
    BOTH(kern_linear_fwd(q, y.narrow, x.narrow, w.narrow, b.narrow, onto.narrow),
         kern_linear_fwd(wide_q, y.wide, x.wide, w.wide, b.wide, onto.wide));
    CHECK_I64(differing(y) + differing(onto), ==, 0);
    y = pair(9, 33, 40, 4);
    BOTH(kern_linear_bwd_x(q, dx.narrow, y.narrow, w.narrow, true),
         kern_linear_bwd_x(wide_q, dx.wide, y.wide, w.wide, true));
    CHECK_I64(differing(dx), ==, 0);
    BOTH(kern_linear_bwd_w(q, dw.narrow, db.narrow, y.narrow, x.narrow, true),
         kern_linear_bwd_w(wide_q, dw.wide, db.wide, y.wide, x.wide, true));
    CHECK_I64(differing(dw) + differing(db), ==, 0);
}

static void norms_and_activations_round_once(void)
{
    struct pair x = pair(6, 48, 50, 1), w = pair(1, 48, 48, 2), b = pair(1, 48, 48, 3);
    struct pair y = pair(6, 48, 48, 4), stats = wide_pair(2, 6, 5);
    struct pair dw = wide_pair(1, 48, 6), db = wide_pair(1, 48, 7),
                u = pair(6, 96, 99, 8);

    BOTH(kern_norm_fwd(q, KERN_LAYERNORM, y.narrow, stats.narrow, x.narrow, w.narrow,
                       b.narrow, 1e-5),
         kern_norm_fwd(wide_q, KERN_LAYERNORM, y.wide, stats.wide, x.wide, w.wide, b.wide,
                       1e-5));
    CHECK_I64(differing(y) + differing(stats), ==, 0);
    y = pair(6, 48, 48, 4);
    BOTH(kern_norm_bwd(q, KERN_LAYERNORM, y.narrow, false, dw.narrow, db.narrow, true,
                       y.narrow, x.narrow, w.narrow, stats.narrow),
         kern_norm_bwd(wide_q, KERN_LAYERNORM, y.wide, false, dw.wide, db.wide, true,
                       y.wide, x.wide, w.wide, stats.wide));
    CHECK_I64(differing(y) + differing(dw) + differing(db), ==, 0);
    y = pair(6, 48, 48, 4);
    BOTH(kern_act_bwd(q, KERN_SWIGLU, u.narrow, y.narrow, u.narrow),
         kern_act_bwd(wide_q, KERN_SWIGLU, u.wide, y.wide, u.wide));
    CHECK_I64(differing(u), ==, 0);
    u = pair(6, 96, 99, 8);
    BOTH(kern_act_fwd(q, KERN_SWIGLU, y.narrow, u.narrow),
         kern_act_fwd(wide_q, KERN_SWIGLU, y.wide, u.wide));
    CHECK_I64(differing(y), ==, 0);
}

static void attention_and_rope_round_once(void)
{
    const struct kern_heads h = {
        .heads = 4, .kv_heads = 2, .head_dim = 8, .seq = 5, .scale = 0.35
    };
    struct pair qkv = pair(10, 64, 64, 1), out = pair(10, 32, 32, 2);
    struct pair lse = wide_pair(4, 10, 3), delta = wide_pair(4, 10, 4);
    struct pair d_qkv = pair(10, 64, 66, 5), d_out = pair(10, 32, 32, 6);
    struct pair table = wide_pair(5, 8, 7);
    struct kern_mat turned = kern_cols(qkv.narrow, 0, 48);

    BOTH(kern_rope(q, turned, table.narrow, 6, 8, 5, KERN_ROPE_HALF, false),
         kern_rope(wide_q, kern_cols(qkv.wide, 0, 48), table.wide, 6, 8, 5,
                   KERN_ROPE_HALF, false));
    CHECK_I64(differing(qkv), ==, 0);
    qkv = pair(10, 64, 64, 1);
    BOTH(kern_attention_fwd(q, out.narrow, lse.narrow, qkv.narrow, &h),
         kern_attention_fwd(wide_q, out.wide, lse.wide, qkv.wide, &h));
    CHECK_I64(differing(out) + differing(lse), ==, 0);
    out = pair(10, 32, 32, 2);
    BOTH(kern_attention_bwd(q, d_qkv.narrow, delta.narrow, d_out.narrow, qkv.narrow,
                            out.narrow, lse.narrow, &h),
         kern_attention_bwd(wide_q, d_qkv.wide, delta.wide, d_out.wide, qkv.wide,
                            out.wide, lse.wide, &h));
    CHECK_I64(differing(d_qkv) + differing(delta), ==, 0);
}

static void embedding_and_loss_round_once(void)
{
    const int32_t token[] = { 2, 0, 2, 4, 2, 1 },
                  label[] = { 1, KERN_IGNORE, 3, 0, 4, 4 };
    struct pair wte = pair(5, 12, 12, 1), wpe = pair(3, 12, 12, 2),
                x = pair(6, 12, 16, 3);
    struct pair d_wte = wide_pair(5, 12, 4), d_wpe = wide_pair(3, 12, 5);
    struct pair logits = pair(6, 5, 7, 6), loss = wide_pair(1, 6, 7);

    BOTH(kern_embed_fwd(q, x.narrow, token, wte.narrow, wpe.narrow, 3, NULL),
         kern_embed_fwd(wide_q, x.wide, token, wte.wide, wpe.wide, 3, NULL));
    CHECK_I64(differing(x), ==, 0);
    x = pair(6, 12, 16, 3);
    BOTH(kern_embed_bwd(q, d_wte.narrow, d_wpe.narrow, token, x.narrow, 3, NULL, true),
         kern_embed_bwd(wide_q, d_wte.wide, d_wpe.wide, token, x.wide, 3, NULL, true));
    CHECK_I64(differing(d_wte) + differing(d_wpe), ==, 0);
    BOTH(kern_cross_entropy(q, loss.narrow, logits.narrow, logits.narrow, label, 0.125),
         kern_cross_entropy(wide_q, loss.wide, logits.wide, logits.wide, label, 0.125));
    CHECK_I64(differing(logits) + differing(loss), ==, 0);
}

static void copies_convert(void)
{
    struct pair a = pair(7, 5, 9, 1), b = pair(7, 5, 5, 2), f = wide_pair(7, 5, 3);
    struct kern_mat wide = new_mat(dev, 7, 5, 6, KERN_F32);
    int64_t wrong = 0;

    CHECK(kern_copy(q, wide, a.narrow) == KR_OK);
    for (int64_t i = 0; i < 35; i++)
        wrong += ((float *)wide.at)[i / 5 * 6 + i % 5] !=
                 ((float *)a.wide.at)[i / 5 * 9 + i % 5];
    CHECK_I64(wrong, ==, 0);
    CHECK(kern_copy(q, b.narrow, f.narrow) == KR_OK);
    b.wide = f.wide;
    CHECK_I64(differing(b), ==, 0);
}

/* ---- optimizer ------------------------------------------------------------------------ */

enum { N = 9000 };

static const struct kern_adamw how = { .lr = 0.01,
                                       .beta1 = 0.9,
                                       .beta2 = 0.99,
                                       .eps = 1e-8,
                                       .weight_decay = 0.1,
                                       .correct1 = 0.19,
                                       .correct2 = 0.0199,
                                       .grad_scale = 0.5,
                                       .round = { 77, 4, 1003 } };

static struct kern_mat part(struct kern_mat m, int64_t first, int64_t n)
{
    m = kern_cols(m, first, n);
    m.ld = n;
    return m;
}

static struct kern_mat positive(struct kern_mat m)
{
    for (int64_t i = 0; i < m.cols; i++)
        if (m.type == KERN_BF16)
            ((uint16_t *)m.at)[i] &= 0x7fff;
        else
            ((float *)m.at)[i] = fabsf(((float *)m.at)[i]);
    return m;
}

static void adamw_also_gives_rounded_weights(void)
{
    struct pair w = wide_pair(1, N, 1), m = wide_pair(1, N, 2), v = wide_pair(1, N, 3);
    struct pair g = wide_pair(1, N, 4), copy = pair(1, N, N, 5);

    BOTH(kern_adamw(q, w.narrow, m.narrow, positive(v.narrow), g.narrow, copy.narrow,
                    &how),
         kern_adamw(wide_q, w.wide, m.wide, positive(v.wide), g.wide, kern_none, &how));
    CHECK_I64(differing(w) + differing(m) + differing(v), ==, 0);
    copy.wide = w.wide;
    CHECK_I64(differing(copy), ==, 0);
}

/* Whoever owns which part, and on whatever device: the same bits. */
static void bf16_moments_do_not_depend_on_the_partition(void)
{
    struct kern_mat w[2], m[2], v[2], g[2];
    struct kern_adamw rest = how;
    const int64_t cut = 1237;

    for (int i = 0; i < 2; i++) {
        w[i] = wide_pair(1, N, 1).narrow;
        m[i] = pair(1, N, N, 2).narrow;
        v[i] = positive(pair(1, N, N, 3).narrow);
        g[i] = pair(1, N, N, 4).narrow;
    }
    rest.round.first += cut;
    CHECK(kern_adamw(wide_q, w[0], m[0], v[0], g[0], kern_none, &how) == KR_OK);
    CHECK(kern_adamw(q, part(w[1], 0, cut), part(m[1], 0, cut), part(v[1], 0, cut),
                     part(g[1], 0, cut), kern_none, &how) == KR_OK);
    CHECK(kern_adamw(q, part(w[1], cut, N - cut), part(m[1], cut, N - cut),
                     part(v[1], cut, N - cut), part(g[1], cut, N - cut), kern_none,
                     &rest) == KR_OK);
    CHECK(memcmp(w[0].at, w[1].at, N * sizeof(float)) == 0);
    CHECK(memcmp(m[0].at, m[1].at, N * sizeof(uint16_t)) == 0);
    CHECK(memcmp(v[0].at, v[1].at, N * sizeof(uint16_t)) == 0);
}

/* 4096 keys: the mean of the sums is the sum, to 5 standard deviations. */
static void sums_rounded_by_chance_are_unbiased(void)
{
    enum { KEYS = 4096, LEN = 64 };
    struct pair a = pair(1, LEN, LEN, 1), b = wide_pair(1, LEN, 2),
                y = pair(1, LEN, LEN, 3);
    double mean[LEN] = { 0 };
    int64_t moved = 0;

    for (uint64_t key = 0; key < KEYS; key++) {
        struct kern_round r = { key, 0, 5 };

        CHECK(kern_add_round(q, y.narrow, a.narrow, b.narrow, &r) == KR_OK);
        for (int i = 0; i < LEN; i++)
            mean[i] += (double)bf16_value(((uint16_t *)y.narrow.at)[i]) / KEYS;
    }
    for (int i = 0; i < LEN; i++) {
        double want = (double)(((float *)a.wide.at)[i] + ((float *)b.wide.at)[i]);
        double ulp = fabs(want) / 128; /* at most; deviation at most ulp / 2 */

        CHECK_NEAR(mean[i], want, 5 * ulp / 2 / 64);
        moved += mean[i] != (double)bf16_value(bf16_round((float)want));
    }
    CHECK_I64(moved, >, LEN / 2);
}

/* A step so small that rounding to nearest would never move the moment. */
static void bf16_moments_move_in_the_mean(void)
{
    enum { KEYS = 4096, LEN = 64 };
    struct pair w = wide_pair(1, LEN, 1), m = pair(1, LEN, LEN, 2),
                g = wide_pair(1, LEN, 4);
    struct pair v = pair(1, LEN, LEN, 3), start = pair(1, LEN, LEN, 2);
    double mean[LEN] = { 0 };

    (void)positive(v.narrow);
    for (uint64_t key = 0; key < KEYS; key++) {
        struct kern_adamw p = how;

        p.beta1 = 0.9999;
        p.round.key = key;
        CHECK(kern_copy(q, m.narrow, start.narrow) == KR_OK);
        CHECK(kern_adamw(q, w.narrow, m.narrow, v.narrow, g.narrow, kern_none, &p) ==
              KR_OK);
        for (int i = 0; i < LEN; i++)
            mean[i] += (double)bf16_value(((uint16_t *)m.narrow.at)[i]) / KEYS;
    }
    for (int i = 0; i < LEN; i++) {
        double old = (double)((float *)start.wide.at)[i];
        double want = 0.9999 * old + 0.0001 * 0.5 * (double)((float *)g.wide.at)[i];

        CHECK_NEAR(mean[i], want, 5 * fabs(want) / 128 / 2 / 64 + 1e-7);
        CHECK(bf16_round((float)want) == ((uint16_t *)start.narrow.at)[i]);
    }
}

static void squares_of_bf16_are_those_of_its_numbers(void)
{
    struct pair g = pair(1, N, N, 9);
    double narrow[3], wide[3];

    BOTH(kern_sumsq(q, narrow, g.narrow), kern_sumsq(wide_q, wide, g.wide));
    CHECK(memcmp(narrow, wide, sizeof wide) == 0);
}

/* ---- front doors ---------------------------------------------------------------------- */

static void wrong_types_are_refused(void)
{
    struct pair x = pair(4, 8, 8, 1), w = pair(1, 8, 8, 2), stats = wide_pair(2, 4, 3);
    struct pair dw = wide_pair(1, 8, 4), row = wide_pair(1, 8, 5);
    const struct kern_round r = { 1, 0, 0 };

    log_mute(true);
    CHECK(kern_norm_fwd(q, KERN_RMSNORM, x.narrow, x.narrow, x.narrow, w.narrow,
                        kern_none, 1e-5) == KR_ERR_ARG);
    CHECK(kern_norm_fwd(q, KERN_RMSNORM, x.wide, stats.narrow, x.wide, w.wide, kern_none,
                        1e-5) == KR_ERR_ARG);
    CHECK(kern_linear_bwd_w(q, w.narrow, kern_none, x.narrow, x.narrow, false) ==
          KR_ERR_ARG);
    CHECK(kern_adamw(q, w.narrow, dw.narrow, dw.narrow, dw.narrow, kern_none, &how) ==
          KR_ERR_ARG);
    CHECK(kern_adamw(q, dw.narrow, dw.narrow, w.narrow, dw.narrow, kern_none, &how) ==
          KR_ERR_ARG);
    CHECK(kern_adamw(q, dw.narrow, row.narrow, row.narrow, row.narrow, dw.narrow, &how) ==
          KR_ERR_ARG);
    CHECK(kern_adamw(wide_q, dw.wide, row.wide, row.wide, row.wide, dw.wide, &how) ==
          KR_ERR_ARG);
    CHECK(kern_add_round(q, dw.narrow, kern_none, dw.narrow, &r) == KR_ERR_ARG);
    CHECK(kern_add(q, dw.narrow, dw.narrow, w.narrow) == KR_ERR_ARG);
    log_mute(false);
}

static void devices_say_their_types(void)
{
    CHECK(kern_device_type(dev) == KERN_BF16 && kern_device_wide(dev) == KERN_F32);
    CHECK(kern_device_type(wide_dev) == KERN_F32 &&
          kern_device_wide(wide_dev) == KERN_F32);
}

int main(void)
{
    if (kern_device_open(&wide_dev, "cpu", 0, 2) ||
        kern_device_open(&dev, "cpu16", 0, 2) ||
        kern_queue_open(&wide_q, wide_dev, KERN_QUEUE_COMPUTE) ||
        kern_queue_open(&q, dev, KERN_QUEUE_COMPUTE))
        abort();
    RUN(every_bf16_comes_back);
    RUN(rounds_to_nearest_even);
    RUN(rounding_by_chance_is_exact_in_the_mean);
    RUN(linear_rounds_once);
    RUN(norms_and_activations_round_once);
    RUN(attention_and_rope_round_once);
    RUN(embedding_and_loss_round_once);
    RUN(copies_convert);
    RUN(adamw_also_gives_rounded_weights);
    RUN(bf16_moments_do_not_depend_on_the_partition);
    RUN(sums_rounded_by_chance_are_unbiased);
    RUN(bf16_moments_move_in_the_mean);
    RUN(squares_of_bf16_are_those_of_its_numbers);
    RUN(wrong_types_are_refused);
    RUN(devices_say_their_types);
    for (int i = 0; i < made_count; i++)
        kern_free(made[i].device, made[i].at);
    kern_queue_close(wide_q);
    kern_queue_close(q);
    kern_device_close(wide_dev);
    kern_device_close(dev);
    return check_done();
}
