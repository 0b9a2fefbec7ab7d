/*
 * t_op_grads.c - every operation's backward against central differences of its forward,
 * in double precision, and every operation's bits against the number of threads.
 *
 * A case names its operands; those with a gradient are varied.  The scalar is the sum of
 * the output times fixed random numbers, so dy is those numbers.
 */
#include <stdlib.h>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "tests/check.h"

enum { MOST = 1 << 18 };

static struct kern_device *dev;
static struct kern_queue *q;

static struct kern_mat mat(int64_t rows, int64_t cols, int64_t ld)
{
    struct kern_mat m = { NULL, rows, cols, ld, KERN_F64 };

    if (kern_alloc(dev, &m.at, (size_t)(rows * ld) * sizeof(double), "test")) abort();
    return m;
}

/* Noise, kept away from 0 so that no slope is ill conditioned. */
static void fill_noise(struct kern_mat m, uint32_t seed)
{
    double *x = m.at;

    for (int64_t i = 0; i < m.rows * m.ld; i++)
        x[i] = 0.7 * rng_normal(seed, RNG_TEST, 0, (uint64_t)i);
}

static struct kern_mat noise(int64_t rows, int64_t cols, int64_t ld, uint32_t seed)
{
    struct kern_mat m = mat(rows, cols, ld);

    fill_noise(m, seed);
    return m;
}

static double *at(struct kern_mat m, int64_t i, int64_t j)
{
    return (double *)m.at + i * m.ld + j;
}

/* Operands of the operation under test. */
static struct {
    struct kern_mat in[4], grad[4], y, dy;
    int inputs;
    kr_status (*forward)(void);
    kr_status (*backward)(void);
} op;

static double objective(void)
{
    double sum = 0;

    CHECK(op.forward() == KR_OK);
    for (int64_t i = 0; i < op.y.rows; i++)
        for (int64_t j = 0; j < op.y.cols; j++)
            sum += *at(op.y, i, j) * *at(op.dy, i, j);
    return sum;
}

static void check_slopes(void)
{
    const double h = 1e-5;

    CHECK(op.forward() == KR_OK);
    CHECK(op.backward() == KR_OK);
    for (int k = 0; k < op.inputs; k++)
        for (int64_t i = 0; i < op.in[k].rows; i++)
            for (int64_t j = 0; j < op.in[k].cols; j++) {
                double *x = at(op.in[k], i, j), keep = *x, up, down;

                *x = keep + h;
                up = objective();
                *x = keep - h;
                down = objective();
                *x = keep;
                CHECK_NEAR(*at(op.grad[k], i, j), (up - down) / (2 * h),
                           2e-7 * (1 + fabs(up - down) / (2 * h)));
            }
}

static void operand(struct kern_mat x)
{
    op.in[op.inputs] = x;
    op.grad[op.inputs] = mat(x.rows, x.cols, x.ld);
    fill_noise(op.grad[op.inputs++], 99); /* must be overwritten */
}

static void output(struct kern_mat y)
{
    op.y = y;
    op.dy = noise(y.rows, y.cols, y.ld, 42);
}

static void begin(void) { memset(&op, 0, sizeof op); }

/* ---- linear --------------------------------------------------------------------------- */

static kr_status linear_fwd(void)
{
    return kern_linear_fwd(q, op.y, op.in[0], op.in[1], op.in[2], kern_none);
}

static kr_status linear_bwd(void)
{
    TRY(kern_linear_bwd_x(q, op.grad[0], op.dy, op.in[1], false));
    return kern_linear_bwd_w(q, op.grad[1], op.grad[2], op.dy, op.in[0], false);
}

static void linear_with_bias(void)
{
    begin();
    operand(noise(5, 7, 9, 1));
    operand(noise(6, 7, 7, 2));
    operand(noise(1, 6, 6, 3));
    output(noise(5, 6, 8, 4));
    op.forward = linear_fwd;
    op.backward = linear_bwd;
    check_slopes();
}

/* ---- embedding ------------------------------------------------------------------------ */

static int32_t tokens[] = { 2, 0, 2, 4, 2, 1 };
static const int32_t *starts; /* of documents; NULL: one a sequence */

static kr_status embed_fwd(void)
{
    return kern_embed_fwd(q, op.y, tokens, op.in[0], op.in[1], 3, starts);
}

static kr_status embed_bwd(void)
{
    return kern_embed_bwd(q, op.grad[0], op.grad[1], tokens, op.dy, 3, starts, false);
}

static void embedding_with_repeated_tokens(void)
{
    begin();
    operand(noise(5, 4, 4, 1));
    operand(noise(3, 4, 4, 2));
    output(noise(6, 4, 5, 3));
    op.forward = embed_fwd;
    op.backward = embed_bwd;
    check_slopes();
}

static void embedding_counts_positions_by_document(void)
{
    static const int32_t documents[] = { 0, 0, 2, 3, 4, 4 };

    starts = documents;
    embedding_with_repeated_tokens();
    starts = NULL;
}

/* ---- norms ---------------------------------------------------------------------------- */

static enum kern_norm norm_kind;
static struct kern_mat norm_stats;

static kr_status norm_fwd(void)
{
    return kern_norm_fwd(q, norm_kind, op.y, norm_stats, op.in[0], op.in[1],
                         op.inputs > 2 ? op.in[2] : kern_none, 1e-5);
}

static kr_status norm_bwd(void)
{
    return kern_norm_bwd(q, norm_kind, op.grad[0], false, op.grad[1],
                         op.inputs > 2 ? op.grad[2] : kern_none, false, op.dy, op.in[0],
                         op.in[1], norm_stats);
}

static void norm_case(enum kern_norm kind, bool bias)
{
    begin();
    norm_kind = kind;
    norm_stats = mat(2, 4, 4);
    operand(noise(4, 9, 11, 1));
    operand(noise(1, 9, 9, 2));
    if (bias) operand(noise(1, 9, 9, 3));
    output(noise(4, 9, 9, 4));
    op.forward = norm_fwd;
    op.backward = norm_bwd;
    check_slopes();
}

static void layer_norm(void) { norm_case(KERN_LAYERNORM, true); }
static void rms_norm(void) { norm_case(KERN_RMSNORM, false); }

/* ---- activations ---------------------------------------------------------------------- */

static enum kern_act act_kind;
static kr_status act_fwd(void) { return kern_act_fwd(q, act_kind, op.y, op.in[0]); }
static kr_status act_bwd(void)
{
    return kern_act_bwd(q, act_kind, op.grad[0], op.dy, op.in[0]);
}

static void act_case(enum kern_act kind, int64_t inputs)
{
    begin();
    act_kind = kind;
    operand(noise(3, inputs, inputs + 1, 1));
    output(noise(3, 10, 10, 2));
    op.forward = act_fwd;
    op.backward = act_bwd;
    check_slopes();
}

static void gelu(void) { act_case(KERN_GELU_TANH, 10); }
static void swiglu(void) { act_case(KERN_SWIGLU, 20); }

/* ---- positions ------------------------------------------------------------------------ */

static enum kern_pairing pairing;
static struct kern_mat table;

static kr_status rope_fwd(void)
{
    TRY(kern_copy(q, op.y, op.in[0]));
    return kern_rope(q, op.y, table, 2, 6, 3, pairing, false);
}

static kr_status rope_bwd(void)
{
    TRY(kern_copy(q, op.grad[0], op.dy));
    return kern_rope(q, op.grad[0], table, 2, 6, 3, pairing, true);
}

/* Two heads of 6, of which 4 turn. */
static void rope_case(enum kern_pairing kind)
{
    begin();
    pairing = kind;
    table = mat(3, 4, 4);
    for (int64_t t = 0; t < 3; t++)
        for (int64_t i = 0; i < 2; i++) {
            *at(table, t, i) = cos(0.7 * (double)t * (double)(i + 1));
            *at(table, t, i + 2) = sin(0.7 * (double)t * (double)(i + 1));
        }
    operand(noise(6, 12, 15, 1));
    output(noise(6, 12, 12, 2));
    op.forward = rope_fwd;
    op.backward = rope_bwd;
    check_slopes();
}

static void rope_half_turns_back(void) { rope_case(KERN_ROPE_HALF); }
static void rope_interleaved_turns_back(void) { rope_case(KERN_ROPE_INTERLEAVED); }

/* The pair of channel 1 at position 1: (1, 3) or (0, 1). */
static void rope_pairs_are_as_named(void)
{
    rope_case(KERN_ROPE_HALF);
    CHECK(op.forward() == KR_OK);
    CHECK_NEAR(*at(op.y, 1, 1),
               *at(op.in[0], 1, 1) * cos(1.4) - *at(op.in[0], 1, 3) * sin(1.4), 1e-15);
    CHECK_NEAR(*at(op.y, 1, 4), *at(op.in[0], 1, 4), 0);
    rope_case(KERN_ROPE_INTERLEAVED);
    CHECK(op.forward() == KR_OK);
    CHECK_NEAR(*at(op.y, 1, 1),
               *at(op.in[0], 1, 1) * cos(0.7) + *at(op.in[0], 1, 0) * sin(0.7), 1e-15);
}

/* ---- attention ------------------------------------------------------------------------ */

static struct kern_heads heads;
static struct kern_mat lse, delta;

static kr_status attention_fwd(void)
{
    return kern_attention_fwd(q, op.y, lse, op.in[0], &heads);
}

static kr_status attention_bwd(void)
{
    return kern_attention_bwd(q, op.grad[0], delta, op.dy, op.in[0], op.y, lse, &heads);
}

static void set_heads(int64_t h, int64_t k, int64_t d, int64_t seq, const void *slopes)
{
    heads = (struct kern_heads){ h, k, d, seq, 1 / sqrt((double)d), slopes, NULL, 0 };
}

static void attention_case(int64_t h, int64_t k, int64_t d, int64_t seq, int64_t n)
{
    begin();
    set_heads(h, k, d, seq, NULL);
    lse = mat(h, n, n);
    delta = mat(h, n, n);
    operand(noise(n, (h + 2 * k) * d, (h + 2 * k) * d + 3, 1));
    output(noise(n, h * d, h * d, 2));
    op.forward = attention_fwd;
    op.backward = attention_bwd;
}

static void attention_of_two_sequences(void)
{
    attention_case(2, 2, 4, 5, 10);
    check_slopes();
}

static void attention_with_grouped_heads(void)
{
    attention_case(4, 2, 2, 4, 4);
    check_slopes();
}

/* Longer than a tile of queries and keys, ragged at the end, against the definition. */
static void attention_over_many_tiles_is_softmax(void)
{
    const int64_t n = 150, d = 6;

    attention_case(2, 1, d, n, n);
    CHECK(op.forward() == KR_OK);
    for (int64_t i = 0; i < n; i += 37)
        for (int64_t h = 0; h < 2; h++) {
            double out[6] = { 0 }, sum = 0;

            for (int64_t j = 0; j <= i; j++) {
                double s = 0;

                for (int64_t c = 0; c < d; c++)
                    s += *at(op.in[0], i, h * d + c) * *at(op.in[0], j, 2 * d + c);
                s = exp(s / sqrt((double)d));
                sum += s;
                for (int64_t c = 0; c < d; c++)
                    out[c] += s * *at(op.in[0], j, 3 * d + c);
            }
            CHECK_NEAR(*at(lse, h, i), log(sum), 1e-12);
            for (int64_t c = 0; c < d; c++)
                CHECK_NEAR(*at(op.y, i, h * d + c), out[c] / sum, 1e-12);
        }
}

/* A sample of slopes across the borders of tiles. */
static void attention_over_many_tiles_has_slopes(void)
{
    const double h = 1e-5;

    attention_case(2, 1, 4, 140, 140);
    CHECK(op.forward() == KR_OK && op.backward() == KR_OK);
    for (int64_t i = 0; i < 140; i += 9) {
        int64_t j = i % 16;
        double *x = at(op.in[0], i, j), keep = *x, up, down;

        *x = keep + h;
        up = objective();
        *x = keep - h;
        down = objective();
        *x = keep;
        CHECK_NEAR(*at(op.grad[0], i, j), (up - down) / (2 * h), 1e-6);
    }
}

/* ---- loss ----------------------------------------------------------------------------- */

static int32_t labels[] = { 3, KERN_IGNORE, 0, 6 };

static kr_status loss_fwd(void)
{
    return kern_cross_entropy(q, op.y, kern_none, op.in[0], labels, 0);
}

static kr_status loss_bwd(void)
{
    return kern_cross_entropy(q, op.y, op.grad[0], op.in[0], labels, 1.5);
}

static void cross_entropy_with_a_masked_label(void)
{
    begin();
    operand(noise(4, 7, 8, 1));
    output(noise(1, 4, 4, 2));
    for (int64_t j = 0; j < 4; j++)
        *at(op.dy, 0, j) = 1.5; /* the gradient is that of 1.5 times the sum */
    op.forward = loss_fwd;
    op.backward = loss_bwd;
    check_slopes();
    CHECK(*at(op.y, 0, 1) == 0);
}

/* ---- the optimizer and the sums -------------------------------------------------------- */

static void adamw_is_the_formula(void)
{
    const struct kern_adamw p = { 0.1, 0.9, 0.99, 1e-8, 0.05, 0.19, 0.0199, 0.5, { 0 } };
    struct kern_mat w = noise(1, 37, 37, 1), m = noise(1, 37, 37, 2),
                    v = noise(1, 37, 37, 3);
    struct kern_mat g = noise(1, 37, 37, 4), w0 = mat(1, 37, 37), m0 = mat(1, 37, 37);
    struct kern_mat v0 = mat(1, 37, 37);

    for (int64_t i = 0; i < 37; i++)
        *at(v, 0, i) = fabs(*at(v, 0, i));
    CHECK(kern_copy(q, w0, w) == KR_OK && kern_copy(q, m0, m) == KR_OK);
    CHECK(kern_copy(q, v0, v) == KR_OK &&
          kern_adamw(q, w, m, v, g, kern_none, &p) == KR_OK);
    for (int64_t i = 0; i < 37; i++) {
        double grad = 0.5 * *at(g, 0, i);
        double mi = 0.9 * *at(m0, 0, i) + 0.1 * grad;
        double vi = 0.99 * *at(v0, 0, i) + 0.01 * grad * grad;
        double wi = *at(w0, 0, i);

        wi -= 0.1 * (mi / 0.19 / (sqrt(vi / 0.0199) + 1e-8) + 0.05 * wi);
        CHECK_NEAR(*at(m, 0, i), mi, 1e-15);
        CHECK_NEAR(*at(v, 0, i), vi, 1e-15);
        CHECK_NEAR(*at(w, 0, i), wi, 1e-14);
    }
}

static void sums_are_sums(void)
{
    struct kern_mat x = noise(1, 10000, 10000, 1);
    double sum, want = 0, blocks[3], squares[3] = { 0 };

    for (int64_t i = 0; i < x.cols; i++) {
        want += *at(x, 0, i);
        squares[i / KERN_SUM_BLOCK] += *at(x, 0, i) * *at(x, 0, i);
    }
    CHECK(kern_sum(q, &sum, x) == KR_OK && kern_sumsq(q, blocks, x) == KR_OK);
    CHECK_NEAR(sum, want, 1e-9);
    for (int i = 0; i < 3; i++)
        CHECK_NEAR(blocks[i], squares[i], 1e-9);
}

/* ---- threads --------------------------------------------------------------------------- */

/* One pass of everything that has threads, at sizes where they are used; a hash of it. */
static uint64_t run_all(const char *name, int threads)
{
    static float in[MOST], w[MOST], out[MOST], grad[MOST], stats[4096];
    struct kern_device *d;
    struct kern_queue *s;
    struct kern_heads h = { 8, 4, 16, 96, 0.25, NULL, NULL, 0 };
    struct kern_mat x = { in, 192, 256, 256, KERN_F32 },
                    y = { out, 192, 256, 256, KERN_F32 };
    struct kern_mat g = { grad, 192, 256, 256, KERN_F32 };
    struct kern_mat ww = { w, 256, 256, 256, KERN_F32 },
                    st = { stats, 2, 192, 192, KERN_F32 };
    struct kern_mat row = { w, 1, 256, 256, KERN_F32 },
                    l = { stats, 8, 192, 192, KERN_F32 };
    struct kern_mat dl = { stats + 2000, 8, 192, 192, KERN_F32 };
    struct kern_mat att = { grad, 192, 128, 128, KERN_F32 };
    struct kern_mat datt = { grad + 30000, 192, 128, 128, KERN_F32 };
    uint64_t hash = 0;

#define STEP(call, buffer)                                               \
    do {                                                                 \
        CHECK((call) == KR_OK);                                          \
        for (size_t i_ = 0; i_ < sizeof buffer / sizeof *buffer; i_++) { \
            uint32_t bits_;                                              \
            memcpy(&bits_, &buffer[i_], sizeof bits_);                   \
            hash = (hash ^ bits_) * 0x100000001b3u;                      \
        }                                                                \
    } while (0)
    for (int i = 0; i < MOST; i++) {
        in[i] = (float)rng_normal(3, RNG_TEST, 0, (uint64_t)i);
        w[i] = (float)rng_normal(4, RNG_TEST, 0, (uint64_t)i);
        out[i] = grad[i] = 0;
    }
    if (kern_device_open(&d, name, 0, threads) ||
        kern_queue_open(&s, d, KERN_QUEUE_COMPUTE))
        abort();
    STEP(kern_linear_fwd(s, y, x, ww, row, kern_none), out);
    STEP(kern_linear_bwd_w(s, ww, row, y, x, true), w);
    STEP(kern_norm_fwd(s, KERN_LAYERNORM, y, st, x, row, row, 1e-5), out);
    STEP(kern_norm_bwd(s, KERN_LAYERNORM, g, false, row, kern_none, true, y, x, row, st),
         w);
    STEP(kern_act_fwd(s, KERN_GELU_TANH, y, x), out);
    STEP(kern_attention_fwd(s, att, l, x, &h), grad);
    STEP(kern_copy(s, datt, att), grad);
    STEP(kern_attention_bwd(s, y, dl, datt, x, att, l, &h), out);
#undef STEP
    kern_queue_close(s);
    kern_device_close(d);
    return hash;
}

static void bits_do_not_depend_on_threads(void)
{
    uint64_t one = run_all("cpu", 1);

    CHECK(run_all("cpu", 2) == one);
    CHECK(run_all("cpu", 3) == one);
    CHECK(run_all("cpu", 7) == one);
    CHECK(run_all("cpu", 1) == one);
}

int main(void)
{
    if (kern_device_open(&dev, "cpu64", 0, 2) ||
        kern_queue_open(&q, dev, KERN_QUEUE_COMPUTE))
        return 2;
    RUN(linear_with_bias);
    RUN(embedding_with_repeated_tokens);
    RUN(embedding_counts_positions_by_document);
    RUN(layer_norm);
    RUN(rms_norm);
    RUN(gelu);
    RUN(swiglu);
    RUN(rope_half_turns_back);
    RUN(rope_interleaved_turns_back);
    RUN(rope_pairs_are_as_named);
    RUN(attention_of_two_sequences);
    RUN(attention_with_grouped_heads);
    RUN(attention_over_many_tiles_is_softmax);
    RUN(attention_over_many_tiles_has_slopes);
    RUN(cross_entropy_with_a_masked_label);
    RUN(adamw_is_the_formula);
    RUN(sums_are_sums);
    RUN(bits_do_not_depend_on_threads);
    return check_done();
}
