/*
 * sm90_attention_bwd.cuh - causal attention on Hopper, backward, in one pass (the structure
 * is that of FlashAttention-3, Shah et al. 2024; the order of the sums is ours).
 *
 * A CTA owns 128 keys of a K/V head and walks over the blocks of queries that see them and
 * over the query heads of its group: dK and dV stay in registers.  Scores are computed
 * transposed (keys are rows), so that the weights and dS are operands in registers as they
 * come out of the tensor cores; dS also goes through shared memory, for dQ = dS K needs it
 * the other way round.
 *
 * dQ of a block of queries is a sum over all tiles of keys that it sees, in fp32, in memory,
 * in the order of the keys: the same bits every time.  A counter for each block of queries
 * says how many have added; the next one waits for its turn.  So that turns come without
 * waiting, tiles begin in the order of their keys, longest first, and each walks from the
 * last queries to the first, all heads of a block before the next block: a tile follows one
 * step behind the tile before it.  A CTA claims its next tile from a counter, so whoever
 * is waited for is at work: nobody waits for a CTA that has not begun.
 *
 * Warpgroup 0: a thread feeds (warp 0), a warp brings log-sums and delta (1), a thread for
 * each buffer of dQ adds it to memory (2, 3).  Warpgroups 1 and 2 compute 64 keys each, and
 * half of dQ each.
 *
 * Overlap: dP and dV of a block are under way while exponentials are computed and dS is
 * formed, dK while the next block's scores are.  As in the forward, a loop (the stage's
 * barrier, long passed) keeps ptxas from moving a wait above the exponentials.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_BWD_CUH
#define KERN_CUDA_SM90_ATTENTION_BWD_CUH

#include "kernels/cuda/sm90_attention.cuh"

enum { BWD_THREADS = 384, BWD_KEYS = 128, BWD_STAGES = 2, BWD_FEW = 24, BWD_MANY = 240 };

struct backward_args {
    struct attention_args of;
    int32_t *claimed; /* tiles that have begun; 0 before a launch */
    int32_t
        *added; /* (sequences, H, blocks of queries): tiles of keys; 0 before a launch */
    float *dq;  /* sums, as dq_tile_at and dq_part say */
    bool ordered; /* false: add in any order, to zeros; only to see what order costs */
};

/* Fixed: keys and values of a tile.  Moving: stages of queries and their gradients, `block`
 * rows each, with three numbers of each query; dS; dQ on its way out. */
template <int D, bool ALIBI> struct bwd_shape {
    static constexpr int dim = D, block = BWD_BLOCK_ROWS(D);
    static constexpr bool alibi = ALIBI;
    static constexpr int panels =
        D / PANEL_COLS; /* of a tile of keys; 2 / panels: of dS */
    static constexpr int fixed_bytes = BWD_KEYS * D * 2, block_bytes = block * D * 2;
    static constexpr int numbers = 3 * block * 4 + 16;
    static constexpr int stage_bytes = 2 * block_bytes;
    static constexpr int ds_bytes = BWD_KEYS * block * 2, dq_bytes = 2 * DQ_PART * 4;
    static constexpr int exits = D == 128 ? 2 : 1; /* buffers of dQ */
    static constexpr int stages = 2 * fixed_bytes;
    static constexpr int ds = stages + BWD_STAGES * stage_bytes;
    static constexpr int dq = ds + 2 * ds_bytes;
    static constexpr int stats = dq + exits * dq_bytes;
    static constexpr int bars = stats + BWD_STAGES * numbers;
    static constexpr int tile = bars + (4 + 2 * BWD_STAGES + 2 * exits) * 8;
    static constexpr int shared_bytes = PANEL_ALIGN + tile + 8;
};

/* What the copy engine moves at a time. */
static inline struct tensor_box bwd_box_fixed(struct kern_mat m, int64_t seq)
{
    return tensor_box_heads(m, seq, BWD_KEYS);
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
    DEVICE_MEMBER uint32_t ds(int32_t slot) const
    {
        return base + S::ds + slot * S::ds_bytes;
    }
    DEVICE_MEMBER uint32_t dq(int32_t slot) const
    {
        return base + S::dq + slot * S::dq_bytes;
    }
    /* which: 0 log-sum, 1 delta, 2 first key seen; fp32, one of each query; 3: struct
     * bwd_step */
    DEVICE_MEMBER uint32_t stat(int32_t slot, int32_t which) const
    {
        return base + S::stats + slot * S::numbers + which * S::block * 4;
    }
    DEVICE_MEMBER uint32_t bar(int32_t i) const { return base + S::bars + i * 8; }
    DEVICE_MEMBER uint32_t tile() const { return base + S::tile; }
    DEVICE_MEMBER uint32_t tile_full() const { return bar(0); }
    DEVICE_MEMBER uint32_t tile_empty() const { return bar(1); }
    DEVICE_MEMBER uint32_t fixed_full() const { return bar(2); }
    DEVICE_MEMBER uint32_t fixed_empty() const { return bar(3); }
    DEVICE_MEMBER uint32_t full(int32_t slot) const { return bar(4 + slot); }
    DEVICE_MEMBER uint32_t empty(int32_t slot) const
    {
        return bar(4 + BWD_STAGES + slot);
    }
    DEVICE_MEMBER uint32_t dq_full(int32_t slot) const
    {
        return bar(4 + 2 * BWD_STAGES + slot);
    }
    DEVICE_MEMBER uint32_t dq_empty(int32_t slot) const
    {
        return bar(4 + 2 * BWD_STAGES + S::exits + slot);
    }
};

template <class S> DEVICE void bwd_init(struct bwd_at<S> at)
{
    if (thread_id() == 0) {
        mbar_init(at.tile_full(), 1);
        mbar_init(at.tile_empty(), 8 + 1 + S::exits);
        mbar_init(at.fixed_full(), 1);
        mbar_init(at.fixed_empty(), 2);
        for (int i = 0; i < BWD_STAGES; i++) {
            mbar_init(at.full(i), 1 + 32);
            mbar_init(at.empty(i), 8);
        }
        for (int i = 0; i < S::exits; i++) {
            mbar_init(at.dq_full(i), 8);
            mbar_init(at.dq_empty(i), 1);
        }
        mbar_init_fence();
    }
    cta_sync();
}

/* ---- which tile, which blocks --------------------------------------------------------- */

/* Blocks of queries that see keys from i0 on: [lo, hi).  Those of [full, clear) see all
 * of them, the others need the mask. */
struct query_span {
    int32_t lo, full, clear, hi;
};

/* 128 keys from i0 on of a K/V head; query heads head .. head + group - 1. */
struct bwd_tile {
    struct attention_job job; /* head: of keys and values */
    struct query_span blocks;
    int32_t head, group;
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
    q.full = ceil_div(j.i0 + BWD_KEYS - 1, S::block);
    q.hi = ceil_div(g.seq, S::block);
    q.clear = q.hi;
    if (g.start) {
        q.hi = first_block<S>(g, j.sequence, 0, j.i0 + BWD_KEYS, q.lo, q.hi);
        q.clear = first_block<S>(g, j.sequence, S::block - 1, j.i0 + 1, q.lo, q.hi);
    }
    return q;
}

template <class S>
DEVICE struct bwd_tile bwd_tile_at(const struct attention_args &g, int32_t index)
{
    struct bwd_tile t;
    int32_t rank, lane;

    attention_tile(g.order, index, &rank, &lane);
    t.job.i0 = rank * BWD_KEYS;
    t.job.head = lane % g.kv_heads;
    t.job.sequence = lane / g.kv_heads;
    t.group = g.heads / g.kv_heads;
    t.head = t.job.head * t.group;
    t.blocks = queries_of<S>(g, t.job);
    return t;
}

/* A tile that this CTA has claimed; no steps: there was none left. */
struct bwd_claim {
    int32_t index, steps; /* blocks of queries, times heads */
};

/* Whoever does not feed: the CTA's tile number `tile`; a warp, or one thread. */
template <class S, bool WARP>
DEVICE struct bwd_claim bwd_next(struct bwd_at<S> at, uint32_t tile)
{
    struct bwd_claim c;

    mbar_wait(at.tile_full(), tile & 1);
    c.index = load_shared_int(at.tile());
    c.steps = load_shared_int(at.tile() + 4);
    if (WARP) warp_sync();
    if (!WARP || thread_id() % 32 == 0) mbar_arrive(at.tile_empty());
    return c;
}

/* ---- feeding -------------------------------------------------------------------------- */

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

/* Claim a tile and tell the others; false: there was none left. */
template <class S>
DEVICE bool bwd_claim_next(const struct backward_args &g, struct bwd_at<S> at,
                           uint32_t tile, struct bwd_tile *t)
{
    struct bwd_claim c = { claim(g.claimed), 0 };

    if (c.index < g.of.order.blocks * g.of.order.lanes) {
        *t = bwd_tile_at<S>(g.of, c.index);
        c.steps = (t->blocks.hi - t->blocks.lo) * t->group;
    }
    mbar_wait(at.tile_empty(), (tile & 1) ^ 1);
    store_shared_int(at.tile(), c.index);
    store_shared_int(at.tile() + 4, c.steps);
    mbar_arrive(at.tile_full());
    return c.steps > 0;
}

/* Thread 0: queries and their gradients, keys and values once a tile.  The first queries
 * of a tile go before its keys, whose place is taken until the last tile is written. */
template <class S>
DEVICE void bwd_feed(const CUtensorMap *kv, const CUtensorMap *q, const CUtensorMap *dout,
                     const struct backward_args &g, struct bwd_at<S> at)
{
    constexpr int d = S::dim;
    struct stage_ring r = { 0, 0 };
    struct bwd_tile t;

    for (uint32_t tile = 0; bwd_claim_next(g, at, tile, &t); tile++) {
        bool first = true;

        for (int32_t b = t.blocks.hi - 1; b >= t.blocks.lo; b--)
            for (int32_t h = t.head; h < t.head + t.group; h++, first = false) {
                mbar_wait(at.empty(r.slot), r.phase ^ 1);
                load_two<S>(at.block(r.slot, 0), S::block, at.full(r.slot), q, h * d,
                            dout, h * d, b * S::block, t.job.sequence);
                advance<BWD_STAGES>(r);
                if (!first) continue;
                mbar_wait(at.fixed_empty(), (tile & 1) ^ 1);
                load_two<S>(at.fixed(0), BWD_KEYS, at.fixed_full(), kv,
                            (g.of.heads + t.job.head) * d, kv,
                            (g.of.heads + g.of.kv_heads + t.job.head) * d, t.job.i0,
                            t.job.sequence);
            }
    }
}

/* A warp: what the computing threads need of a block of queries of a head.  Queries beyond
 * the sequence have an infinite log-sum: weight 0.  A block without a mask begins nowhere. */
template <class S>
DEVICE void bwd_stat(const struct attention_args &g, struct bwd_at<S> at, int32_t slot,
                     const struct bwd_tile &t, int32_t b, int32_t h, int32_t lane)
{
    const bool mask = b < t.blocks.full || b >= t.blocks.clear;
    const float slope = S::alibi ? g.slopes[h] * LOG2_E : 0;

    if (lane == 0)
        store_shared2(at.stat(slot, 3),
                      mask ? (float)(b * S::block - t.job.i0) : INFINITY, slope);
    for (int32_t c = lane; c < S::block; c += 32) {
        int32_t i = b * S::block + c;
        int64_t n = (int64_t)t.job.sequence * g.seq + i;
        bool in = i < g.seq;
        float l = in ? g.lse[h * g.lse_ld + n] * LOG2_E : INFINITY;

        if (S::alibi) l += slope * (float)(i - t.job.i0);
        store_shared(at.stat(slot, 0) + c * 4, l);
        store_shared(at.stat(slot, 1) + c * 4, in ? g.delta[h * g.delta_ld + n] : 0);
        store_shared(at.stat(slot, 2) + c * 4,
                     (float)(start_of(g, t.job.sequence, i) - t.job.i0));
    }
}

template <class S>
DEVICE void bwd_stats(const struct attention_args &g, struct bwd_at<S> at, int32_t lane)
{
    struct stage_ring r = { 0, 0 };
    struct bwd_claim c;

    for (uint32_t tile = 0; c = bwd_next<S, true>(at, tile), c.steps > 0; tile++) {
        const struct bwd_tile t = bwd_tile_at<S>(g, c.index);

        for (int32_t b = t.blocks.hi - 1; b >= t.blocks.lo; b--)
            for (int32_t h = t.head; h < t.head + t.group; h++) {
                mbar_wait(at.empty(r.slot), r.phase ^ 1);
                bwd_stat(g, at, r.slot, t, b, h, lane);
                mbar_arrive(at.full(r.slot));
                advance<BWD_STAGES>(r);
            }
    }
}

/* ---- dQ to memory --------------------------------------------------------------------- */

/* Add what lies in a buffer to tile n of dQ when `turn` tiles of keys have added theirs; the
 * first of them overwrites what was there. */
template <class S>
DEVICE void bwd_add(const struct backward_args &g, struct bwd_at<S> at, int32_t slot,
                    int64_t n, int32_t turn)
{
    float *to = g.dq + n * 2 * DQ_PART;

    if (g.ordered && turn > 0) await_count(&g.added[n], turn);
    if (g.ordered && turn == 0)
        bulk_store(to, at.dq(slot), S::dq_bytes);
    else
        bulk_add(to, at.dq(slot), S::dq_bytes);
    tma_commit();
    tma_wait_read<0>();
    mbar_arrive(at.dq_empty(slot));
    if (!g.ordered) return;
    tma_wait_all();
    count_up(&g.added[n]);
}

/* The thread of buffer `mine`. */
template <class S>
DEVICE void bwd_exit(const struct backward_args &g, struct bwd_at<S> at, uint32_t mine)
{
    const int32_t blocks = ceil_div(g.of.seq, S::block);
    uint32_t step = 0; /* of all tiles */
    struct bwd_claim c;

    for (uint32_t tile = 0; c = bwd_next<S, false>(at, tile), c.steps > 0; tile++) {
        const struct bwd_tile t = bwd_tile_at<S>(g.of, c.index);

        for (int32_t b = t.blocks.hi - 1; b >= t.blocks.lo; b--) {
            int32_t first = start_of(g.of, t.job.sequence, b * S::block) / BWD_KEYS;

            for (int32_t h = t.head; h < t.head + t.group; h++, step++) {
                if (step % S::exits != mine) continue;
                mbar_wait(at.dq_full(mine), step / S::exits & 1);
                bwd_add(g, at, mine, dq_tile_at(t.job.sequence, h, b, g.of.heads, blocks),
                        t.job.i0 / BWD_KEYS - first);
            }
        }
    }
    tma_wait_all();
}

/* ---- computing ------------------------------------------------------------------------ */

/* A computing warpgroup. */
struct bwd_place {
    int32_t group, thread;
    uint32_t step; /* of all tiles; says which stage and which buffers */
};

/* Scores (keys, queries) of a block: none where a query does not see a key.  row: of the
 * thread's first key, the other is 8 further; i0: the first query; from the tile's first
 * key. */
template <class S>
DEVICE void bwd_mask(float (&s)[S::block / 2], const struct bwd_at<S> &at, int32_t slot,
                     float row, float i0, int32_t lane)
{
#pragma unroll
    for (int i = 0; i < S::block / 2; i += 4) {
        const int32_t col = i / 4 * 8 + lane % 4 * 2;
        float2 first = load_shared2(at.stat(slot, 2) + col * 4);

#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float j = row + (float)((e >> 1) * 8), q = i0 + (float)(col + (e & 1));

            if (q < j || j < (e & 1 ? first.y : first.x)) s[i + e] = -INFINITY;
        }
    }
}

/* Scores to weights. */
template <class S>
DEVICE void bwd_weights(float (&s)[S::block / 2], const struct bwd_at<S> &at,
                        int32_t slot, float factor, float lift, float slope, int32_t lane)
{
#pragma unroll
    for (int i = 0; i < S::block / 2; i += 4) {
        float2 l = load_shared2(at.stat(slot, 0) + (i / 4 * 8 + lane % 4 * 2) * 4);

#pragma unroll
        for (int e = 0; e < 4; e++) {
            float x = s[i + e] * factor - (e & 1 ? l.y : l.x);

            if (S::alibi) x += e >> 1 ? lift + 8 * slope : lift;
            s[i + e] = exp2_fast(x);
        }
    }
}

/* dS of a block, packed: P (dP - delta). */
template <class S>
DEVICE void bwd_gradient(uint32_t (&q)[S::block / 4], const float (&p)[S::block / 2],
                         const float (&dp)[S::block / 2], const struct bwd_at<S> &at,
                         int32_t slot, int32_t lane)
{
#pragma unroll
    for (int i = 0; i < S::block / 2; i += 4) {
        float2 d = load_shared2(at.stat(slot, 1) + (i / 4 * 8 + lane % 4 * 2) * 4);

        q[i / 2] = pack(p[i] * (dp[i] - d.x), p[i + 1] * (dp[i + 1] - d.y));
        q[i / 2 + 1] = pack(p[i + 2] * (dp[i + 2] - d.x), p[i + 3] * (dp[i + 3] - d.y));
    }
}

/* dS of 64 keys into panels of 64 queries. */
template <class S>
DEVICE void bwd_share(uint32_t to, const uint32_t (&ds)[S::block / 4],
                      const struct bwd_place &me)
{
#pragma unroll
    for (int i = 0; i < S::block / 16; i++)
        stmatrix(to + i / 4 * BWD_KEYS * PANEL_ROW + me.group * 64 * PANEL_ROW +
                     stage_at(me.thread / 32 * 16, i % 4 * 16, me.thread % 32),
                 ds[4 * i], ds[4 * i + 1], ds[4 * i + 2], ds[4 * i + 3]);
}

/* Half of dQ (block, D) = dS K: 64 columns of it (D 128), or 64 rows (D 64). */
template <class S>
DEVICE void bwd_queries(float (&dq)[32], uint32_t ds, uint32_t k, int32_t group)
{
    constexpr bool columns = S::panels == 2;
    constexpr uint32_t panel = BWD_KEYS * PANEL_ROW;
    uint64_t a = desc_mn(ds + (columns ? 0 : group * panel), BWD_KEYS);
    uint64_t b = desc_mn(k + (columns ? group * panel : 0), BWD_KEYS);

#pragma unroll
    for (uint32_t s = 0; s < BWD_KEYS / MMA_K; s++)
        wgmma<1, 1>(dq, desc_add(a, step_mn(s)), desc_add(b, step_mn(s)), s > 0);
}

/* dQ to the thread that adds it to memory. */
template <class S>
DEVICE void bwd_leave(const float (&dq)[32], const struct bwd_at<S> &at,
                      const struct bwd_place &me)
{
    const int32_t slot = me.step % S::exits;
    const uint32_t to = at.dq(slot) + me.group * DQ_PART * 4;

    mbar_wait(at.dq_empty(slot), (me.step / S::exits & 1) ^ 1);
#pragma unroll
    for (int i = 0; i < 32; i += 4)
        store_shared4(to + dq_part(me.thread, i) * 4, dq[i], dq[i + 1], dq[i + 2],
                      dq[i + 3]);
    fence_async();
    warp_sync();
    if (me.thread % 32 == 0) mbar_arrive(at.dq_full(slot));
}

/* A block of queries of a head.  first: of a tile. */
template <class S>
DEVICE void bwd_block(float (&dk)[S::dim / 2], float (&dv)[S::dim / 2],
                      uint32_t (&ds)[S::block / 4], const struct bwd_at<S> &at,
                      const struct bwd_place &me, float factor, bool first)
{
    const int32_t slot = me.step % BWD_STAGES, lane = me.thread % 32;
    const uint32_t phase = me.step / BWD_STAGES & 1, mine = me.group * 64 * PANEL_ROW;
    const uint32_t q = at.block(slot, 0), dout = at.block(slot, 1);
    float s[S::block / 2], dp[S::block / 2], dq[32];
    uint32_t weights[S::block / 4];
    float row = (float)(me.group * 64 + (int32_t)acc_row(me.thread, 0));
    float2 how;

    mbar_wait(at.full(slot), phase);
    pin(s);
    wgmma_fence();
    tile_product<S::dim>(s, at.fixed(0) + mine, BWD_KEYS, q, S::block);
    wgmma_commit();
    wgmma_wait<1>(); /* dK of the last block: its operands make room for dP */
    pin(dk);
    if (!first && lane == 0) mbar_arrive(at.empty(slot ^ 1));
    pin(dp);
    wgmma_fence();
    tile_product<S::dim>(dp, at.fixed(1) + mine, BWD_KEYS, dout, S::block);
    wgmma_commit();
    how = load_shared2(at.stat(slot, 3));
    wgmma_wait<1>();
    pin(s);
    if (how.x < INFINITY) bwd_mask(s, at, slot, row, how.x, lane);
    bwd_weights(s, at, slot, factor, how.y * row, how.y, lane);
    pack_rows(weights, s);
    pin(dv);
    wgmma_fence();
    weigh(dv, weights, dout, true);
    wgmma_commit();
    mbar_wait(at.full(slot), phase); /* holds the next wait down here */
    wgmma_wait<1>();
    pin(dp);
    bwd_gradient<S>(ds, s, dp, at, slot, lane);
    bwd_share<S>(at.ds(slot), ds, me);
    fence_async();
    bar_sync(1, 256);
    pin(dq);
    wgmma_fence();
    bwd_queries<S>(dq, at.ds(slot), at.fixed(0), me.group);
    wgmma_commit();
    weigh(dk, ds, q, true);
    wgmma_commit();
    wgmma_wait<1>(); /* dV and dQ */
    pin(dv);
    pin(dq);
    bwd_leave(dq, at, me);
}

/* dK and dV, over the keys and values that nobody reads any more. */
template <class S>
DEVICE void bwd_put(float (&dk)[S::dim / 2], float (&dv)[S::dim / 2],
                    const struct bwd_at<S> &at, const struct bwd_place &me,
                    const CUtensorMap *out, const struct attention_args &g,
                    struct attention_job j)
{
    constexpr uint32_t panel = BWD_KEYS * PANEL_ROW;
    const uint32_t mine = me.group * 64 * PANEL_ROW;
    const int32_t row = j.i0 + me.group * 64;

#pragma unroll
    for (int i = 0; i < S::dim / 2; i++)
        dk[i] *= g.scale;
    bar_sync(1, 256);
    stage_rows(at.fixed(0) + mine, dk, panel, me.thread);
    stage_rows(at.fixed(1) + mine, dv, panel, me.thread);
    fence_async();
    bar_sync(2 + me.group, 128);
    if (me.thread == 0) {
        store_rows<S::dim>(out, at.fixed(0) + mine, panel, (g.heads + j.head) * S::dim,
                           row, j.sequence);
        store_rows<S::dim>(out, at.fixed(1) + mine, panel,
                           (g.heads + g.kv_heads + j.head) * S::dim, row, j.sequence);
        tma_commit();
        tma_wait_read<0>();
        mbar_arrive(at.fixed_empty());
    }
}

template <int N> DEVICE void clear(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        d[i] = 0;
}

template <class S>
DEVICE void bwd_compute(const CUtensorMap *out, const struct attention_args &g,
                        struct bwd_at<S> at)
{
    struct bwd_place me = { uniform(thread_id() / 128) - 1, thread_id() % 128, 0 };
    struct bwd_claim c;

    for (uint32_t tile = 0; c = bwd_next<S, true>(at, tile), c.steps > 0; tile++) {
        float dk[S::dim / 2], dv[S::dim / 2];
        uint32_t ds[S::block / 4]; /* under way when a block ends */

        clear(dk);
        clear(dv);
        mbar_wait(at.fixed_full(), tile & 1);
        for (int32_t i = 0; i < c.steps; i++, me.step++)
            bwd_block(dk, dv, ds, at, me, g.scale * LOG2_E, i == 0);
        wgmma_wait<0>();
        pin(dk);
        if (me.thread % 32 == 0) mbar_arrive(at.empty((me.step - 1) % BWD_STAGES));
        bwd_put(dk, dv, at, me, out, g, bwd_tile_at<S>(g, c.index).job);
    }
}

/* dk and dv into dqkv, sums of dq.  kv, q: maps of qkv; out: map of dqkv. */
template <class S>
KERNEL(BWD_THREADS)
attention_bwd_kernel(TENSOR_MAP kv, TENSOR_MAP q, TENSOR_MAP dout, TENSOR_MAP out,
                     const struct backward_args g)
{
    struct bwd_at<S> at = {
        shared_start()
    };
    int32_t warp = uniform(thread_id() / 32);

    bwd_init(at);
    if (warp < 4) {
        registers_less<BWD_FEW>();
        if (thread_id() == 0) bwd_feed<S>(&kv, &q, &dout, g, at);
        if (warp == 1) bwd_stats<S>(g.of, at, thread_id() % 32);
        if (warp >= 2 && warp < 2 + S::exits && thread_id() % 32 == 0)
            bwd_exit<S>(g, at, warp - 2);
    } else {
        registers_more<BWD_MANY>();
        bwd_compute<S>(&out, g.of, at);
    }
}

#endif
