/*
 * adamw.cu - the optimizer's pass over flat arrays, and additions rounded by chance.
 *
 * This file is compiled without contraction, in the same order of operations as
 * kernels/cpu/adamw.c: spans begin anywhere and ranks differ, so every element must come
 * out the same whoever computes it.
 *
 * A thread takes the elements whose numbers (struct kern_round) have one n / 8: they share
 * a block of random bits.
 */
#include "base/rng.h"
#include "kernels/cuda/cells.cuh"

/* ---- rounding by chance --------------------------------------------------------------- */

/* Philox 4x32-10; base/rng.c has the paper. */
static __device__ void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
#pragma unroll
    for (int i = 0; i < 10; i++) {
        const uint32_t high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
        const uint32_t high2 = __umulhi(0xCD9E8D57u, c[2]), low2 = 0xCD9E8D57u * c[2];

        c[0] = high2 ^ c[1] ^ k0;
        c[1] = low2;
        c[2] = high0 ^ c[3] ^ k1;
        c[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* The bits of a number, cut to 16 after 16 random bits were added; as base/bf16.h. */
static __device__ __forceinline__ uint16_t round_random(float x, uint32_t random)
{
    const uint32_t u = __float_as_uint(x);

    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    if ((u & 0x7f800000u) == 0x7f800000u) return (uint16_t)(u >> 16);
    return (uint16_t)((u + (random & 0xffffu)) >> 16);
}

/* Random bits of block number `block` of an operand. */
struct chance {
    uint32_t word[4];

    __device__ chance(const kern_round &r, uint32_t sub, int64_t block)
    {
        word[0] = (uint32_t)block, word[1] = (uint32_t)(block >> 32);
        word[2] = sub, word[3] = RNG_ROUND;
        philox(word, (uint32_t)r.key, (uint32_t)(r.key >> 32));
    }
    __device__ __forceinline__ uint32_t of(int k) const
    {
        return word[k / 2] >> 16 * (k % 2);
    }
};

/* ---- spans ---------------------------------------------------------------------------- */

/* Elements of one n / 8 that lie in a span of n elements. */
struct octet {
    int64_t begin; /* of the eight, in the span; may be negative */
    int low, high; /* those of the eight that exist */
    bool whole;    /* all eight, and the span begins at one: loads may be wide */
};

static __device__ __forceinline__ octet octet_of(int64_t first, int64_t n)
{
    const int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    octet o;

    o.begin = t * CELL - first % CELL;
    o.low = o.begin < 0 ? (int)-o.begin : 0;
    o.high = n - o.begin < CELL ? (int)(n - o.begin) : CELL;
    o.whole = o.low == 0 && o.high == CELL;
    return o;
}

/* One array that is walked over. */
template <typename T> struct span {
    T *at;
    bool aligned; /* to 16 bytes, where octets begin */

    __device__ __forceinline__ words<T> fetch(const octet &o) const
    {
        const T *from = at + o.begin;
        words<T> w = {};

        if (o.whole && aligned) return words<T>::whole(from);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (k >= o.low && k < o.high) w.put(k, from[k]);
        return w;
    }
    __device__ __forceinline__ void store(const float v[CELL], const octet &o) const
    {
        T *to = at + o.begin;

        if (o.whole && aligned) {
#pragma unroll
            for (int k = 0; k < CELL; k += pack<T>::N)
                pack<T>::store(to + k, v + k);
            return;
        }
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (k >= o.low && k < o.high) to[k] = narrow<T>(v[k]);
    }
};

/* Turn the values into what bf16 keeps of them; exact to store afterwards. */
static __device__ __forceinline__ void cut(float v[CELL], const chance &c)
{
#pragma unroll
    for (int k = 0; k < CELL; k++)
        v[k] = __uint_as_float((uint32_t)round_random(v[k], c.of(k)) << 16);
}

template <typename T> static span<T> span_of(struct kern_mat m, int64_t first)
{
    const size_t begin = (size_t)(CELL - first % CELL) % CELL * sizeof(T);

    return span<T>{ (T *)m.at, ((uintptr_t)m.at + begin) % 16 == 0 };
}

static dim3 octets(int64_t first, int64_t n)
{
    return dim3(
        (unsigned)(n ? pieces(n + first % CELL, (int64_t)CELL * CELL_THREADS) : 0));
}

/* ---- AdamW ---------------------------------------------------------------------------- */

struct factors {
    float beta1, beta2, rest1, rest2, grad, step, root, eps, keep;
};

static factors factors_of(const struct kern_adamw *p)
{
    factors f;

    f.beta1 = (float)p->beta1;
    f.beta2 = (float)p->beta2;
    f.rest1 = (float)(1 - p->beta1);
    f.rest2 = (float)(1 - p->beta2);
    f.grad = (float)p->grad_scale;
    f.step = (float)(p->lr / p->correct1);
    f.root = (float)(1 / sqrt(p->correct2));
    f.eps = (float)p->eps;
    f.keep = (float)(1 - p->lr * p->weight_decay);
    return f;
}

/* M: how moments are stored, G: gradients */
template <typename M, typename G>
static __global__ void __launch_bounds__(CELL_THREADS)
    adamw_kernel(span<float> w, span<M> m, span<M> v, span<G> g, span<bf16> copy,
                 int64_t n, factors f, kern_round round)
{
    const octet o = octet_of(round.first, n);
    float weight[CELL], first[CELL], second[CELL], grad[CELL];

    if (o.high <= o.low) return;
    const words<float> old = w.fetch(o);
    const words<M> old_m = m.fetch(o), old_v = v.fetch(o);
    const words<G> slope = g.fetch(o);

    old.unpack(weight);
    old_m.unpack(first);
    old_v.unpack(second);
    slope.unpack(grad);
#pragma unroll
    for (int k = 0; k < CELL; k++) {
        const float d = grad[k] * f.grad;

        first[k] = f.beta1 * first[k] + f.rest1 * d;
        second[k] = f.beta2 * second[k] + f.rest2 * d * d;
        weight[k] =
            f.keep * weight[k] - f.step * first[k] / (sqrtf(second[k]) * f.root + f.eps);
    }
    w.store(weight, o);
    if (copy.at) copy.store(weight, o);
    if (sizeof(M) < sizeof(float)) {
        const int64_t block = (round.first + o.begin) / CELL;

        cut(first, chance(round, round.sub, block));
        cut(second, chance(round, round.sub + 1, block));
    }
    m.store(first, o);
    v.store(second, o);
}

template <typename M, typename G>
static kr_status adamw(void *stream, struct kern_mat w, struct kern_mat m,
                       struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                       const struct kern_adamw *p)
{
    const int64_t first = p->round.first;

    return launch(stream, "adamw", adamw_kernel<M, G>, octets(first, w.cols),
                  CELL_THREADS, 0, span_of<float>(w, first), span_of<M>(m, first),
                  span_of<M>(v, first), span_of<G>(g, first), span_of<bf16>(copy, first),
                  w.cols, factors_of(p), p->round);
}

kr_status cuda_adamw(void *stream, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                     const struct kern_adamw *p)
{
    if (m.type == KERN_BF16)
        return g.type == KERN_BF16 ? adamw<bf16, bf16>(stream, w, m, v, g, copy, p)
                                   : adamw<bf16, float>(stream, w, m, v, g, copy, p);
    return g.type == KERN_BF16 ? adamw<float, bf16>(stream, w, m, v, g, copy, p)
                               : adamw<float, float>(stream, w, m, v, g, copy, p);
}

/* ---- sums rounded by chance ----------------------------------------------------------- */

template <typename A, typename B>
static __global__ void __launch_bounds__(CELL_THREADS)
    add_round_kernel(span<bf16> y, span<A> a, span<B> b, int64_t n, kern_round round)
{
    const octet o = octet_of(round.first, n);
    float v[CELL], w[CELL];

    if (o.high <= o.low) return;
    const words<B> right = b.fetch(o);

    if (a.at) a.fetch(o).unpack(w);
    right.unpack(v);
    if (a.at) {
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] = w[k] + v[k];
    }
    cut(v, chance(round, round.sub, (round.first + o.begin) / CELL));
    y.store(v, o);
}

template <typename A, typename B>
static kr_status add_round(void *stream, struct kern_mat y, struct kern_mat a,
                           struct kern_mat b, const struct kern_round *r)
{
    return launch(stream, "add_round", add_round_kernel<A, B>, octets(r->first, y.cols),
                  CELL_THREADS, 0, span_of<bf16>(y, r->first), span_of<A>(a, r->first),
                  span_of<B>(b, r->first), y.cols, *r);
}

kr_status cuda_add_round(void *stream, struct kern_mat y, struct kern_mat a,
                         struct kern_mat b, const struct kern_round *r)
{
    if (a.type == KERN_BF16)
        return b.type == KERN_BF16 ? add_round<bf16, bf16>(stream, y, a, b, r)
                                   : add_round<bf16, float>(stream, y, a, b, r);
    return b.type == KERN_BF16 ? add_round<float, bf16>(stream, y, a, b, r)
                               : add_round<float, float>(stream, y, a, b, r);
}
