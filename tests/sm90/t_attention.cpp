/*
 * Hopper attention on the machine of machine.h: forward and backward, heads of 64 and 128
 * channels, grouped K/V heads, ALiBi, documents, ragged lengths, against double.
 */
#include "tests/sm90/mats.h"

#include "kernels/cuda/sm90_attention_bwd.cuh"
#include "kernels/cuda/sm90_attention_fwd.cuh"
#include "tests/check.h"

/* A problem, and the truth of it. */
struct problem {
    int seq, sequences, heads, kv_heads, dim;
    bool alibi;
    std::vector<int32_t> start; /* empty: no documents */
    std::vector<float> slopes;
    struct mat qkv, dout;
    std::vector<double> out, lse, delta, dqkv;

    int64_t rows() const { return (int64_t)seq * sequences; }
    int64_t cols() const { return (int64_t)(heads + 2 * kv_heads) * dim; }
    double scale() const { return 1 / sqrt(dim); }
    int64_t k_col(int h) const { return (int64_t)(heads + h / (heads / kv_heads)) * dim; }
    int64_t v_col(int h) const { return k_col(h) + (int64_t)kv_heads * dim; }
};

static double score(const struct problem &p, int h, int64_t i, int64_t j)
{
    double sum = 0;

    for (int c = 0; c < p.dim; c++)
        sum += mat_get(p.qkv, i, h * p.dim + c) * mat_get(p.qkv, j, p.k_col(h) + c);
    return sum * p.scale() + (p.alibi ? p.slopes[h] * (double)(j - i) : 0);
}

/* Row i of head h: weights of the keys it sees, from `first` on. */
static std::vector<double> weights(const struct problem &p, int h, int64_t i,
                                   int64_t first, double *lse)
{
    std::vector<double> w;
    double sum = 0;

    for (int64_t j = first; j <= i; j++)
        w.push_back(exp(score(p, h, i, j))), sum += w.back();
    for (double &x : w)
        x /= sum;
    *lse = log(sum);
    return w;
}

static void truth_of_row(struct problem &p, int h, int64_t i)
{
    int64_t first = p.start.empty() ? i / p.seq * p.seq : p.start[i], q = h * p.dim;
    std::vector<double> w = weights(p, h, i, first, &p.lse[h * p.rows() + i]);
    double *out = &p.out[(size_t)(i * p.heads * p.dim + q)], delta = 0;

    for (int c = 0; c < p.dim; c++) {
        for (int64_t j = first; j <= i; j++)
            out[c] += w[(size_t)(j - first)] * mat_get(p.qkv, j, p.v_col(h) + c);
        delta += out[c] * mat_get(p.dout, i, q + c);
    }
    p.delta[h * p.rows() + i] = delta;
    for (int64_t j = first; j <= i; j++) {
        double weight = w[(size_t)(j - first)], dp = 0,
               *dj = &p.dqkv[(size_t)(j * p.cols())];

        for (int c = 0; c < p.dim; c++)
            dp += mat_get(p.dout, i, q + c) * mat_get(p.qkv, j, p.v_col(h) + c);
        for (int c = 0; c < p.dim; c++) {
            double ds = weight * (dp - delta) * p.scale();

            dj[p.v_col(h) + c] += weight * mat_get(p.dout, i, q + c);
            dj[p.k_col(h) + c] += ds * mat_get(p.qkv, i, q + c);
            p.dqkv[(size_t)(i * p.cols() + q + c)] +=
                ds * mat_get(p.qkv, j, p.k_col(h) + c);
        }
    }
}

static struct problem make(int seq, int sequences, int heads, int kv_heads, int dim,
                           bool alibi, std::vector<int32_t> documents)
{
    struct problem p = { seq, sequences, heads, kv_heads, dim, alibi, {},
                         {},  {},        {},    {},       {},  {},    {} };

    p.qkv = mat_random(p.rows(), p.cols(), KERN_BF16, 1, 1);
    p.dout = mat_random(p.rows(), heads * dim, KERN_BF16, 2, 1);
    for (int h = 0; h < heads; h++)
        p.slopes.push_back(ldexpf(1, -1 - h));
    for (int64_t i = 0; !documents.empty() && i < p.rows(); i++) {
        int32_t first = (int32_t)(i / seq * seq);

        for (int32_t d : documents)
            if (i / seq * seq + d <= i) first = (int32_t)(i / seq * seq) + d;
        p.start.push_back(first);
    }
    p.out.assign((size_t)(p.rows() * heads * dim), 0);
    p.dqkv.assign((size_t)(p.rows() * p.cols()), 0);
    p.lse.assign((size_t)(p.rows() * heads), 0);
    p.delta = p.lse;
    for (int h = 0; h < heads; h++)
        for (int64_t i = 0; i < p.rows(); i++)
            truth_of_row(p, h, i);
    return p;
}

static struct attention_args args_of(const struct problem &p)
{
    struct attention_args g = {};

    g.seq = p.seq, g.sequences = p.sequences, g.heads = p.heads, g.kv_heads = p.kv_heads;
    g.scale = (float)p.scale();
    g.slopes = p.slopes.data();
    g.start = p.start.empty() ? nullptr : p.start.data();
    return g;
}

/* Largest difference from the truth: against the value, or the root mean square where that
 * is larger. */
static double worst(const struct mat &x, const double *want)
{
    int64_t n = x.m.rows * x.m.cols;
    double most = 0, mean = 0;

    for (int64_t i = 0; i < n; i++)
        mean += want[i] * want[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(mat_get(x, i / x.m.cols, i % x.m.cols) - want[i]);

        d /= fmax(fabs(want[i]), sqrt(mean));
        if (!(d <= most)) most = d; /* NaN stays */
    }
    return most;
}

/* Enough workers that some have several tiles, few enough that all do. */
enum { WORKERS = 2, BACKWARD_WORKERS = 4 };

template <class S> static void check_forward(struct problem &p)
{
    struct mat first;

    mat_place(p.qkv);
    each_order([&] {
        struct mat out = mat_make(p.rows(), p.heads * p.dim, KERN_BF16);
        struct mat lse = mat_make(p.heads, p.rows(), KERN_F32);
        struct attention_args g = args_of(p);
        CUtensorMap q = fwd_box_q<S>(p.qkv.m, p.seq), kv = fwd_box_kv<S>(p.qkv.m, p.seq),
                    o;

        mat_place(out), mat_place(lse);
        o = attention_box_out(out.m, p.seq);
        g.lse = (float *)lse.m.at, g.lse_ld = lse.m.ld;
        g.order = attention_order(ceil_div(p.seq, S::rows), p.heads * p.sequences,
                                  p.heads / p.kv_heads, p.seq, p.dim);
        CHECK(machine_run(WORKERS, 1, S::threads, S::shared_bytes,
                          [&] { attention_fwd_kernel<S>(q, kv, o, g); }));
        CHECK_NEAR(worst(out, p.out.data()), 0, 0.02);
        CHECK_NEAR(worst(lse, p.lse.data()), 0, 1e-5);
        CHECK(mat_framed(out) && mat_framed(lse));
        if (first.bytes.empty()) first = out;
        CHECK(first.bytes == out.bytes);
    });
}

static void forward_of_128_channels(void)
{
    struct problem p = make(300, 1, 2, 1, 128, false, {});

    check_forward<fwd_shape<128, 2, false>>(p);
}

static void forward_of_64_channels(void)
{
    struct problem p = make(260, 2, 2, 1, 64, false, {});

    check_forward<fwd_shape<64, 3, false>>(p);
}

static void forward_with_alibi(void)
{
    struct problem p = make(200, 1, 2, 2, 64, true, {});

    check_forward<fwd_shape<64, 2, true>>(p);
    p = make(150, 1, 2, 1, 128, true, {});
    check_forward<fwd_shape<128, 2, true>>(p);
}

static void forward_of_documents(void)
{
    struct problem p = make(400, 1, 1, 1, 128, false, { 0, 1, 140, 300, 301, 390 });

    check_forward<fwd_shape<128, 2, false>>(p);
    p = make(390, 1, 1, 1, 64, false, { 0, 193, 320 });
    check_forward<fwd_shape<64, 3, false>>(p);
}

static void forward_of_short_sequences(void)
{
    for (int seq : { 1, 5, 128, 129 }) {
        struct problem p = make(seq, 3, 2, 1, 64, false, {});

        check_forward<fwd_shape<64, 3, false>>(p);
    }
}

/* The sums of dQ as a matrix would have them, into dqkv. */
template <class S>
static void place_dq(const struct problem &p, const std::vector<float> &sums,
                     struct mat &dqkv)
{
    const int blocks = ceil_div(p.seq, S::block);

    for (int64_t i = 0; i < p.rows(); i++)
        for (int c = 0; c < p.heads * p.dim; c++) {
            const int row = (int)(i % p.seq), in = row % S::block, col = c % p.dim;
            const int part = p.dim == 128 ? col / 64 : in / 64;
            const int64_t tile = dq_tile_at((int32_t)(i / p.seq), c / p.dim,
                                            row / S::block, p.heads, blocks);
            const float *at = sums.data() + (tile * 2 + part) * DQ_PART;

            for (uint32_t t = 0, k = 0; t < 128; k = (k + 1) % 32, t += k == 0)
                if (acc_row(t, k) == (uint32_t)in % 64 &&
                    acc_col(t, k) == (uint32_t)col % 64)
                    mat_set(dqkv, i, c, at[dq_part(t, k)] * p.scale());
        }
}

template <int D, bool ALIBI>
static void check_backward(struct problem &p, int workers = BACKWARD_WORKERS)
{
    using S = bwd_shape<D, ALIBI>;
    const int blocks = ceil_div(p.seq, S::block);
    struct mat lse = mat_make(p.heads, p.rows(), KERN_F32), delta = lse, first;

    for (int64_t i = 0; i < p.heads * p.rows(); i++) {
        mat_set(lse, i / p.rows(), i % p.rows(), p.lse[i]);
        mat_set(delta, i / p.rows(), i % p.rows(), p.delta[i]);
    }
    mat_place(p.qkv), mat_place(p.dout), mat_place(lse), mat_place(delta);
    each_order([&] {
        struct mat dqkv = mat_make(p.rows(), p.cols(), KERN_BF16);
        std::vector<int32_t> counts(1 + p.sequences * p.heads * blocks, 0);
        std::vector<float> sums((counts.size() - 1) * 2 * DQ_PART, NAN);
        struct backward_args g = {};
        CUtensorMap fixed = bwd_box_fixed(p.qkv.m, p.seq),
                    q = bwd_box_block<S>(p.qkv.m, p.seq),
                    dout = bwd_box_block<S>(p.dout.m, p.seq), out;

        mat_place(dqkv);
        out = attention_box_out(dqkv.m, p.seq);
        g.of = args_of(p);
        g.of.lse = (float *)lse.m.at, g.of.lse_ld = lse.m.ld;
        g.of.delta = (const float *)delta.m.at, g.of.delta_ld = delta.m.ld;
        g.of.order = backward_order(ceil_div(p.seq, BWD_KEYS), p.kv_heads * p.sequences,
                                    p.heads / p.kv_heads, p.seq, p.dim);
        g.claimed = &counts[0], g.added = &counts[1], g.dq = sums.data();
        g.ordered = true;
        CHECK(machine_run(workers, 1, BWD_THREADS, S::shared_bytes,
                          [&] { attention_bwd_kernel<S>(fixed, q, dout, out, g); }));
        place_dq<S>(p, sums, dqkv);
        CHECK_NEAR(worst(dqkv, p.dqkv.data()), 0, 0.04);
        CHECK(mat_framed(dqkv));
        if (first.bytes.empty()) first = dqkv;
        CHECK(first.bytes == dqkv.bytes);
    });
}

static void backward_of_128_channels(void)
{
    struct problem p = make(300, 1, 2, 1, 128, false, {});

    check_backward<128, false>(p);
}

static void backward_of_64_channels(void)
{
    struct problem p = make(260, 2, 2, 1, 64, false, {});

    check_backward<64, false>(p);
}

static void backward_with_alibi(void)
{
    struct problem p = make(200, 1, 2, 2, 64, true, {});

    check_backward<64, true>(p);
    p = make(150, 1, 2, 1, 128, true, {});
    check_backward<128, true>(p);
}

static void backward_of_documents(void)
{
    struct problem p = make(400, 1, 1, 1, 128, false, { 0, 1, 140, 300, 301, 390 });

    check_backward<128, false>(p);
    p = make(390, 1, 1, 1, 64, false, { 0, 193, 320 });
    check_backward<64, false>(p);
}

static void backward_of_short_sequences(void)
{
    for (int seq : { 2, 5, 128, 129 }) {
        struct problem p = make(seq, 3, 2, 1, 64, false, {});

        check_backward<64, false>(p);
    }
}

/* One CTA has all tiles; many lanes and sections; large groups. */
static void backward_of_many_tiles(void)
{
    struct problem p = make(200, 2, 2, 1, 128, false, { 0, 70, 150 });

    check_backward<128, false>(p, 1);
    p = make(130, 1, 2, 2, 128, false, {});
    check_backward<128, false>(p, 1);
    p = make(129, 5, 2, 2, 64, false, { 0, 128 });
    check_backward<64, false>(p, 1);
    check_backward<64, false>(p);
}

int main(void)
{
    RUN(forward_of_128_channels);
    RUN(forward_of_64_channels);
    RUN(forward_with_alibi);
    RUN(forward_of_documents);
    RUN(forward_of_short_sequences);
    RUN(backward_of_128_channels);
    RUN(backward_of_64_channels);
    RUN(backward_with_alibi);
    RUN(backward_of_documents);
    RUN(backward_of_short_sequences);
    RUN(backward_of_many_tiles);
    return check_done();
}
