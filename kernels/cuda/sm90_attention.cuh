/*
 * sm90_attention.cuh - what the Hopper kernels of attention share: arguments, which tiles
 * and which blocks of keys or queries, masks, ways to move tiles.
 *
 * Rows and columns of a tile count inside one sequence; tensor maps are (columns, rows of a
 * sequence, sequences), so a box that reaches beyond a sequence reads zeros and writes
 * nothing.  Scores are kept in powers of two: one multiply-add takes a raw score to the
 * argument of exp2.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_CUH
#define KERN_CUDA_SM90_ATTENTION_CUH

#include "kernels/cuda/sm90_ptx.cuh"
#include "kernels/cuda/sm90_tensor_map.h"

struct attention_args {
    int32_t seq, sequences, heads, kv_heads;
    float scale;          /* of the scores */
    const float *slopes;  /* (H), kernels with ALIBI */
    const int32_t *start; /* (N), or NULL: kernels.h */
    float *lse;           /* (H, N) */
    const float *delta;   /* (H, N), backward */
    int64_t lse_ld, delta_ld;
    struct attention_order order;
};

#define LOG2_E 1.4426950409f
#define LN_2   0.6931471806f

DEVICE int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
DEVICE int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

/* Place in a ring of stages, and the parity of its phase. */
struct stage_ring {
    int32_t slot;
    uint32_t phase;
};

template <int STAGES> DEVICE void advance(struct stage_ring &r)
{
    if (++r.slot == STAGES) r.slot = 0, r.phase ^= 1;
}

/* One tile of work: rows from i0 of a head of a sequence. */
struct attention_job {
    int32_t i0, head, sequence;
};

/* The round-th tile of this CTA; false: none.  heads: lanes of a sequence.  reverse: the
 * last rows are the longest (queries), not the first (keys). */
DEVICE bool attention_job_at(const struct attention_args &g, int32_t round, int32_t rows,
                             int32_t heads, bool reverse, struct attention_job *j)
{
    int32_t index = snake(round, block_id(), block_count()), rank, lane;

    if (index >= g.order.blocks * g.order.lanes) return false;
    attention_tile(g.order, index, &rank, &lane);
    j->i0 = (reverse ? g.order.blocks - 1 - rank : rank) * rows;
    j->head = lane % heads;
    j->sequence = lane / heads;
    return true;
}
DEVICE int32_t attention_rounds(const struct attention_args &g)
{
    return ceil_div(g.order.blocks * g.order.lanes, block_count());
}

/* First key that row i of a sequence sees, counted in the sequence. */
DEVICE int32_t start_of(const struct attention_args &g, int32_t sequence, int32_t i)
{
    int32_t base = sequence * g.seq;

    return g.start ? g.start[base + least(i, g.seq - 1)] - base : 0;
}

/* Blocks of keys that queries i0 .. i0 + rows see: [lo, hi).  Those of [clear, full) are
 * seen whole by all of them, the others need the mask. */
struct key_span {
    int32_t lo, clear, full, hi;
};

DEVICE struct key_span keys_of(const struct attention_args &g, struct attention_job j,
                               int32_t rows, int32_t width)
{
    int32_t last = least(j.i0 + rows, g.seq) - 1;
    struct key_span k;

    k.hi = last / width + 1;
    k.full = (j.i0 + 1) / width;
    k.lo = start_of(g, j.sequence, j.i0) / width;
    k.clear = ceil_div(start_of(g, j.sequence, last), width);
    return k;
}

/* What the copy engine moves at a time of results: the rows of a warpgroup. */
static inline struct tensor_box attention_box_out(struct kern_mat out, int64_t seq)
{
    return tensor_box_heads(out, seq, 64);
}

/* Panels of a tile from column x on; box rows as the map says. */
template <int D>
DEVICE void load_rows(uint32_t to, const CUtensorMap *map, uint32_t bar, int32_t rows,
                      int32_t x, int32_t y, int32_t z)
{
#pragma unroll
    for (int32_t p = 0; p < D / PANEL_COLS; p++)
        tma_load(to + p * rows * PANEL_ROW, map, bar, x + p * PANEL_COLS, y, z);
}

/* 64 rows of results of a warpgroup, rounded, into panels `apart` bytes apart. */
template <int ACCS>
DEVICE void stage_rows(uint32_t to, const float (&d)[ACCS], uint32_t apart,
                       int32_t thread)
{
#pragma unroll
    for (int i = 0; i < ACCS / 8; i++)
        stmatrix(to + i / 4 * apart + stage_at(thread / 32 * 16, i % 4 * 16, thread % 32),
                 pack(d[8 * i], d[8 * i + 1]), pack(d[8 * i + 2], d[8 * i + 3]),
                 pack(d[8 * i + 4], d[8 * i + 5]), pack(d[8 * i + 6], d[8 * i + 7]));
}

template <int D>
DEVICE void store_rows(const CUtensorMap *map, uint32_t from, uint32_t apart, int32_t x,
                       int32_t y, int32_t z)
{
#pragma unroll
    for (int32_t p = 0; p < D / PANEL_COLS; p++)
        tma_store(map, from + p * apart, x + p * PANEL_COLS, y, z);
}

/* Accumulators as operand a of the next product: registers 4 s .. 4 s + 3 are k-step s. */
template <int ACCS> DEVICE void pack_rows(uint32_t (&p)[ACCS / 2], const float (&s)[ACCS])
{
#pragma unroll
    for (int i = 0; i < ACCS / 2; i++)
        p[i] = pack(s[2 * i], s[2 * i + 1]);
}

/* d (64, N) = or += a b^T over D: a from `a_rows`-row panels, b from `b_rows`-row panels,
 * both K-major. */
template <int D, int ACCS>
DEVICE void tile_product(float (&d)[ACCS], uint32_t a, int32_t a_rows, uint32_t b,
                         int32_t b_rows)
{
    uint64_t da = desc_k(a), db = desc_k(b);

#pragma unroll
    for (int s = 0; s < D / MMA_K; s++)
        wgmma<0, 0>(d, desc_add(da, step_k(s, a_rows)), desc_add(db, step_k(s, b_rows)),
                    s > 0);
}

/* d (64, D) [+]= p b: p packed scores, b (rows, D) as it lies. */
template <int ACCS, int P>
DEVICE void weigh(float (&d)[ACCS], const uint32_t (&p)[P], uint32_t b, bool more)
{
    uint64_t db = desc_mn(b, P / 4 * MMA_K);

#pragma unroll
    for (int s = 0; s < P / 4; s++)
        wgmma<1>(d, p + 4 * s, desc_add(db, step_mn(s)), more || s > 0);
}

#endif
