/*
 * The Hopper matrix product on the machine of machine.h: every kind of kernel that
 * sm90_gemm launches, on ragged shapes, against sums in double.  Around each matrix lie
 * NaNs that must be neither read nor overwritten.
 */
#include "tests/sm90/mats.h"

#include "kernels/cuda/sm90_gemm.cuh"
#include "tests/check.h"

struct product {
    struct mat a, b, c, u, bias, old; /* old: c before */
    struct gemm_args g;
};

/* A product of kind S with everything it can have; c starts as a random matrix where it is
 * added to, else as NaN. */
template <class S>
static struct product make(int32_t m, int32_t n, int32_t k, bool add, bool bias)
{
    enum kern_dtype type = S::out == GEMM_F32 ? KERN_F32 : KERN_BF16;
    int32_t b_rows = S::out == GEMM_SWIGLU ? 2 * n : n;
    struct product p;

    p.a = S::ta ? mat_random(k, m, KERN_BF16, 1, 1) : mat_random(m, k, KERN_BF16, 1, 1);
    p.b = S::tb ? mat_random(b_rows, k, KERN_BF16, 2, 1)
                : mat_random(k, n, KERN_BF16, 2, 1);
    p.old = p.c = add ? mat_random(m, n, type, 3, 1) : mat_make(m, n, type);
    if (bias) p.bias = mat_random(1, n, KERN_BF16, 4, 1);
    if (S::out == GEMM_GELU) p.u = mat_make(m, n, KERN_BF16);
    if (S::out == GEMM_SWIGLU) p.u = mat_make(m, 2 * n, KERN_BF16);
    p.g = {};
    p.g.m = m, p.g.n = n, p.g.k = k, p.g.split = 1, p.g.add = add;
    return p;
}

template <class S> static bool launch(struct product &p, int grid)
{
    CUtensorMap a, b, c = {}, u = {};

    for (struct mat *x : { &p.a, &p.b, &p.c, &p.u, &p.bias })
        mat_place(*x);
    a = gemm_box_a<S>(p.a.m), b = gemm_box_b<S>(p.b.m);
    if (S::out != GEMM_F32) c = gemm_box_c(p.c.m);
    if (p.u.m.at) u = gemm_box_c(p.u.m);
    p.g.bias = (const bf16 *)p.bias.m.at;
    p.g.c = S::out == GEMM_F32 || p.g.add ? p.c.m.at : nullptr;
    p.g.ldc = p.c.m.ld;
    if constexpr (S::tile_n == 128 && S::out == GEMM_F32)
        if (p.g.split > 1)
            return machine_run(job_count<S>(p.g) * p.g.split, p.g.split, GEMM_THREADS,
                               S::shared_bytes, [&] { gemm_split_kernel<S>(a, b, p.g); });
    return machine_run(grid, S::pair, GEMM_THREADS, S::shared_bytes,
                       [&] { gemm_kernel<S>(a, b, c, u, p.g); });
}

template <class S> static double sum_at(const struct product &p, int64_t i, int64_t j)
{
    double sum = p.bias.bytes.empty() ? 0 : mat_get(p.bias, 0, j);

    for (int64_t k = 0; k < p.g.k; k++)
        sum += (S::ta ? mat_get(p.a, k, i) : mat_get(p.a, i, k)) *
               (S::tb ? mat_get(p.b, j, k) : mat_get(p.b, k, j));
    return sum;
}

static double gelu_of(double u)
{
    return u / 2 * (1 + tanh(sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
}

/* Largest error of c and u, in units of rounding a value of the size of the sums. */
template <class S> static double worst(const struct product &p)
{
    double most = 0, u = S::out == GEMM_F32 ? 1e-6 : 0.0045, size = sqrt(p.g.k) + 1;

    for (int64_t i = 0; i < p.g.m; i++)
        for (int64_t j = 0; j < p.g.n; j++) {
            double want = sum_at<S>(p, i, j), got = mat_get(p.c, i, j), err = 0;

            if (S::out == GEMM_GELU) {
                err = fabs(mat_get(p.u, i, j) - want);
                want = gelu_of(mat_get(p.u, i, j));
            } else if (S::out == GEMM_SWIGLU) {
                double up = sum_at<S>(p, i, p.g.n + j), g = mat_get(p.u, i, j);

                err = fabs(g - want) + fabs(mat_get(p.u, i, p.g.n + j) - up);
                want = g / (1 + exp(-g)) * mat_get(p.u, i, p.g.n + j);
                size = fmax(size, fabs(want));
            } else if (p.g.add) {
                want += mat_get(p.old, i, j);
            }
            err += fabs(got - want);
            if (!(err <= most)) most = err; /* NaN stays */
        }
    return most / (u * size * 3);
}

template <class S>
static void check(int32_t m, int32_t n, int32_t k, bool add, bool bias, int32_t split)
{
    const struct product start = make<S>(m, n, k, add, bias);
    struct mat first;

    each_order([&] {
        struct product p = start;

        p.g.split = split;
        CHECK(launch<S>(p, 2));
        CHECK_NEAR(worst<S>(p), 0, 1);
        CHECK(mat_framed(p.c) && mat_framed(p.u));
        if (first.bytes.empty()) first = p.c;
        CHECK(first.bytes == p.c.bytes);
    });
}

template <int N, int PAIR> using forward = gemm_shape<N, PAIR, false, true, GEMM_BF16>;
template <int N, int PAIR>
using data_gradient = gemm_shape<N, PAIR, false, false, GEMM_BF16>;
template <int N, int PAIR>
using weight_gradient = gemm_shape<N, PAIR, true, false, GEMM_F32>;

static void forward_adds_bias_and_residual(void)
{
    check<forward<256, 2>>(136, 264, 200, true, true, 1);
    check<forward<256, 1>>(40, 520, 72, false, true, 1);
    check<forward<128, 1>>(130, 133, 8, true, false, 1);
}

static void data_gradient_reads_weights_as_they_lie(void)
{
    check<data_gradient<256, 2>>(200, 270, 328, false, false, 1);
    check<data_gradient<256, 1>>(100, 72, 64, true, false, 1);
    check<data_gradient<128, 1>>(260, 130, 100, false, false, 1);
}

static void weight_gradient_adds_in_fp32(void)
{
    check<weight_gradient<256, 2>>(258, 300, 136, true, false, 1);
    check<weight_gradient<256, 1>>(64, 256, 320, false, false, 1);
    check<weight_gradient<128, 1>>(129, 127, 71, true, false, 1);
    check<gemm_shape<256, 2, true, false, GEMM_BF16>>(258, 130, 136, true, false, 1);
}

static void parts_of_the_inner_dimension_add_up(void)
{
    check<weight_gradient<128, 1>>(130, 140, 520, true, false, 2);
    check<weight_gradient<128, 1>>(100, 65, 700, false, false, 4);
}

static void activations_keep_what_the_backward_needs(void)
{
    check<gemm_shape<256, 2, false, true, GEMM_GELU>>(140, 264, 72, false, true, 1);
    check<gemm_shape<256, 2, false, true, GEMM_SWIGLU>>(140, 256, 136, false, false, 1);
    check<gemm_shape<256, 1, false, true, GEMM_SWIGLU>>(60, 128, 64, false, false, 1);
    check<gemm_shape<128, 1, false, true, GEMM_GELU>>(70, 136, 72, false, true, 1);
}

/* One CTA with many tiles: the ring and the staging buffers go around. */
static void tiles_follow_each_other(void)
{
    check<forward<256, 2>>(640, 600, 136, false, false, 1);
    check<weight_gradient<128, 1>>(300, 300, 72, true, false, 1);
}

int main(void)
{
    RUN(forward_adds_bias_and_residual);
    RUN(data_gradient_reads_weights_as_they_lie);
    RUN(weight_gradient_adds_in_fp32);
    RUN(parts_of_the_inner_dimension_add_up);
    RUN(activations_keep_what_the_backward_needs);
    RUN(tiles_follow_each_other);
    return check_done();
}
