/*
 * sm90_gemm.cuh - c (M, N) [+]= op(a) op(b) on Hopper: bf16 in, sums in fp32.
 *
 * One CTA per multiprocessor walks over tiles of 128 x N.  Warpgroup 0 feeds: one thread
 * keeps a ring of k-steps (128 x 64 of a, 64 x N of b) full through the copy engine.
 * Warpgroups 1 and 2 compute 64 rows each and write the tile out while the ring fills for
 * the next.  In a pair (cluster of two CTAs, one above the other) each CTA fetches half of
 * b and sends it to both, which takes a third off the traffic from L2.
 *
 * With `split`, the CTAs of a cluster share the inner dimension of one tile instead; each
 * leaves its sum in its shared memory and all add rows of the tile up in the order of the
 * parts.  So every element has one order of summation, fixed by the plan: no atomics, no
 * workspace.
 *
 * Ragged edges: the copy engine reads zeros beyond the matrix and writes nothing there.
 */
#ifndef KERN_CUDA_SM90_GEMM_CUH
#define KERN_CUDA_SM90_GEMM_CUH

#include "kernels/cuda/sm90_ptx.cuh"

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/sm90_tensor_map.h"

/* What happens to the sums. */
enum gemm_out {
    GEMM_BF16,  /* c = sums + bias + addend, rounded; bias and addend may be missing */
    GEMM_F32,   /* c (fp32) = sums, or += */
    GEMM_GELU,  /* u = sums + bias, c = gelu(u) of the rounded u */
    GEMM_SWIGLU /* b is [gate | up]: u (M, 2F) = sums, c (M, F) = silu(gate) up */
};

struct gemm_args {
    int32_t m, n, k; /* SWIGLU: n is F, columns of c */
    int32_t split;   /* CTAs that share the inner dimension; 1 unless the shape splits */
    void *c;         /* F32: the output; BF16: the addend, or NULL */
    int64_t ldc;
    bool add;         /* F32 only */
    const bf16 *bias; /* (n), or NULL */
};

/* A kernel, as constants.  TA: a is (K, M).  TB: b is (N, K). */
template <int N, int PAIR, bool TA, bool TB, enum gemm_out OUT>
struct gemm_shape {
    static constexpr int tile_n = N, pair = PAIR, out = OUT, accs = N / 2;
    static constexpr bool ta = TA, tb = TB;
    static constexpr int stages = N == 256 ? 4 : 6;
    static constexpr int cols = OUT == GEMM_SWIGLU ? N / 2 : N; /* of c, per tile */
    static constexpr int a_bytes = GEMM_M * PANEL_ROW, b_bytes = N *PANEL_ROW;
    static constexpr int stage_bytes = a_bytes + b_bytes;
    static constexpr int panel_bytes = 64 * PANEL_ROW;
    /* two panels of output on their way for each of the two warpgroups */
    static constexpr int staging = stages * stage_bytes;
    static constexpr int bars = staging + (OUT == GEMM_F32 ? 0 : 4 * panel_bytes);
    static constexpr int shared_bytes = PANEL_ALIGN + bars + 2 * stages * 8;
};

/* What the copy engine moves at a time of a, b, c (or u). */
template <class S> static inline struct tensor_box gemm_box_a(struct kern_mat a)
{
    return tensor_box(a, S::ta ? GEMM_K : GEMM_M);
}
template <class S> static inline struct tensor_box gemm_box_b(struct kern_mat b)
{
    return tensor_box(b, S::tb ? 128 : GEMM_K);
}
static inline struct tensor_box gemm_box_c(struct kern_mat c)
{
    return tensor_box(c, 64);
}

enum { GEMM_THREADS = 384, SUM_ROW = 136 * 4 /* bytes, split; no bank twice */ };

/* Place in the ring of stages, and the parity of its phase. */
struct gemm_ring {
    int32_t slot;
    uint32_t phase;
};

template <class S> DEVICE void advance(struct gemm_ring &r)
{
    if (++r.slot == S::stages) r.slot = 0, r.phase ^= 1;
}

template <class S> DEVICE uint32_t full_bar(uint32_t base, int32_t slot)
{
    return base + S::bars + slot * 8;
}
template <class S> DEVICE uint32_t empty_bar(uint32_t base, int32_t slot)
{
    return base + S::bars + (S::stages + slot) * 8;
}

/* Which tile of c, and which k-steps of it. */
struct gemm_job {
    int32_t m0, n0, begin, end;
};

/* index counts tiles of a cluster; the CTA's own place in the cluster is rank. */
template <class S>
DEVICE struct gemm_job job_at(const struct gemm_args &g, int32_t index, int32_t rank)
{
    int32_t row, col, steps = ceil_div(g.k, GEMM_K);
    struct gemm_job j = { 0, 0, 0, steps };

    raster(index, ceil_div(ceil_div(g.m, GEMM_M), S::pair), ceil_div(g.n, S::cols), &row,
           &col);
    j.m0 = (row * S::pair + (S::pair > 1 ? rank : 0)) * GEMM_M;
    j.n0 = col * S::cols;
    if (g.split > 1) {
        j.begin = split_begin(steps, rank, g.split);
        j.end = split_begin(steps, rank + 1, g.split);
    }
    return j;
}

template <class S> LAYOUT int32_t job_count(const struct gemm_args &g)
{
    return ceil_div(ceil_div(g.m, GEMM_M), S::pair) * ceil_div(g.n, S::cols);
}

/* ---- feeding -------------------------------------------------------------------------- */

template <class S>
DEVICE void load_a(uint32_t to, const CUtensorMap *a, uint32_t bar, int32_t m0,
                   int32_t k0)
{
    if constexpr (S::ta) {
        tma_load(to, a, bar, m0, k0);
        tma_load(to + S::panel_bytes, a, bar, m0 + PANEL_COLS, k0);
    } else {
        tma_load(to, a, bar, k0, m0);
    }
}

/* One box of b, to both CTAs of a pair. */
template <class S>
DEVICE void load_box(uint32_t to, const CUtensorMap *b, uint32_t bar, int32_t x,
                     int32_t y)
{
    if (S::pair > 1)
        tma_load_multicast(to, b, bar, 3, x, y);
    else
        tma_load(to, b, bar, x, y);
}

/* K-major: boxes of 128 rows; MN-major: boxes of 64 columns.  In a pair, rank's half. */
template <class S>
DEVICE void load_b(uint32_t to, const CUtensorMap *b, uint32_t bar,
                   const struct gemm_args &g, int32_t n0, int32_t k0, int32_t rank)
{
    constexpr int wide = S::tb ? 128 : PANEL_COLS, mine = S::tile_n / wide / S::pair;

#pragma unroll
    for (int i = 0; i < mine; i++) {
        int32_t box = (S::pair > 1 ? rank * mine : 0) + i;
        int32_t n = S::out == GEMM_SWIGLU ? n0 + box * g.n : n0 + box * wide;

        load_box<S>(to + box * wide * PANEL_ROW, b, bar, S::tb ? k0 : n, S::tb ? n : k0);
    }
}

template <class S>
DEVICE void gemm_feed(const CUtensorMap *a, const CUtensorMap *b,
                      const struct gemm_args &g, uint32_t base, int32_t rank,
                      int32_t first, int32_t stride)
{
    struct gemm_ring r = { 0, 0 };

    for (int32_t i = first; i < job_count<S>(g); i += stride) {
        struct gemm_job j = job_at<S>(g, i, rank);

        for (int32_t k = j.begin; k < j.end; k++, advance<S>(r)) {
            uint32_t to = base + r.slot * S::stage_bytes, bar = full_bar<S>(base, r.slot);

            mbar_wait(empty_bar<S>(base, r.slot), r.phase ^ 1);
            mbar_expect(bar, S::stage_bytes);
            load_a<S>(to, a, bar, j.m0, k * GEMM_K);
            load_b<S>(to + S::a_bytes, b, bar, g, j.n0, k * GEMM_K, rank);
        }
    }
}

/* ---- computing ------------------------------------------------------------------------ */

/* This warp has read a stage: says so to all CTAs that write into it. */
template <class S> DEVICE void release(uint32_t base, int32_t slot)
{
    int32_t lane = thread_id() % 32;

    if (S::pair == 1 && lane == 0) mbar_arrive(empty_bar<S>(base, slot));
    if (S::pair > 1 && lane < S::pair) mbar_arrive_at(empty_bar<S>(base, slot), lane);
}

/* 64 x N of one k-step; half: which 64 rows of a.  more: add to d. */
template <class S>
DEVICE void gemm_step(float (&d)[S::accs], uint32_t stage, int32_t half, bool more)
{
    uint32_t at = stage + half * S::panel_bytes;
    uint64_t a = S::ta ? desc_mn(at, GEMM_K) : desc_k(at);
    uint64_t b = S::tb ? desc_k(stage + S::a_bytes) : desc_mn(stage + S::a_bytes, GEMM_K);

    wgmma_fence();
#pragma unroll
    for (uint32_t s = 0; s < GEMM_K / MMA_K; s++)
        wgmma<S::ta, !S::tb>(d, desc_add(a, S::ta ? step_mn(s) : step_k(s, GEMM_M)),
                             desc_add(b, S::tb ? step_k(s, S::tile_n) : step_mn(s)),
                             more || s > 0);
    wgmma_commit();
}

/* One product stays in flight; the stage before it is given back. */
template <class S>
DEVICE void gemm_sum(float (&d)[S::accs], struct gemm_ring &r, uint32_t base,
                     int32_t half, int32_t steps)
{
    int32_t last = 0;

    pin(d);
    for (int32_t k = 0; k < steps; k++) {
        mbar_wait(full_bar<S>(base, r.slot), r.phase);
        gemm_step<S>(d, base + r.slot * S::stage_bytes, half, k > 0);
        wgmma_wait<1>();
        if (k > 0) release<S>(base, last);
        last = r.slot;
        advance<S>(r);
    }
    wgmma_wait<0>();
    pin(d);
    release<S>(base, last);
}

/* ---- writing out ---------------------------------------------------------------------- */

/* Two neighbours of a row of bf16; zero where there are fewer than two left. */
DEVICE uint32_t load_pair(const bf16 *at, int32_t left)
{
    if (left >= 2) return *(const uint32_t *)at;
    return left == 1 ? *(const uint16_t *)at : 0;
}

/* A warpgroup's way out: 64 x 64 through two buffers, in turn, to the copy engine. */
struct gemm_exit {
    uint32_t buffer[2];
    int32_t group, thread; /* 0 or 1; 0-127 */
    int32_t turn;
};

DEVICE void put_panel(struct gemm_exit &e, const uint32_t (&q)[16],
                      const CUtensorMap *map, int32_t x, int32_t y)
{
    uint32_t to = e.buffer[e.turn & 1];

    if (e.thread == 0) tma_wait_read<1>();
    bar_sync(1 + e.group, 128);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        stmatrix(to + stage_at(e.thread / 32 * 16, i * 16, e.thread % 32), q[4 * i],
                 q[4 * i + 1], q[4 * i + 2], q[4 * i + 3]);
    fence_async();
    bar_sync(1 + e.group, 128);
    if (e.thread == 0) {
        tma_store(map, to, x, y);
        tma_commit();
    }
    e.turn++;
}

/* Accumulators of panel P, rounded. */
template <int P, int ACCS>
DEVICE void pack_panel(uint32_t (&q)[16], const float (&d)[ACCS])
{
#pragma unroll
    for (int i = 0; i < 16; i++)
        q[i] = pack(d[P * 32 + 2 * i], d[P * 32 + 2 * i + 1]);
}

template <int P, int ACCS>
DEVICE void add_bias(float (&d)[ACCS], const bf16 *bias, int32_t n0, int32_t n,
                     int32_t thread)
{
#pragma unroll
    for (int i = P * 32; i < P * 32 + 32; i += 4) {
        int32_t col = n0 + (int32_t)acc_col(thread, i);
        uint32_t b = load_pair(bias + col, n - col);

        d[i] += unpack_lo(b), d[i + 1] += unpack_hi(b);
        d[i + 2] += unpack_lo(b), d[i + 3] += unpack_hi(b);
    }
}

/* m0: first of the 64 rows of this warpgroup. */
template <int P, int ACCS>
DEVICE void add_matrix(float (&d)[ACCS], const struct gemm_args &g, int32_t m0,
                       int32_t n0, int32_t thread)
{
#pragma unroll
    for (int i = P * 32; i < P * 32 + 32; i += 2) {
        int32_t row = m0 + (int32_t)acc_row(thread, i),
                col = n0 + (int32_t)acc_col(thread, i);
        uint32_t c = 0;

        if (row < g.m) c = load_pair((const bf16 *)g.c + row * g.ldc + col, g.n - col);
        d[i] += unpack_lo(c), d[i + 1] += unpack_hi(c);
    }
}

/* Panels P.. of a tile, one after another. */
template <class S, int P>
DEVICE void put_bf16(struct gemm_exit &e, float (&d)[S::accs], const CUtensorMap *c,
                     const struct gemm_args &g, int32_t m0, int32_t n0)
{
    if constexpr (P * PANEL_COLS < S::cols) {
        uint32_t q[16];

        if (g.bias) add_bias<P>(d, g.bias, n0, g.n, e.thread);
        if (g.c) add_matrix<P>(d, g, m0, n0, e.thread);
        pack_panel<P>(q, d);
        put_panel(e, q, c, n0 + P * PANEL_COLS, m0);
        put_bf16<S, P + 1>(e, d, c, g, m0, n0);
    }
}

template <class S, int P>
DEVICE void put_gelu(struct gemm_exit &e, float (&d)[S::accs], const CUtensorMap *c,
                     const CUtensorMap *u, const struct gemm_args &g, int32_t m0,
                     int32_t n0)
{
    if constexpr (P * PANEL_COLS < S::cols) {
        uint32_t q[16];

        if (g.bias) add_bias<P>(d, g.bias, n0, g.n, e.thread);
        pack_panel<P>(q, d);
        put_panel(e, q, u, n0 + P * PANEL_COLS, m0);
#pragma unroll
        for (int i = 0; i < 16; i++)
            q[i] = pack(act_gelu(unpack_lo(q[i])), act_gelu(unpack_hi(q[i])));
        put_panel(e, q, c, n0 + P * PANEL_COLS, m0);
        put_gelu<S, P + 1>(e, d, c, u, g, m0, n0);
    }
}

/* Gate in the first half of the tile's columns, up in the second: the same thread. */
template <class S, int P>
DEVICE void put_swiglu(struct gemm_exit &e, float (&d)[S::accs], const CUtensorMap *c,
                       const CUtensorMap *u, const struct gemm_args &g, int32_t m0,
                       int32_t n0)
{
    if constexpr (P * PANEL_COLS < S::cols) {
        uint32_t gate[16], up[16];

        pack_panel<P>(gate, d);
        put_panel(e, gate, u, n0 + P * PANEL_COLS, m0);
        pack_panel<P + S::cols / PANEL_COLS>(up, d);
        put_panel(e, up, u, g.n + n0 + P * PANEL_COLS, m0);
#pragma unroll
        for (int i = 0; i < 16; i++)
            gate[i] = pack(act_swiglu(unpack_lo(gate[i]), unpack_lo(up[i])),
                           act_swiglu(unpack_hi(gate[i]), unpack_hi(up[i])));
        put_panel(e, gate, c, n0 + P * PANEL_COLS, m0);
        put_swiglu<S, P + 1>(e, d, c, u, g, m0, n0);
    }
}

/* Two neighbours; the row is 16-byte aligned and a multiple of 4 long. */
DEVICE void put_pair(float *at, float x, float y, int32_t left, bool add)
{
    if (left >= 2) {
        float2 old = add ? *(const float2 *)at : make_float2(0, 0);

        *(float2 *)at = make_float2(old.x + x, old.y + y);
    } else if (left == 1) {
        *at = (add ? *at : 0) + x;
    }
}

template <int ACCS>
DEVICE void put_f32(const float (&d)[ACCS], const struct gemm_args &g, int32_t m0,
                    int32_t n0, int32_t thread)
{
#pragma unroll
    for (int i = 0; i < ACCS; i += 2) {
        int32_t row = m0 + (int32_t)acc_row(thread, i),
                col = n0 + (int32_t)acc_col(thread, i);

        if (row < g.m)
            put_pair((float *)g.c + row * g.ldc + col, d[i], d[i + 1], g.n - col, g.add);
    }
}

template <class S>
DEVICE void gemm_put(struct gemm_exit &e, float (&d)[S::accs], const CUtensorMap *c,
                     const CUtensorMap *u, const struct gemm_args &g, int32_t m0,
                     int32_t n0)
{
    if constexpr (S::out == GEMM_BF16) put_bf16<S, 0>(e, d, c, g, m0, n0);
    if constexpr (S::out == GEMM_F32) put_f32(d, g, m0, n0, e.thread);
    if constexpr (S::out == GEMM_GELU) put_gelu<S, 0>(e, d, c, u, g, m0, n0);
    if constexpr (S::out == GEMM_SWIGLU) put_swiglu<S, 0>(e, d, c, u, g, m0, n0);
}

template <class S>
DEVICE void gemm_compute(const CUtensorMap *c, const CUtensorMap *u,
                         const struct gemm_args &g, uint32_t base, int32_t rank,
                         int32_t first, int32_t stride)
{
    int32_t half = uniform(thread_id() / 128) - 1;
    uint32_t staging = base + S::staging + half * 2 * S::panel_bytes;
    struct gemm_exit e = {
        { staging, staging + S::panel_bytes }, half, thread_id() % 128, 0
    };
    struct gemm_ring r = { 0, 0 };

    for (int32_t i = first; i < job_count<S>(g); i += stride) {
        struct gemm_job j = job_at<S>(g, i, rank);
        float d[S::accs];

        gemm_sum<S>(d, r, base, half, j.end - j.begin);
        gemm_put<S>(e, d, c, u, g, j.m0 + half * 64, j.n0);
    }
    if (e.thread == 0) tma_wait_read<0>();
}

/* ---- the kernels ---------------------------------------------------------------------- */

/* arrivals: warps that read a stage, in all CTAs it is filled for. */
template <class S> DEVICE void gemm_init(uint32_t base, int32_t arrivals)
{
    if (thread_id() == 0) {
        for (int i = 0; i < S::stages; i++) {
            mbar_init(full_bar<S>(base, i), 1);
            mbar_init(empty_bar<S>(base, i), arrivals);
        }
        mbar_init_fence();
    }
}

template <class S>
KERNEL(GEMM_THREADS)
gemm_kernel(TENSOR_MAP a, TENSOR_MAP b, TENSOR_MAP c, TENSOR_MAP u,
            const struct gemm_args g)
{
    uint32_t base = shared_start();
    int32_t rank = S::pair > 1 ? cluster_rank() : 0;
    int32_t first = block_id() / S::pair, stride = block_count() / S::pair;

    gemm_init<S>(base, 8 * S::pair);
    if (S::pair > 1)
        cluster_sync();
    else
        cta_sync();
    if (uniform(thread_id() / 128) == 0) {
        registers_less<40>();
        if (thread_id() == 0) gemm_feed<S>(&a, &b, g, base, rank, first, stride);
    } else {
        registers_more<232>();
        gemm_compute<S>(&c, &u, g, base, rank, first, stride);
    }
    if (S::pair > 1) cluster_sync(); /* a CTA that is gone cannot be written to */
}

/* ---- split ---------------------------------------------------------------------------- */

/* Leave a warpgroup's sums in shared memory, rows SUM_ROW apart, over the ring. */
template <int ACCS>
DEVICE void keep_sums(const float (&d)[ACCS], uint32_t base, int32_t half)
{
    int32_t thread = thread_id() % 128;

#pragma unroll
    for (int i = 0; i < ACCS; i += 2)
        store_shared2(base + (half * 64 + acc_row(thread, i)) * SUM_ROW +
                          acc_col(thread, i) * 4,
                      d[i], d[i + 1]);
}

/* Rows of this CTA: add the parts up in order, write four columns at a time. */
template <class S>
DEVICE void add_parts(const struct gemm_args &g, struct gemm_job j, uint32_t base,
                      int32_t rank)
{
    int32_t rows = GEMM_M / g.split, quads = S::tile_n / 4;

    for (int32_t i = thread_id() - 128; i < rows * quads; i += 256) {
        int32_t row = rank * rows + i / quads, col = i % quads * 4;
        float *at = (float *)g.c + (j.m0 + row) * g.ldc + j.n0 + col;
        float4 sum = make_float4(0, 0, 0, 0);

        for (int32_t part = 0; part < g.split; part++) {
            float4 x = load_peer4(base + row * SUM_ROW + col * 4, part);

            sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
        }
        if (j.m0 + row >= g.m) continue;
        put_pair(at, sum.x, sum.y, g.n - j.n0 - col, g.add);
        put_pair(at + 2, sum.z, sum.w, g.n - j.n0 - col - 2, g.add);
    }
}

/* One tile per cluster of g.split CTAs; fp32 output. */
template <class S>
KERNEL(GEMM_THREADS)
gemm_split_kernel(TENSOR_MAP a, TENSOR_MAP b, const struct gemm_args g)
{
    uint32_t base = shared_start();
    int32_t rank = cluster_rank(), tile = block_id() / g.split;
    int32_t half = uniform(thread_id() / 128) - 1;
    struct gemm_job j = job_at<S>(g, tile, rank);

    gemm_init<S>(base, 8);
    cta_sync();
    if (half < 0) {
        registers_less<40>();
        if (thread_id() == 0) gemm_feed<S>(&a, &b, g, base, rank, tile, job_count<S>(g));
    } else {
        struct gemm_ring r = { 0, 0 };
        float d[S::accs];

        registers_more<232>();
        gemm_sum<S>(d, r, base, half, j.end - j.begin);
        bar_sync(1, 256); /* both have read the ring */
        keep_sums(d, base, half);
    }
    cluster_sync();
    if (half >= 0) add_parts<S>(g, j, base, rank);
    cluster_sync(); /* until all have read what lies here */
}

#endif
