/*
 * sm90_attention_fwd.cuh - causal attention on Hopper, forward (the structure is that of
 * FlashAttention-3, Shah et al. 2024).
 *
 * A CTA owns 64 query rows per computing warpgroup and walks over blocks of 128 keys, from
 * the diagonal to the left, so that masked blocks come first and need no test later.  Two
 * overlaps keep the tensor cores busy while exponentials are computed: warpgroups take
 * turns (named barriers), and inside a warpgroup the scores of the next block are issued
 * together with the weighted values of the last one; the softmax runs while the latter
 * are still under way.
 *
 * ptxas moves a wait for products above the exponentials if both stand in one basic block.
 * Between them stands the wait for the next values, a loop: as nvcc 13.0 builds it, all
 * exponentials then stand between issue and wait.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_FWD_CUH
#define KERN_CUDA_SM90_ATTENTION_FWD_CUH

#include "kernels/cuda/sm90_attention.cuh"

/* A kernel, as constants.  GROUPS: computing warpgroups. */
template <int D, int GROUPS, bool ALIBI> struct fwd_shape {
    static constexpr int dim = D, groups = GROUPS;
    static constexpr bool alibi = ALIBI;
    static constexpr int rows = 64 * GROUPS, keys = 128;
    static constexpr int stages = D == 64 ? 4 : 2;
    static constexpr int threads = 128 + 128 * GROUPS;
    static constexpr int few = GROUPS == 3 ? 32 : 24, many = GROUPS == 3 ? 160 : 240;
    static constexpr int q_bytes = rows * D * 2, kv_bytes = keys * D * 2;
    static constexpr int out_bytes = 64 * D * 2; /* of one warpgroup */
    static constexpr int k = q_bytes, v = k + stages * kv_bytes;
    static constexpr int out = v + stages * kv_bytes;
    static constexpr int bars = out + GROUPS * out_bytes;
    static constexpr int shared_bytes = PANEL_ALIGN + bars + (2 + 4 * stages) * 8;
};

/* What the copy engine moves at a time: queries, keys and values. */
template <class S>
static inline struct tensor_box fwd_box_q(struct kern_mat qkv, int64_t seq)
{
    return tensor_box_heads(qkv, seq, S::rows);
}
template <class S>
static inline struct tensor_box fwd_box_kv(struct kern_mat qkv, int64_t seq)
{
    return tensor_box_heads(qkv, seq, S::keys);
}

/* Barriers: q full, q empty, then full and empty of the stages of k, of v. */
template <class S> struct fwd_bars {
    uint32_t base;

    DEVICE_MEMBER uint32_t q_full() const { return base + S::bars; }
    DEVICE_MEMBER uint32_t q_empty() const { return base + S::bars + 8; }
    DEVICE_MEMBER uint32_t full(int32_t v, int32_t slot) const
    {
        return base + S::bars + 16 + (v * 2 * S::stages + slot) * 8;
    }
    DEVICE_MEMBER uint32_t empty(int32_t v, int32_t slot) const
    {
        return full(v, slot) + S::stages * 8;
    }
};
enum { FWD_K, FWD_V };

template <class S> DEVICE void fwd_init(struct fwd_bars<S> bar)
{
    if (thread_id() == 0) {
        mbar_init(bar.q_full(), 1);
        mbar_init(bar.q_empty(), 4 * S::groups);
        for (int i = 0; i < S::stages; i++)
            for (int v = FWD_K; v <= FWD_V; v++) {
                mbar_init(bar.full(v, i), 1);
                mbar_init(bar.empty(v, i), 4 * S::groups);
            }
        mbar_init_fence();
    }
    cta_sync();
}

/* ---- feeding -------------------------------------------------------------------------- */

/* Columns of packed qkv where a query head's own queries, keys, values begin. */
template <int D>
DEVICE int32_t column_of(const struct attention_args &g, int32_t head, int32_t which)
{
    int32_t kv = head / (g.heads / g.kv_heads);

    return (which == 0 ? head : g.heads + (which - 1) * g.kv_heads + kv) * D;
}

template <class S>
DEVICE void fwd_feed(const CUtensorMap *q, const CUtensorMap *kv,
                     const struct attention_args &g, struct fwd_bars<S> bar)
{
    struct stage_ring r = { 0, 0 };
    struct attention_job j;
    uint32_t parity = 1;

    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, S::rows, g.heads, true, &j)) continue;
        struct key_span span = keys_of(g, j, S::rows, S::keys);

        mbar_wait(bar.q_empty(), parity);
        parity ^= 1;
        mbar_expect(bar.q_full(), S::q_bytes);
        load_rows<S::dim>(bar.base, q, bar.q_full(), S::rows,
                          column_of<S::dim>(g, j.head, 0), j.i0, j.sequence);
        for (int32_t b = span.hi - 1; b >= span.lo; b--, advance<S::stages>(r))
            for (int v = FWD_K; v <= FWD_V; v++) {
                uint32_t to =
                    bar.base + (v == FWD_K ? S::k : S::v) + r.slot * S::kv_bytes;

                mbar_wait(bar.empty(v, r.slot), r.phase ^ 1);
                mbar_expect(bar.full(v, r.slot), S::kv_bytes);
                load_rows<S::dim>(to, kv, bar.full(v, r.slot), S::keys,
                                  column_of<S::dim>(g, j.head, 1 + v), b * S::keys,
                                  j.sequence);
            }
    }
}

/* ---- softmax -------------------------------------------------------------------------- */

/* The two rows of a thread: accumulators with bit 1 clear, and set. */
struct soft_rows {
    int32_t i[2], first[2]; /* position; first key it sees */
    float most[2], sum[2];  /* of scores; of weights, this thread's columns only */
    float shrink[2];        /* what the last block did to earlier weights */
    float factor, slope;    /* score to powers of two; ALiBi in powers of two */
};

template <bool MASK, bool ALIBI, int ACCS>
DEVICE void shape_scores(float (&s)[ACCS], const struct soft_rows &r, int32_t j0,
                         int32_t lane)
{
    const int32_t j = j0 + lane % 4 * 2; /* of accumulator 0 */

#pragma unroll
    for (int i = 0; i < ACCS; i++) {
        const int32_t col = i / 4 * 8 + (i & 1), h = i >> 1 & 1;

        if (ALIBI) s[i] = s[i] * r.factor + r.slope * (float)(j + col - r.i[h]);
        if (MASK && (col > r.i[h] - j || col < r.first[h] - j)) s[i] = -INFINITY;
    }
}

/* Scores of a block to weights; keeps most, sum and shrink.  MASK: a row may see nothing. */
template <bool MASK, bool ALIBI, int ACCS>
DEVICE void soften(float (&s)[ACCS], struct soft_rows &r, int32_t j0, int32_t lane)
{
    const float factor = ALIBI ? 1.f : r.factor;

    shape_scores<MASK, ALIBI>(s, r, j0, lane);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = r.most[h], shift, total = 0;

#pragma unroll
        for (int i = 2 * h; i < ACCS; i += 4)
            top = fmaxf(top, fmaxf(s[i], s[i + 1]));
        top = quad_max(top);
        shift = MASK && top == -INFINITY ? 0 : -top * factor;
        r.shrink[h] = exp2_fast(r.most[h] * factor + shift);
        r.most[h] = top;
#pragma unroll
        for (int i = 2 * h; i < ACCS; i += 4) {
            s[i] = exp2_fast(s[i] * factor + shift);
            s[i + 1] = exp2_fast(s[i + 1] * factor + shift);
            total += s[i] + s[i + 1];
        }
        r.sum[h] = r.sum[h] * r.shrink[h] + total;
    }
}

template <int ACCS> DEVICE void scale_rows(float (&o)[ACCS], const float (&by)[2])
{
#pragma unroll
    for (int i = 0; i < ACCS; i++)
        o[i] *= by[i >> 1 & 1];
}

template <class S>
DEVICE struct soft_rows rows_of(const struct attention_args &g, struct attention_job j,
                                int32_t group, int32_t thread)
{
    struct soft_rows r = {};

    r.factor = g.scale * LOG2_E;
    r.slope = S::alibi ? g.slopes[j.head] * LOG2_E : 0;
    for (int h = 0; h < 2; h++) {
        r.i[h] = j.i0 + group * 64 + (int32_t)acc_row(thread, 2 * h);
        r.first[h] = start_of(g, j.sequence, r.i[h]);
        r.most[h] = -INFINITY;
    }
    return r;
}

/* ---- computing ------------------------------------------------------------------------ */

/* A computing warpgroup's place. */
template <class S> struct fwd_place {
    struct fwd_bars<S> bar;
    int32_t group, thread;
    struct stage_ring k, v;

    DEVICE_MEMBER uint32_t q_at() const { return bar.base + group * 64 * PANEL_ROW; }
    DEVICE_MEMBER uint32_t k_at() const { return bar.base + S::k + k.slot * S::kv_bytes; }
    DEVICE_MEMBER uint32_t v_at() const { return bar.base + S::v + v.slot * S::kv_bytes; }
};

template <class S> DEVICE void my_turn(const struct fwd_place<S> &at)
{
    bar_sync(1 + at.group, 256);
}
template <class S> DEVICE void your_turn(const struct fwd_place<S> &at)
{
    bar_arrive(1 + (at.group + 1) % S::groups, 256);
}

template <class S> DEVICE void give_back(struct fwd_place<S> &at, int32_t which)
{
    struct stage_ring &r = which == FWD_K ? at.k : at.v;

    if (at.thread % 32 == 0) mbar_arrive(at.bar.empty(which, r.slot));
    advance<S::stages>(r);
}

/* Block b: its scores, and the weighted values of block b + 1.  more: not the first of
 * these. */
template <class S, bool MASK>
DEVICE void fwd_block(float (&o)[S::dim / 2], float (&s)[64], uint32_t (&p)[32],
                      struct soft_rows &r, struct fwd_place<S> &at, int32_t b, bool more)
{
    struct stage_ring next = at.v;

    advance<S::stages>(next);
    mbar_wait(at.bar.full(FWD_K, at.k.slot), at.k.phase);
    my_turn(at);
    pin(s);
    pin(o);
    wgmma_fence();
    tile_product<S::dim>(s, at.q_at(), S::rows, at.k_at(), S::keys);
    wgmma_commit();
    weigh(o, p, at.v_at(), more);
    wgmma_commit();
    your_turn(at);
    wgmma_wait<1>();
    pin(s);
    give_back(at, FWD_K);
    soften<MASK, S::alibi>(s, r, b * S::keys, at.thread % 32);
    mbar_wait(at.bar.full(FWD_V, next.slot),
              next.phase); /* holds the next wait down here */
    wgmma_wait<0>();
    pin(o);
    give_back(at, FWD_V);
    scale_rows(o, r.shrink);
    pack_rows(p, s);
}

/* The first block's weights. */
template <class S>
DEVICE void fwd_first(float (&s)[64], uint32_t (&p)[32], struct soft_rows &r,
                      struct fwd_place<S> &at, int32_t b)
{
    mbar_wait(at.bar.full(FWD_K, at.k.slot), at.k.phase);
    pin(s);
    wgmma_fence();
    tile_product<S::dim>(s, at.q_at(), S::rows, at.k_at(), S::keys);
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    give_back(at, FWD_K);
    soften<true, S::alibi>(s, r, b * S::keys, at.thread % 32);
    pack_rows(p, s);
    mbar_wait(at.bar.full(FWD_V, at.v.slot), at.v.phase);
}

/* The last block's values; o is complete. */
template <class S>
DEVICE void fwd_last(float (&o)[S::dim / 2], const uint32_t (&p)[32],
                     struct fwd_place<S> &at, bool more)
{
    pin(o);
    wgmma_fence();
    weigh(o, p, at.v_at(), more);
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
    give_back(at, FWD_V);
}

template <class S>
DEVICE void fwd_put(float (&o)[S::dim / 2], struct soft_rows &r, const CUtensorMap *out,
                    const struct attention_args &g, const struct fwd_place<S> &at,
                    struct attention_job j)
{
    uint32_t to = at.bar.base + S::out + at.group * S::out_bytes;
    float part[2];

    for (int h = 0; h < 2; h++) {
        float sum = quad_sum(r.sum[h]);
        int64_t n = (int64_t)j.sequence * g.seq + r.i[h];

        part[h] = divide_fast(1.f, sum);
        if (at.thread % 4 == 0 && r.i[h] < g.seq)
            g.lse[j.head * g.lse_ld + n] =
                (r.most[h] * (S::alibi ? 1.f : r.factor) + log2_fast(sum)) * LN_2;
    }
    scale_rows(o, part);
    if (at.thread == 0) tma_wait_read<0>();
    bar_sync(4 + at.group, 128);
    stage_rows(to, o, 64 * PANEL_ROW, at.thread);
    fence_async();
    bar_sync(4 + at.group, 128);
    if (at.thread == 0) {
        store_rows<S::dim>(out, to, 64 * PANEL_ROW, j.head * S::dim, j.i0 + at.group * 64,
                           j.sequence);
        tma_commit();
    }
}

template <class S>
DEVICE void fwd_compute(const CUtensorMap *out, const struct attention_args &g,
                        struct fwd_bars<S> bar)
{
    int32_t group = uniform(thread_id() / 128) - 1;
    struct fwd_place<S> at = {
        bar, group, thread_id() % 128, { 0, 0 }, { 0, 0 }
    };
    struct attention_job j;
    uint32_t parity = 0;

    if (group == S::groups - 1) your_turn(at); /* the first one begins */
    for (int32_t round = 0; round < attention_rounds(g); round++) {
        if (!attention_job_at(g, round, S::rows, g.heads, true, &j)) continue;
        struct key_span span = keys_of(g, j, S::rows, S::keys);
        struct soft_rows r = rows_of<S>(g, j, group, at.thread);
        float o[S::dim / 2], s[64];
        uint32_t p[32];
        int32_t b = span.hi - 1;

        mbar_wait(bar.q_full(), parity);
        parity ^= 1;
        fwd_first(s, p, r, at, b--);
        for (; b >= most(span.full, span.lo); b--)
            fwd_block<S, true>(o, s, p, r, at, b, b < span.hi - 2);
        for (; b >= most(span.clear, span.lo); b--)
            fwd_block<S, false>(o, s, p, r, at, b, b < span.hi - 2);
        for (; b >= span.lo; b--)
            fwd_block<S, true>(o, s, p, r, at, b, b < span.hi - 2);
        if (at.thread % 32 == 0) mbar_arrive(bar.q_empty());
        fwd_last(o, p, at, span.lo < span.hi - 1);
        fwd_put(o, r, out, g, at, j);
    }
    if (at.thread == 0) tma_wait_read<0>();
}

template <class S>
KERNEL(S::threads)
attention_fwd_kernel(TENSOR_MAP q, TENSOR_MAP kv, TENSOR_MAP out,
                     const struct attention_args g)
{
    struct fwd_bars<S> bar = {
        shared_start()
    };

    fwd_init(bar);
    if (uniform(thread_id() / 128) == 0) {
        registers_less<S::few>();
        if (thread_id() == 0) fwd_feed<S>(&q, &kv, g, bar);
    } else {
        registers_more<S::many>();
        fwd_compute<S>(&out, g, bar);
    }
}

#endif
