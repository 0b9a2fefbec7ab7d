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
 * Warpgroup 0: a thread feeds (warp 0), a warp brings log-sums and delta (1), two threads
 * in turn add dQ to memory (2, 3).  Warpgroups 1 and 2 compute 64 keys each, and
 * half of dQ each.
 *
 * Overlap: dP and dV of a block are under way while exponentials are computed and dS is
 * formed, dK while the next block's scores are.  As in the forward, a loop (the stage's
 * barrier, long passed) keeps ptxas from moving a wait above the exponentials.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_BWD_CUH
#define KERN_CUDA_SM90_ATTENTION_BWD_CUH

#include "kernels/cuda/sm90_attention_bwd_feed.cuh"

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

/* dQ to the thread that adds it to memory, when the step that last had the buffer has left
 * it. */
template <class S>
DEVICE void bwd_leave(const float (&dq)[32], const struct bwd_at<S> &at,
                      const struct bwd_place &me)
{
    const uint32_t before = me.step - S::buffers;
    const uint32_t to = at.dq(me.step % S::buffers) + me.group * DQ_PART * 4;

    if (me.step >= S::buffers)
        mbar_wait(at.dq_empty(before % BWD_EXITS), before / BWD_EXITS & 1);
#pragma unroll
    for (int i = 0; i < 32; i += 4)
        store_shared4(to + dq_part(me.thread, i) * 4, dq[i], dq[i + 1], dq[i + 2],
                      dq[i + 3]);
    fence_async();
    warp_sync();
    if (me.thread % 32 == 0) mbar_arrive(at.dq_full(me.step % BWD_EXITS));
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
        if (warp >= 2 && thread_id() % 32 == 0) bwd_exit<S>(g, at, warp - 2);
    } else {
        registers_more<BWD_MANY>();
        bwd_compute<S>(&out, g.of, at);
    }
}

#endif
