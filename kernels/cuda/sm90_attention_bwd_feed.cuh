/*
 * sm90_attention_bwd_feed.cuh - the backward of attention on Hopper (sm90_attention_bwd.cuh): where
 * things lie in shared memory, which tiles of keys a CTA takes, and the warpgroup that
 * feeds those that compute and adds their dQ to memory.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_BWD_FEED_CUH
#define KERN_CUDA_SM90_ATTENTION_BWD_FEED_CUH

#include "kernels/cuda/sm90_attention.cuh"

enum { BWD_THREADS = 384, BWD_KEYS = 128, BWD_FEW = 24, BWD_MANY = 240 };
enum { BWD_STAGES = 2, BWD_EXITS = 2 /* threads that add dQ to memory, in turn */ };

struct backward_args {
    struct attention_args of;
    int32_t *claimed; /* tiles that have begun; 0 before a launch */
    /* (sequences, H, blocks of queries): tiles of keys that have added; 0 before a launch */
    int32_t *added;
    float *dq;    /* sums, as dq_tile_at and dq_part say */
    bool ordered; /* false: add in any order, to zeros; only to see what order costs */
};

/* Fixed: keys and values of a tile.  Moving: stages of queries and their gradients, `block`
 * rows each, with three numbers of each query; dS; dQ on its way out. */
template <int D, bool ALIBI> struct bwd_shape {
    static constexpr int dim = D, block = BWD_BLOCK_ROWS(D);
    static constexpr bool alibi = ALIBI;
    static constexpr int panels = D / PANEL_COLS; /* of keys; 2 / panels: of dS */
    static constexpr int fixed_bytes = BWD_KEYS * D * 2, block_bytes = block * D * 2;
    static constexpr int numbers = 3 * block * 4 + 16;
    static constexpr int stage_bytes = 2 * block_bytes;
    static constexpr int ds_bytes = BWD_KEYS * block * 2, dq_bytes = 2 * DQ_PART * 4;
    static constexpr int buffers = D == 128 ? 2 : 1; /* of dQ */
    static constexpr int stages = 2 * fixed_bytes;
    static constexpr int ds = stages + BWD_STAGES * stage_bytes;
    static constexpr int dq = ds + 2 * ds_bytes;
    static constexpr int stats = dq + buffers * dq_bytes;
    static constexpr int bars = stats + BWD_STAGES * numbers;
    static constexpr int tile = bars + (4 + 2 * BWD_STAGES + 2 * BWD_EXITS) * 8;
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
    /* of the exit that has the step */
    DEVICE_MEMBER uint32_t dq_full(int32_t which) const
    {
        return bar(4 + 2 * BWD_STAGES + which);
    }
    DEVICE_MEMBER uint32_t dq_empty(int32_t which) const
    {
        return bar(4 + 2 * BWD_STAGES + BWD_EXITS + which);
    }
};

template <class S> DEVICE void bwd_init(struct bwd_at<S> at)
{
    if (thread_id() == 0) {
        mbar_init(at.tile_full(), 1);
        mbar_init(at.tile_empty(), 8 + 1 + BWD_EXITS);
        mbar_init(at.fixed_full(), 1);
        mbar_init(at.fixed_empty(), 2);
        for (int i = 0; i < BWD_STAGES; i++) {
            mbar_init(at.full(i), 1 + 32);
            mbar_init(at.empty(i), 8);
        }
        for (int i = 0; i < BWD_EXITS; i++) {
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

/* What the computing threads need of a block of queries of a head; a lane has every 32nd
 * query. */
template <class S> struct bwd_numbers {
    float log_sum[S::block / 32], delta[S::block / 32], slope;
};

/* Queries beyond the sequence have an infinite log-sum: weight 0. */
template <class S>
DEVICE struct bwd_numbers<S> bwd_read(const struct attention_args &g, int32_t sequence,
                                      int32_t i0, int32_t h) {
    struct bwd_numbers<S> x;

#pragma unroll
    for (int k = 0; k < S::block / 32; k++) {
        int32_t i = i0 + k * 32;
        int64_t n = (int64_t)sequence * g.seq + i;

        x.log_sum[k] = i < g.seq ? g.lse[h * g.lse_ld + n] : INFINITY;
        x.delta[k] = i < g.seq ? g.delta[h * g.delta_ld + n] : 0;
    }
    x.slope = S::alibi ? g.slopes[h] * LOG2_E : 0;
    return x;
}

/* i0: the lane's first query.  A block without a mask begins nowhere. */
template <class S>
DEVICE void bwd_write(const struct bwd_numbers<S> &x, const struct attention_args &g,
                      struct bwd_at<S> at, int32_t slot, struct attention_job j,
                      int32_t i0, bool mask)
{
    const int32_t lane = thread_id() % 32;

    if (lane == 0)
        store_shared2(at.stat(slot, 3), mask ? (float)(i0 - j.i0) : INFINITY, x.slope);
#pragma unroll
    for (int k = 0; k < S::block / 32; k++) {
        const int32_t i = i0 + k * 32;
        const uint32_t to = (lane + k * 32) * 4;
        float l = x.log_sum[k] * LOG2_E;

        if (S::alibi) l += x.slope * (float)(i - j.i0);
        store_shared(at.stat(slot, 0) + to, l);
        store_shared(at.stat(slot, 1) + to, x.delta[k]);
        if (mask)
            store_shared(at.stat(slot, 2) + to,
                         (float)(start_of(g, j.sequence, i) - j.i0));
    }
}

/* A warp.  It reads ahead: the numbers of a block are on their way before its stage is
 * free. */
template <class S>
DEVICE void bwd_stats(const struct attention_args &g, struct bwd_at<S> at, int32_t lane)
{
    struct stage_ring r = { 0, 0 };
    struct bwd_claim c;

    for (uint32_t tile = 0; c = bwd_next<S, true>(at, tile), c.steps > 0; tile++) {
        const struct bwd_tile t = bwd_tile_at<S>(g, c.index);

        for (int32_t b = t.blocks.hi - 1; b >= t.blocks.lo; b--)
            for (int32_t h = t.head; h < t.head + t.group; h++) {
                const int32_t i0 = b * S::block + lane;
                const struct bwd_numbers<S> x = bwd_read<S>(g, t.job.sequence, i0, h);

                mbar_wait(at.empty(r.slot), r.phase ^ 1);
                bwd_write(x, g, at, r.slot, t.job, i0,
                          b < t.blocks.full || b >= t.blocks.clear);
                mbar_arrive(at.full(r.slot));
                advance<BWD_STAGES>(r);
            }
    }
}

/* ---- dQ to memory --------------------------------------------------------------------- */

/* Add a buffer to tile n of dQ, as number `turn` of those who add to it: the first overwrites
 * what was there.  The turn is awaited before the buffer is full, for it is one trip to
 * memory at least. */
template <class S>
DEVICE void bwd_add(const struct backward_args &g, struct bwd_at<S> at, uint32_t step,
                    int64_t n, int32_t turn)
{
    const uint32_t from = at.dq(step % S::buffers);
    float *to = g.dq + n * 2 * DQ_PART;

    if (g.ordered && turn > 0) await_count(&g.added[n], turn);
    mbar_wait(at.dq_full(step % BWD_EXITS), step / BWD_EXITS & 1);
    if (g.ordered && turn == 0)
        bulk_store(to, from, S::dq_bytes);
    else
        bulk_add(to, from, S::dq_bytes);
    tma_commit();
    tma_wait_read<0>();
    mbar_arrive(at.dq_empty(step % BWD_EXITS));
    if (!g.ordered) return;
    tma_wait_all();
    count_up(&g.added[n]);
}

/* One thread; of two steps it has one. */
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

            for (int32_t h = t.head; h < t.head + t.group; h++, step++)
                if (step % BWD_EXITS == mine)
                    bwd_add(g, at, step,
                            dq_tile_at(t.job.sequence, h, b, g.of.heads, blocks),
                            t.job.i0 / BWD_KEYS - first);
        }
    }
    tma_wait_all();
}

#endif
