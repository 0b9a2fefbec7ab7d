/*
 * sm90_attention_bwd.cuh - causal attention on Hopper, backward, in two passes.
 *
 *   keys     a CTA owns 128 keys of a K/V head and walks over the query heads of its group
 *            and over the blocks of queries that see them: dK and dV stay in registers
 *   queries  a CTA owns 128 queries of a head and walks over blocks of keys: dQ stays in
 *            registers
 *
 * Both form the scores again: 7 products where one pass needs 5.  One pass must add dQ up
 * across CTAs: in the order of arrival, which is another result every time, or in a fixed
 * order through counters in memory, which costs 17 to 37 % (published, H100), a buffer of
 * fp32 as large as Q, two more passes over it, and stores and loads of dS through shared
 * memory.  Two passes have none of that, and no CTA ever waits for another.
 *
 * In the first pass scores are computed transposed (keys are rows), in both, so that the
 * weights and dS are operands in registers as they come out of the tensor cores.
 *
 * Overlap: the products with dS of a block and the scores of the next are under way
 * together, and dP is formed while exponentials are computed.  As in the forward, a loop
 * (the stage's barrier, long passed) keeps ptxas from moving a wait above them.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_BWD_CUH
#define KERN_CUDA_SM90_ATTENTION_BWD_CUH

#include "kernels/cuda/sm90_attention.cuh"

enum { BWD_THREADS = 384, BWD_ROWS = 128, BWD_STAGES = 2, BWD_FEW = 40, BWD_MANY = 232 };

/* Both passes.  Fixed: what a CTA owns, two tiles of 128 rows; moving: stages of two tiles
 * of `block` rows, and in the pass over keys three numbers of each query. */
template <int D, int BLOCK, bool ALIBI> struct bwd_shape {
    static constexpr int dim = D, block = BLOCK;
    static constexpr bool alibi = ALIBI;
    static constexpr int fixed_bytes = BWD_ROWS * D * 2, block_bytes = BLOCK * D * 2;
    static constexpr int numbers = 3 * BLOCK * 4;
    static constexpr int stage_bytes = 2 * block_bytes;
    static constexpr int stages = 2 * fixed_bytes;
    static constexpr int stats = stages + BWD_STAGES * stage_bytes;
    static constexpr int bars = stats + BWD_STAGES * numbers;
    static constexpr int shared_bytes = PANEL_ALIGN + bars + (2 + 2 * BWD_STAGES) * 8;
};
template <int D, bool ALIBI> using keys_shape = bwd_shape<D, D == 128 ? 64 : 128, ALIBI>;
template <int D, bool ALIBI>
using queries_shape = bwd_shape<D, D == 128 ? 96 : 128, ALIBI>;

/* What the copy engine moves at a time. */
static inline struct tensor_box bwd_box_fixed(struct kern_mat m, int64_t seq)
{
    return tensor_box_heads(m, seq, BWD_ROWS);
}
template <class S>
static inline struct tensor_box bwd_box_block(struct kern_mat m, int64_t seq)
{
    return tensor_box_heads(m, seq, S::block);
}
static inline struct tensor_box bwd_box_out(struct kern_mat m, int64_t seq)
{
    return tensor_box_heads(m, seq, 64);
}

template <class S> struct bwd_at {
    uint32_t base;

    DEVICE_MEMBER uint32_t fixed(int32_t which) const
    {
        return base + which * S::fixed_bytes;
    }
    DEVICE_MEMBER uint32_t block(int32_t slot, int32_t which) const
    {
        return base + S::stages + slot * S::stage_bytes + which * S::block_bytes;
    }
    /* which: 0 log-sum, 1 delta, 2 first key seen; fp32, one of each query */
    DEVICE_MEMBER uint32_t stat(int32_t slot, int32_t which) const
    {
        return base + S::stats + slot * S::numbers + which * S::block * 4;
    }
    DEVICE_MEMBER uint32_t fixed_full() const { return base + S::bars; }
    DEVICE_MEMBER uint32_t fixed_empty() const { return base + S::bars + 8; }
    DEVICE_MEMBER uint32_t full(int32_t slot) const
    {
        return base + S::bars + 16 + slot * 8;
    }
    DEVICE_MEMBER uint32_t empty(int32_t slot) const
    {
        return full(slot) + BWD_STAGES * 8;
    }
};

/* writers: arrivals that fill a stage, beside the copies. */
template <class S> DEVICE void bwd_init(struct bwd_at<S> at, int32_t writers)
{
    if (thread_id() == 0) {
        mbar_init(at.fixed_full(), 1);
        mbar_init(at.fixed_empty(), 2);
        for (int i = 0; i < BWD_STAGES; i++) {
            mbar_init(at.full(i), writers);
            mbar_init(at.empty(i), 8);
        }
        mbar_init_fence();
    }
    cta_sync();
}

/* Two tiles from columns x and y of two maps, for one barrier. */
template <class S>
DEVICE void load_two(uint32_t to, int32_t rows, uint32_t bar, const CUtensorMap *a,
                     int32_t x, const CUtensorMap *b, int32_t y, int32_t row,
                     int32_t sequence)
{
    constexpr int d = S::dim;

    mbar_expect(bar, rows * d * 4);
    load_rows<d>(to, a, bar, rows, x, row, sequence);
    load_rows<d>(to + rows * d * 2, b, bar, rows, y, row, sequence);
}

/* A computing warpgroup. */
struct bwd_place {
    int32_t group, thread;
    struct stage_ring ring;
    int32_t before; /* the slot whose products are not yet waited for, or -1 */
};

template <class S>
DEVICE void release_before(const struct bwd_at<S> &at, struct bwd_place &me)
{
    if (me.before >= 0 && me.thread % 32 == 0) mbar_arrive(at.empty(me.before));
    me.before = -1;
}

/* dS of a block, packed, from its weights: P (dP - delta). */
template <int ACCS, class F>
DEVICE void score_gradient(uint32_t (&q)[ACCS / 2], const float (&p)[ACCS],
                           const float (&dp)[ACCS], F delta)
{
#pragma unroll
    for (int i = 0; i < ACCS; i += 2) {
        float2 d = delta(i);

        q[i / 2] = pack(p[i] * (dp[i] - d.x), p[i + 1] * (dp[i + 1] - d.y));
    }
}

/* Write 64 rows out over a fixed tile that this warpgroup alone has read, its own rows. */
template <class S>
DEVICE void bwd_put(const struct bwd_at<S> &at, const struct bwd_place &me, int32_t which,
                    const float (&d)[S::dim / 2])
{
    stage_rows(at.fixed(which) + me.group * 64 * PANEL_ROW, d, BWD_ROWS * PANEL_ROW,
               me.thread);
}

template <class S>
DEVICE void bwd_send(const struct bwd_at<S> &at, const struct bwd_place &me,
                     int32_t which, const CUtensorMap *out, int32_t x,
                     struct attention_job j)
{
    store_rows<S::dim>(out, at.fixed(which) + me.group * 64 * PANEL_ROW,
                       BWD_ROWS * PANEL_ROW, x, j.i0 + me.group * 64, j.sequence);
}

/* ---- pass over keys ------------------------------------------------------------------- */

/* Blocks of queries that see keys from j.i0 on: [lo, hi).  Those of [full, clear) see all
 * of them, the others need the mask. */
struct query_span {
    int32_t lo, full, clear, hi;
};

/* The first block whose `pick`-th row sees no key before `key`; starts never decrease. */
template <class S>
DEVICE int32_t first_block(const struct attention_args &g, int32_t sequence, int32_t pick,
                           int32_t key, int32_t lo, int32_t hi)
{
    while (lo < hi) {
        int32_t mid = (lo + hi) / 2;

        if (start_of(g, sequence, mid * S::block + pick) >= key)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

template <class S>
DEVICE struct query_span queries_of(const struct attention_args &g,
                                    struct attention_job j)
{
    struct query_span q;

    q.lo = j.i0 / S::block;
    q.full = ceil_div(j.i0 + BWD_ROWS - 1, S::block);
    q.hi = ceil_div(g.seq, S::block);
    q.clear = q.hi;
    if (g.start) {
        q.hi = first_block<S>(g, j.sequence, 0, j.i0 + BWD_ROWS, q.lo, q.hi);
        q.clear = first_block<S>(g, j.sequence, S::block - 1, j.i0 + 1, q.lo, q.hi);
    }
    return q;
}

/* Thread 0: keys and values once a tile, then queries and their gradients. */
template <class S>
DEVICE void keys_feed(const CUtensorMap *kv, const CUtensorMap *q,
                      const CUtensorMap *dout, const struct attention_args &g,
                      struct bwd_at<S> at)
{
    constexpr int d = S::dim;
    int32_t group = g.heads / g.kv_heads;
    struct stage_ring r = { 0, 0 };
    struct attention_job j;
    uint32_t parity = 1;

    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, BWD_ROWS, g.kv_heads, false, &j)) continue;
        struct query_span span = queries_of<S>(g, j);

        mbar_wait(at.fixed_empty(), parity);
        parity ^= 1;
        load_two<S>(at.fixed(0), BWD_ROWS, at.fixed_full(), kv, (g.heads + j.head) * d,
                    kv, (g.heads + g.kv_heads + j.head) * d, j.i0, j.sequence);
        for (int32_t h = j.head * group; h < (j.head + 1) * group; h++)
            for (int32_t b = span.lo; b < span.hi; b++, advance<BWD_STAGES>(r)) {
                mbar_wait(at.empty(r.slot), r.phase ^ 1);
                load_two<S>(at.block(r.slot, 0), S::block, at.full(r.slot), q, h * d,
                            dout, h * d, b * S::block, j.sequence);
            }
    }
}

/* A warp: what the computing threads need of each query.  Queries beyond the sequence have
 * an infinite log-sum: weight 0. */
template <class S>
DEVICE void keys_stats(const struct attention_args &g, struct bwd_at<S> at, int32_t lane)
{
    int32_t group = g.heads / g.kv_heads;
    struct stage_ring r = { 0, 0 };
    struct attention_job j;

    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, BWD_ROWS, g.kv_heads, false, &j)) continue;
        struct query_span span = queries_of<S>(g, j);

        for (int32_t h = j.head * group; h < (j.head + 1) * group; h++)
            for (int32_t b = span.lo; b < span.hi; b++, advance<BWD_STAGES>(r)) {
                mbar_wait(at.empty(r.slot), r.phase ^ 1);
                for (int32_t c = lane; c < S::block; c += 32) {
                    int32_t i = b * S::block + c;
                    int64_t n = (int64_t)j.sequence * g.seq + i;
                    bool in = i < g.seq;
                    float l = in ? g.lse[h * g.lse_ld + n] * LOG2_E : INFINITY;

                    if (S::alibi) l += g.slopes[h] * LOG2_E * (float)(i - j.i0);
                    store_shared(at.stat(r.slot, 0) + c * 4, l);
                    store_shared(at.stat(r.slot, 1) + c * 4,
                                 in ? g.delta[h * g.delta_ld + n] : 0);
                    store_shared(at.stat(r.slot, 2) + c * 4,
                                 (float)start_of(g, j.sequence, i));
                }
                mbar_arrive(at.full(r.slot));
            }
    }
}

/* Scores (keys, queries) of a block to weights.  key: position of the thread's first row,
 * the other is 8 further; from the tile's first key: key - j0. */
template <class S, bool MASK>
DEVICE void keys_weights(float (&s)[S::block / 2], const struct bwd_at<S> &at,
                         int32_t slot, float factor, float slope, int32_t key, int32_t j0,
                         int32_t i0, int32_t lane)
{
#pragma unroll
    for (int i = 0; i < S::block / 2; i += 4) {
        const uint32_t col = i / 4 * 8 + lane % 4 * 2;
        float2 l = load_shared2(at.stat(slot, 0) + col * 4), first = { 0, 0 };

        if (MASK) first = load_shared2(at.stat(slot, 2) + col * 4);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int32_t j = key + (e >> 1) * 8, q = i0 + (int32_t)col + (e & 1);
            float x = s[i + e] * factor - (e & 1 ? l.y : l.x);

            if (S::alibi) x += slope * (float)(j - j0);
            if (MASK && (q < j || (float)j < (e & 1 ? first.y : first.x))) x = -INFINITY;
            s[i + e] = exp2_fast(x);
        }
    }
}

/* Operands of products that are under way when a block ends. */
template <class S> struct in_flight {
    uint32_t weights[S::block / 4], gradient[S::block / 4];
};

/* What stays the same over the blocks of a head. */
struct keys_head {
    float factor, slope;
    int32_t key, j0; /* the thread's first row; the tile's */
};

template <class S, bool MASK>
DEVICE void keys_block(float (&dk)[S::dim / 2], float (&dv)[S::dim / 2],
                       struct in_flight<S> &f, const struct bwd_at<S> &at,
                       struct bwd_place &me, struct keys_head h, int32_t b, bool more)
{
    constexpr int accs = S::block / 2;
    const int32_t slot = me.ring.slot;
    const uint32_t mine = me.group * 64 * PANEL_ROW;
    const uint32_t q = at.block(slot, 0), dout = at.block(slot, 1);
    float s[accs], dp[accs];

    mbar_wait(at.full(slot), me.ring.phase);
    pin(s);
    wgmma_fence();
    tile_product<S::dim>(s, at.fixed(0) + mine, BWD_ROWS, q, S::block);
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    pin(dk);
    pin(dv);
    release_before(at, me);
    pin(dp);
    wgmma_fence();
    tile_product<S::dim>(dp, at.fixed(1) + mine, BWD_ROWS, dout, S::block);
    wgmma_commit();
    keys_weights<S, MASK>(s, at, slot, h.factor, h.slope, h.key, h.j0, b * S::block,
                          me.thread % 32);
    mbar_wait(at.full(slot), me.ring.phase); /* holds the next wait down here */
    wgmma_wait<0>();
    pin(dp);
    pack_rows(f.weights, s);
    score_gradient(f.gradient, s, dp, [&](int i) {
        return load_shared2(at.stat(slot, 1) + (i / 4 * 8 + me.thread % 4 * 2) * 4);
    });
    wgmma_fence();
    weigh(dv, f.weights, dout, more);
    weigh(dk, f.gradient, q, more);
    wgmma_commit();
    me.before = slot;
    advance<BWD_STAGES>(me.ring);
}

template <class S>
DEVICE void keys_put(float (&dk)[S::dim / 2], float (&dv)[S::dim / 2],
                     const struct bwd_at<S> &at, const struct bwd_place &me,
                     const CUtensorMap *out, const struct attention_args &g,
                     struct attention_job j)
{
#pragma unroll
    for (int i = 0; i < S::dim / 2; i++)
        dk[i] *= g.scale;
    bwd_put(at, me, 0, dk);
    bwd_put(at, me, 1, dv);
    fence_async();
    bar_sync(1 + me.group, 128);
    if (me.thread == 0) {
        bwd_send(at, me, 0, out, (g.heads + j.head) * S::dim, j);
        bwd_send(at, me, 1, out, (g.heads + g.kv_heads + j.head) * S::dim, j);
        tma_commit();
        tma_wait_read<0>();
        mbar_arrive(at.fixed_empty());
    }
}

template <class S>
DEVICE void keys_compute(const CUtensorMap *out, const struct attention_args &g,
                         struct bwd_at<S> at)
{
    struct bwd_place me = {
        uniform(thread_id() / 128) - 1, thread_id() % 128, { 0, 0 }, -1
    };
    int32_t group = g.heads / g.kv_heads;
    struct attention_job j;
    uint32_t parity = 0;

    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, BWD_ROWS, g.kv_heads, false, &j)) continue;
        struct query_span span = queries_of<S>(g, j);
        struct keys_head h = { g.scale * LOG2_E, 0, 0, j.i0 };
        float dk[S::dim / 2], dv[S::dim / 2];
        struct in_flight<S> f;
        bool more = false;

        h.key = j.i0 + me.group * 64 + (int32_t)acc_row(me.thread, 0);
        mbar_wait(at.fixed_full(), parity);
        parity ^= 1;
        for (int32_t head = j.head * group; head < (j.head + 1) * group; head++) {
            int32_t b = span.lo;

            if (S::alibi) h.slope = g.slopes[head] * LOG2_E;
            for (; b < least(span.full, span.hi); b++, more = true)
                keys_block<S, true>(dk, dv, f, at, me, h, b, more);
            for (; b < span.clear; b++, more = true)
                keys_block<S, false>(dk, dv, f, at, me, h, b, more);
            for (; b < span.hi; b++, more = true)
                keys_block<S, true>(dk, dv, f, at, me, h, b, more);
        }
        wgmma_wait<0>();
        pin(dk);
        pin(dv);
        release_before(at, me);
        keys_put(dk, dv, at, me, out, g, j);
    }
}

/* dk and dv; kv, q: maps of qkv; out: map of dqkv. */
template <class S>
KERNEL(BWD_THREADS)
attention_keys_kernel(TENSOR_MAP kv, TENSOR_MAP q, TENSOR_MAP dout, TENSOR_MAP out,
                      const struct attention_args g)
{
    struct bwd_at<S> at = {
        shared_start()
    };

    bwd_init(at, 1 + 32);
    if (uniform(thread_id() / 128) == 0) {
        registers_less<BWD_FEW>();
        if (thread_id() == 0) keys_feed<S>(&kv, &q, &dout, g, at);
        if (thread_id() / 32 == 1) keys_stats<S>(g, at, thread_id() % 32);
    } else {
        registers_more<BWD_MANY>();
        keys_compute<S>(&out, g, at);
    }
}

/* ---- pass over queries ---------------------------------------------------------------- */

template <class S>
DEVICE void queries_feed(const CUtensorMap *q, const CUtensorMap *dout,
                         const CUtensorMap *kv, const struct attention_args &g,
                         struct bwd_at<S> at)
{
    constexpr int d = S::dim;
    struct stage_ring r = { 0, 0 };
    struct attention_job j;
    uint32_t parity = 1;

    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, BWD_ROWS, g.heads, true, &j)) continue;
        struct key_span span = keys_of(g, j, BWD_ROWS, S::block);
        int32_t k = g.heads + j.head / (g.heads / g.kv_heads);

        mbar_wait(at.fixed_empty(), parity);
        parity ^= 1;
        load_two<S>(at.fixed(0), BWD_ROWS, at.fixed_full(), q, j.head * d, dout,
                    j.head * d, j.i0, j.sequence);
        for (int32_t b = span.hi - 1; b >= span.lo; b--, advance<BWD_STAGES>(r)) {
            mbar_wait(at.empty(r.slot), r.phase ^ 1);
            load_two<S>(at.block(r.slot, 0), S::block, at.full(r.slot), kv, k * d, kv,
                        (k + g.kv_heads) * d, b * S::block, j.sequence);
        }
    }
}

/* The two rows of a thread. */
struct query_rows {
    int32_t i[2], first[2];
    float log_sum[2], delta[2]; /* log_sum in powers of two; of rows beyond: infinite */
    float factor, slope;
};

template <class S>
DEVICE struct query_rows query_rows_of(const struct attention_args &g,
                                       struct attention_job j, const struct bwd_place &me)
{
    struct query_rows r;

    r.factor = g.scale * LOG2_E;
    r.slope = S::alibi ? g.slopes[j.head] * LOG2_E : 0;
    for (int h = 0; h < 2; h++) {
        int32_t i = j.i0 + me.group * 64 + (int32_t)acc_row(me.thread, 2 * h);
        int64_t n = (int64_t)j.sequence * g.seq + i;
        bool in = i < g.seq;

        r.i[h] = i;
        r.first[h] = start_of(g, j.sequence, i);
        r.log_sum[h] = in ? g.lse[j.head * g.lse_ld + n] * LOG2_E : INFINITY;
        r.delta[h] = in ? g.delta[j.head * g.delta_ld + n] : 0;
    }
    return r;
}

template <class S, bool MASK>
DEVICE void queries_weights(float (&s)[S::block / 2], const struct query_rows &r,
                            int32_t j0, int32_t lane)
{
    const int32_t j = j0 + lane % 4 * 2; /* of accumulator 0 */

#pragma unroll
    for (int i = 0; i < S::block / 2; i++) {
        const int32_t col = i / 4 * 8 + (i & 1), h = i >> 1 & 1;
        float x = s[i] * r.factor - r.log_sum[h];

        if (S::alibi) x += r.slope * (float)(j + col - r.i[h]);
        if (MASK && (col > r.i[h] - j || col < r.first[h] - j)) x = -INFINITY;
        s[i] = exp2_fast(x);
    }
}

template <class S, bool MASK>
DEVICE void queries_block(float (&dq)[S::dim / 2], uint32_t (&ds)[S::block / 4],
                          const struct bwd_at<S> &at, struct bwd_place &me,
                          const struct query_rows &r, int32_t b, bool more)
{
    constexpr int accs = S::block / 2;
    const int32_t slot = me.ring.slot;
    const uint32_t mine = me.group * 64 * PANEL_ROW;
    const uint32_t k = at.block(slot, 0), v = at.block(slot, 1);
    float s[accs], dp[accs];

    mbar_wait(at.full(slot), me.ring.phase);
    pin(s);
    pin(dp);
    wgmma_fence();
    tile_product<S::dim>(s, at.fixed(0) + mine, BWD_ROWS, k, S::block);
    wgmma_commit();
    tile_product<S::dim>(dp, at.fixed(1) + mine, BWD_ROWS, v, S::block);
    wgmma_commit();
    wgmma_wait<1>();
    pin(s);
    release_before(at, me);
    queries_weights<S, MASK>(s, r, b * S::block, me.thread % 32);
    mbar_wait(at.full(slot), me.ring.phase); /* holds the next wait down here */
    wgmma_wait<0>();
    pin(dp);
    score_gradient(ds, s, dp, [&](int i) {
        return make_float2(r.delta[i >> 1 & 1], r.delta[i >> 1 & 1]);
    });
    pin(dq);
    wgmma_fence();
    weigh(dq, ds, k, more);
    wgmma_commit();
    me.before = slot;
    advance<BWD_STAGES>(me.ring);
}

template <class S>
DEVICE void queries_put(float (&dq)[S::dim / 2], const struct bwd_at<S> &at,
                        const struct bwd_place &me, const CUtensorMap *out,
                        const struct attention_args &g, struct attention_job j)
{
#pragma unroll
    for (int i = 0; i < S::dim / 2; i++)
        dq[i] *= g.scale;
    bwd_put(at, me, 0, dq);
    fence_async();
    bar_sync(1 + me.group, 128);
    if (me.thread == 0) {
        bwd_send(at, me, 0, out, j.head * S::dim, j);
        tma_commit();
        tma_wait_read<0>();
        mbar_arrive(at.fixed_empty());
    }
}

template <class S>
DEVICE void queries_compute(const CUtensorMap *out, const struct attention_args &g,
                            struct bwd_at<S> at)
{
    struct bwd_place me = {
        uniform(thread_id() / 128) - 1, thread_id() % 128, { 0, 0 }, -1
    };
    struct attention_job j;
    uint32_t parity = 0;

    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, BWD_ROWS, g.heads, true, &j)) continue;
        struct key_span span = keys_of(g, j, BWD_ROWS, S::block);
        struct query_rows r = query_rows_of<S>(g, j, me);
        float dq[S::dim / 2];
        uint32_t ds[S::block / 4]; /* under way when a block ends */
        int32_t b = span.hi - 1;

        mbar_wait(at.fixed_full(), parity);
        parity ^= 1;
        for (; b >= most(span.full, span.lo); b--)
            queries_block<S, true>(dq, ds, at, me, r, b, b < span.hi - 1);
        for (; b >= most(span.clear, span.lo); b--)
            queries_block<S, false>(dq, ds, at, me, r, b, b < span.hi - 1);
        for (; b >= span.lo; b--)
            queries_block<S, true>(dq, ds, at, me, r, b, b < span.hi - 1);
        wgmma_wait<0>();
        pin(dq);
        release_before(at, me);
        queries_put(dq, at, me, out, g, j);
    }
}

/* dq; q, kv: maps of qkv; out: map of dqkv. */
template <class S>
KERNEL(BWD_THREADS)
attention_queries_kernel(TENSOR_MAP q, TENSOR_MAP dout, TENSOR_MAP kv, TENSOR_MAP out,
                         const struct attention_args g)
{
    struct bwd_at<S> at = {
        shared_start()
    };

    bwd_init(at, 1);
    if (uniform(thread_id() / 128) == 0) {
        registers_less<BWD_FEW>();
        if (thread_id() == 0) queries_feed<S>(&q, &dout, &kv, g, at);
    } else {
        registers_more<BWD_MANY>();
        queries_compute<S>(&out, g, at);
    }
}

#endif
