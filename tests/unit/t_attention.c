/*
 * t_attention.c - what each row sees, and with which bias: attention over packed
 * documents, ALiBi and grouped heads against the definition, row by row, and against
 * finite differences, in double.
 */
#include <stdlib.h>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "tests/check.h"

enum { DIM = 4, MOST_ROWS = 320, MOST_HEADS = 6, MOST_COLS = 3 * MOST_HEADS * DIM };

static struct kern_device *dev;
static struct kern_queue *q;

/* One case, in memory of the CPU device. */
static struct {
    struct kern_heads heads;
    int64_t rows;
    double qkv[MOST_ROWS * MOST_COLS], dqkv[MOST_ROWS * MOST_COLS];
    double out[MOST_ROWS * MOST_COLS], dout[MOST_ROWS * MOST_COLS];
    double lse[MOST_ROWS * MOST_HEADS], delta[MOST_ROWS * MOST_HEADS];
    float slopes[MOST_HEADS];
    int32_t start[MOST_ROWS];
} c;

static struct kern_mat mat(double *at, int64_t rows, int64_t cols)
{
    return kern_mat(at, rows, cols, KERN_F64);
}

static int64_t qkv_cols(void) { return (c.heads.heads + 2 * c.heads.kv_heads) * DIM; }
static int64_t out_cols(void) { return c.heads.heads * DIM; }

/* `heads` over `kv` groups, sequences of seq rows, no bias, whole sequences visible. */
static void begin(int64_t heads, int64_t kv, int64_t seq, int64_t rows)
{
    c.heads = (struct kern_heads){
        .heads = heads, .kv_heads = kv, .head_dim = DIM, .seq = seq
    };
    c.heads.scale = 1 / sqrt(DIM);
    c.rows = rows;
    for (int64_t i = 0; i < rows * qkv_cols(); i++)
        c.qkv[i] = rng_normal(1, RNG_TEST, 0, (uint64_t)i);
    for (int64_t i = 0; i < rows * out_cols(); i++)
        c.dout[i] = rng_normal(2, RNG_TEST, 0, (uint64_t)i);
}

/* Documents of the given lengths, one after the other; a sequence ends a document too. */
static void pack(const int64_t *len, size_t count)
{
    int64_t at = 0;

    for (size_t d = 0; d < count; d++)
        for (int64_t end = at + len[d], first = at; at < end && at < c.rows; at++) {
            if (at % c.heads.seq == 0) first = at;
            c.start[at] = (int32_t)first;
        }
    CHECK_I64(at, ==, c.rows);
    c.heads.start = c.start;
}

static void bias(const float *slopes)
{
    memcpy(c.slopes, slopes, sizeof *slopes * (size_t)c.heads.heads);
    c.heads.slopes = c.slopes;
}

static kr_status forward(void)
{
    return kern_attention_fwd(q, mat(c.out, c.rows, out_cols()),
                              mat(c.lse, c.heads.heads, c.rows),
                              mat(c.qkv, c.rows, qkv_cols()), &c.heads);
}

static kr_status backward(void)
{
    return kern_attention_bwd(
        q, mat(c.dqkv, c.rows, qkv_cols()), mat(c.delta, c.heads.heads, c.rows),
        mat(c.dout, c.rows, out_cols()), mat(c.qkv, c.rows, qkv_cols()),
        mat(c.out, c.rows, out_cols()), mat(c.lse, c.heads.heads, c.rows), &c.heads);
}

/* ---- the definition -------------------------------------------------------------------- */

static int64_t first_seen(int64_t i)
{
    return c.heads.start ? c.start[i] : i / c.heads.seq * c.heads.seq;
}

static int64_t group_of(int64_t head)
{
    return head / (c.heads.heads / c.heads.kv_heads);
}

/* Row i of head h: weights of the rows first_seen(i) .. i; returns log of the sum. */
static double weigh(int64_t i, int64_t h, double *p)
{
    const double *query = c.qkv + i * qkv_cols() + h * DIM;
    double sum = 0;

    for (int64_t j = first_seen(i); j <= i; j++) {
        const double *key = c.qkv + j * qkv_cols() + (c.heads.heads + group_of(h)) * DIM;
        double s = 0;

        for (int64_t x = 0; x < DIM; x++)
            s += query[x] * key[x];
        s = s / sqrt(DIM);
        if (c.heads.slopes) s -= (double)c.slopes[h] * (double)(i - j);
        p[j] = exp(s);
        sum += p[j];
    }
    for (int64_t j = first_seen(i); j <= i; j++)
        p[j] /= sum;
    return log(sum);
}

static const double *value_of(int64_t j, int64_t h)
{
    int64_t head = c.heads.heads + c.heads.kv_heads + group_of(h);

    return c.qkv + j * qkv_cols() + head * DIM;
}

static void check_forward(void)
{
    static double p[MOST_ROWS];

    CHECK(forward() == KR_OK);
    for (int64_t h = 0; h < c.heads.heads; h++)
        for (int64_t i = 0; i < c.rows; i++) {
            double want[DIM] = { 0 };

            CHECK_NEAR(c.lse[h * c.rows + i], weigh(i, h, p), 1e-12);
            for (int64_t j = first_seen(i); j <= i; j++)
                for (int64_t x = 0; x < DIM; x++)
                    want[x] += p[j] * value_of(j, h)[x];
            for (int64_t x = 0; x < DIM; x++)
                CHECK_NEAR(c.out[i * out_cols() + h * DIM + x], want[x], 1e-12);
        }
}

/* Row i of head h: what it adds to the gradients of its query, keys and values. */
static void spread(int64_t i, int64_t h, double *want)
{
    static double p[MOST_ROWS], dp[MOST_ROWS];
    int64_t k = (c.heads.heads + group_of(h)) * DIM, v = k + c.heads.kv_heads * DIM;
    const double *dout = c.dout + i * out_cols() + h * DIM;
    double mean = 0;

    (void)weigh(i, h, p);
    for (int64_t j = first_seen(i); j <= i; j++) {
        dp[j] = 0;
        for (int64_t x = 0; x < DIM; x++)
            dp[j] += dout[x] * value_of(j, h)[x];
        mean += p[j] * dp[j];
    }
    for (int64_t j = first_seen(i); j <= i; j++)
        for (int64_t x = 0; x < DIM; x++) {
            double ds = p[j] * (dp[j] - mean) / sqrt(DIM);

            want[i * qkv_cols() + h * DIM + x] += ds * c.qkv[j * qkv_cols() + k + x];
            want[j * qkv_cols() + k + x] += ds * c.qkv[i * qkv_cols() + h * DIM + x];
            want[j * qkv_cols() + v + x] += p[j] * dout[x];
        }
}

static void check_backward(void)
{
    static double want[MOST_ROWS * MOST_COLS];

    memset(want, 0, sizeof want);
    for (int64_t h = 0; h < c.heads.heads; h++)
        for (int64_t i = 0; i < c.rows; i++)
            spread(i, h, want);
    CHECK(forward() == KR_OK && backward() == KR_OK);
    for (int64_t i = 0; i < c.rows * qkv_cols(); i++)
        CHECK_NEAR(c.dqkv[i], want[i], 1e-11);
}

static double objective(void)
{
    double sum = 0;

    CHECK(forward() == KR_OK);
    for (int64_t i = 0; i < c.rows * out_cols(); i++)
        sum += c.out[i] * c.dout[i];
    return sum;
}

/* Every `step`-th element of qkv. */
static void check_slopes(int64_t step)
{
    const double h = 1e-5;

    CHECK(forward() == KR_OK && backward() == KR_OK);
    for (int64_t i = 0; i < c.rows * qkv_cols(); i += step) {
        double keep = c.qkv[i], up, down;

        c.qkv[i] = keep + h;
        up = objective();
        c.qkv[i] = keep - h;
        down = objective();
        c.qkv[i] = keep;
        CHECK_NEAR(c.dqkv[i], (up - down) / (2 * h), 2e-7 * (1 + fabs(c.dqkv[i])));
    }
}

/* ---- documents ------------------------------------------------------------------------- */

/* Ragged, of one row, at and across the borders of tiles, and a long one. */
static const int64_t awkward[] = { 3, 1, 60, 1, 40, 45, 70, 100 };

static void a_row_sees_its_own_document_only(void)
{
    begin(2, 1, 160, 320);
    pack(awkward, sizeof awkward / sizeof *awkward);
    check_forward();
    check_backward();
}

static void packed_documents_have_slopes(void)
{
    const int64_t len[] = { 2, 1, 4, 5 };

    begin(4, 2, 6, 12);
    pack(len, 4);
    check_slopes(1);
    begin(2, 2, 160, 320);
    pack(awkward, sizeof awkward / sizeof *awkward);
    check_slopes(97);
}

/* What another document holds is not even read: NaN there changes nothing here. */
static void another_document_does_not_exist(void)
{
    const int64_t len[] = { 130, 70 };
    static double alone[200 * MOST_COLS];

    begin(2, 1, 200, 200);
    pack(len, 2);
    CHECK(forward() == KR_OK && backward() == KR_OK);
    memcpy(alone, c.dqkv, sizeof alone);
    for (int64_t i = 0; i < 128 * qkv_cols(); i++) /* two whole tiles */
        c.qkv[i] = NAN;
    CHECK(forward() == KR_OK && backward() == KR_OK);
    for (int64_t i = 192 * qkv_cols(); i < 200 * qkv_cols(); i++)
        CHECK(c.dqkv[i] == alone[i]);
}

/* Starts at the beginning of the sequences say nothing new: the same bits. */
static void one_document_is_a_sequence(void)
{
    static double out[MOST_ROWS * MOST_COLS], dqkv[MOST_ROWS * MOST_COLS];
    const int64_t len[] = { 320 };

    begin(2, 1, 160, 320);
    CHECK(forward() == KR_OK && backward() == KR_OK);
    memcpy(out, c.out, sizeof out);
    memcpy(dqkv, c.dqkv, sizeof dqkv);
    pack(len, 1);
    CHECK(forward() == KR_OK && backward() == KR_OK);
    CHECK(memcmp(out, c.out, sizeof out) == 0);
    CHECK(memcmp(dqkv, c.dqkv, sizeof dqkv) == 0);
}

/* ---- bias and groups -------------------------------------------------------------------- */

static const float slopes[] = { 0.5f, 0.25f, 0.8f, 0.0625f };

/* The definition takes slope * distance away; a flipped sign or another origin fails. */
static void alibi_pulls_towards_the_near(void)
{
    begin(4, 4, 90, 180);
    bias(slopes);
    check_forward();
    check_backward();
    begin(4, 2, 5, 10);
    bias(slopes);
    check_slopes(1);
}

static void alibi_and_documents_together(void)
{
    begin(4, 4, 160, 320);
    bias(slopes);
    pack(awkward, sizeof awkward / sizeof *awkward);
    check_forward();
    check_backward();
}

/* Six heads over two groups: heads 0, 1, 2 use the first; h mod 2 would be another. */
static void heads_of_a_group_are_neighbours(void)
{
    begin(6, 2, 70, 140);
    check_forward();
    check_backward();
}

int main(void)
{
    if (kern_device_open(&dev, "cpu64", 0, 2) ||
        kern_queue_open(&q, dev, KERN_QUEUE_COMPUTE))
        return 2;
    RUN(a_row_sees_its_own_document_only);
    RUN(packed_documents_have_slopes);
    RUN(another_document_does_not_exist);
    RUN(one_document_is_a_sequence);
    RUN(alibi_pulls_towards_the_near);
    RUN(alibi_and_documents_together);
    RUN(heads_of_a_group_are_neighbours);
    kern_queue_close(q);
    kern_device_close(dev);
    return check_done();
}
