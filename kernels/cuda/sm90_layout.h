/*
 * sm90_layout.h - where elements lie in shared memory, how the tensor cores are told, and in
 * which order tiles are visited: the arithmetic of the Hopper kernels, in plain C, so that
 * tests/unit/t_sm90_layout.c can check all of it on any machine.
 *
 * A *panel* is `rows` rows of 64 bf16: 128 bytes a row, 16-byte chunks permuted inside
 * every 8 rows (the 128-byte swizzle, so that both 8 rows of one chunk and one row of 8
 * chunks touch all banks).  A tile of more than 64 columns is several panels, one after
 * another.  Panels begin at multiples of 1024 bytes: the swizzle permutes by address bits.
 *
 * The same panel serves as two operands:
 *   K-major    rows are m or n, columns are k     (x and w of y = x w^T)
 *   MN-major   rows are k, columns are m or n     (read transposed by the tensor cores)
 */
#ifndef KERN_CUDA_SM90_LAYOUT_H
#define KERN_CUDA_SM90_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define LAYOUT __host__ __device__ static inline
#else
#define LAYOUT static inline
#endif

enum {
    PANEL_COLS = 64, /* bf16 */
    PANEL_ROW = 128, /* bytes */
    PANEL_ALIGN = 1024,
    MMA_K = 16 /* inner dimension of one tensor-core instruction */
};

/* ---- shared memory -------------------------------------------------------------------- */

/* Byte of a panel -> byte where the swizzle puts it: bits 4-6 ^= bits 7-9. */
LAYOUT uint32_t swizzle(uint32_t byte) { return byte ^ ((byte >> 7 & 7) << 4); }

/* Element (row, col) of a panel, in bytes from its beginning. */
LAYOUT uint32_t panel_at(uint32_t row, uint32_t col)
{
    return swizzle(row * PANEL_ROW + col * 2);
}

/*
 * stmatrix of four 8 x 8 matrices that cover rows 0-15 and 16 columns of a warp's
 * accumulators: matrices 0, 1 are rows 0-7 and 8-15 of the first 8 columns, 2, 3 of the
 * next 8.  Lane l names row l % 8 of matrix l / 8.  Bytes from the panel's beginning; row,
 * col: first of the 16 x 16 block.
 */
LAYOUT uint32_t stage_at(uint32_t row, uint32_t col, uint32_t lane)
{
    return panel_at(row + (lane >> 3 & 1) * 8 + (lane & 7), col + (lane >> 4) * 8);
}

/* Accumulator i of a thread (0-127) of a warpgroup: its row of 64, its column. */
LAYOUT uint32_t acc_row(uint32_t thread, uint32_t i)
{
    return thread / 32 * 16 + thread % 32 / 4 + (i >> 1 & 1) * 8;
}
LAYOUT uint32_t acc_col(uint32_t thread, uint32_t i)
{
    return i / 4 * 8 + thread % 4 * 2 + (i & 1);
}

/* ---- descriptors ---------------------------------------------------------------------- */

/* A matrix in shared memory with the 128-byte swizzle; lead and stride in bytes. */
LAYOUT uint64_t desc_make(uint32_t at, uint32_t lead, uint32_t stride)
{
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(lead >> 4 & 0x3fff) << 16 |
           (uint64_t)(stride >> 4 & 0x3fff) << 32 | (uint64_t)1 << 62;
}

/* K-major: one block of 8 rows to the next is 1024 bytes; lead has no meaning. */
LAYOUT uint64_t desc_k(uint32_t panel) { return desc_make(panel, 16, PANEL_ALIGN); }

/* MN-major, panels of `depth` rows: 8 rows of k to the next 8 are 1024 bytes, 64 columns
 * to the next 64 are a panel. */
LAYOUT uint64_t desc_mn(uint32_t panel, uint32_t depth)
{
    return desc_make(panel, depth * PANEL_ROW, PANEL_ALIGN);
}

/* The same matrix `bytes` (a multiple of 16) further on. */
LAYOUT uint64_t desc_add(uint64_t d, uint32_t bytes) { return d + (bytes >> 4); }

/* Bytes from k-step 0 to k-step s (16 elements each) of an operand whose panels have
 * `rows` rows. */
LAYOUT uint32_t step_k(uint32_t s, uint32_t rows)
{
    return s / 4 * rows * PANEL_ROW + s % 4 * 32;
}
LAYOUT uint32_t step_mn(uint32_t s) { return s * MMA_K * PANEL_ROW; }

/* ---- matrix product: tiles ------------------------------------------------------------ */

enum { GEMM_M = 128, GEMM_K = 64, GEMM_GROUP = 8, GEMM_MAX_SPLIT = 8 };

LAYOUT int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

/*
 * Tiles in groups of GEMM_GROUP rows, down the rows of a group first: the CTAs that run
 * together then share few rows of a and few columns of b, which stay in L2.
 */
LAYOUT void raster(int32_t index, int32_t rows, int32_t cols, int32_t *row, int32_t *col)
{
    int32_t group = index / (GEMM_GROUP * cols), first = group * GEMM_GROUP;
    int32_t high = rows - first < GEMM_GROUP ? rows - first : GEMM_GROUP;
    int32_t in = index - first * cols;

    *row = first + in % high;
    *col = in / high;
}

/* Steps of part s of `parts` of an inner dimension of `steps`: [s, s + 1) below. */
LAYOUT int32_t split_begin(int32_t steps, int32_t s, int32_t parts)
{
    return (int32_t)((int64_t)steps * s / parts);
}

/*
 * How to cut one product.  tile_n: 256 or 128 columns.  pair: CTAs of a cluster that share
 * b.  split: CTAs of a cluster that share the inner dimension and add up in order.
 */
struct gemm_plan {
    int32_t tile_n, pair, split;
};

/* Tiles a cluster computes at a time, and how many of them there are. */
LAYOUT int32_t gemm_tiles(struct gemm_plan p, int32_t m, int32_t n)
{
    return ceil_div(ceil_div(m, GEMM_M), p.pair) * ceil_div(n, p.tile_n);
}

/*
 * The choice, by shape alone.  A k-step of a 128 x 256 tile takes 1024 clocks of the
 * tensor cores; one of 128 x 128 takes 512 but is held up by shared memory (96 bytes a
 * clock to the tensor cores and 64 from the copies, of 128), hence 640.  Whoever needs
 * fewer clocks for its waves wins.  may_split: cut the inner dimension when the tiles would
 * leave half of the chip idle.
 */
LAYOUT struct gemm_plan gemm_choose(int32_t m, int32_t n, int32_t k, int32_t sms,
                                    bool may_split)
{
    struct gemm_plan wide = { 256, 1, 1 }, narrow = { 128, 1, 1 };
    int32_t rows = ceil_div(m, GEMM_M), steps = ceil_div(k, GEMM_K), clusters = sms;
    int64_t wide_clocks, narrow_clocks;

    if (sms > 1 && rows > 1 && (rows % 2 == 0 || rows >= 16))
        wide.pair = 2, clusters = sms / 2;
    wide_clocks = (int64_t)1024 * ceil_div(gemm_tiles(wide, m, n), clusters);
    narrow_clocks = (int64_t)640 * ceil_div(gemm_tiles(narrow, m, n), sms);
    if (wide_clocks <= narrow_clocks) return wide;
    while (may_split && narrow.split < GEMM_MAX_SPLIT && steps / narrow.split >= 16 &&
           gemm_tiles(narrow, m, n) * narrow.split * 2 <= sms)
        narrow.split *= 2;
    return narrow;
}

/* ---- attention: tiles ----------------------------------------------------------------- */

/*
 * `blocks` of rows times `lanes` (heads of all sequences), cut into sections of lanes whose
 * keys and values fit in L2 together.  In a section the longest block comes first over all
 * its lanes.  Worker w of W takes tiles w, 2W - 1 - w, 2W + w, ...: long and short
 * alternate, so all finish at about the same time without a counter in memory.
 */
struct attention_order {
    int32_t blocks, lanes, section; /* section: lanes */
};

enum { ATTENTION_L2 = 32 << 20 }; /* bytes of keys and values to keep near */

/* group: lanes that share keys and values.  A section is whole groups, at least one. */
LAYOUT struct attention_order attention_order(int32_t blocks, int32_t lanes,
                                              int32_t group, int64_t seq, int32_t dim)
{
    int64_t groups = ATTENTION_L2 / (seq * dim * 4);
    struct attention_order o = { blocks, lanes, lanes };

    if (groups < 1) groups = 1;
    if (groups * group < lanes) o.section = (int32_t)groups * group;
    return o;
}

/* Tile number `round` of worker w, or one past the last tile when there is none. */
LAYOUT int32_t snake(int32_t round, int32_t w, int32_t workers)
{
    return round * workers + (round % 2 ? workers - 1 - w : w);
}

/* rank: 0 is the longest block. */
LAYOUT void attention_tile(struct attention_order o, int32_t index, int32_t *rank,
                           int32_t *lane)
{
    int32_t whole = o.section * o.blocks, section = index / whole;
    int32_t first = section * o.section;
    int32_t wide = o.lanes - first < o.section ? o.lanes - first : o.section;
    int32_t in = index - section * whole;

    *rank = in / wide;
    *lane = first + in % wide;
}

/*
 * The same for the backward, whose tiles are keys: a lane is a K/V head.  A tile follows the
 * one before it through all queries, their gradients and dQ of `group` heads (2 + 2 + 4
 * bytes an element); a section has enough lanes that tiles of many are at work.
 */
enum { BACKWARD_LANES = 8 };

LAYOUT struct attention_order backward_order(int32_t blocks, int32_t lanes, int32_t group,
                                             int64_t seq, int32_t dim)
{
    int64_t near = ATTENTION_L2 / (seq * dim * (4 + 8 * (int64_t)group));
    struct attention_order o = { blocks, lanes, lanes };

    if (near < BACKWARD_LANES) near = BACKWARD_LANES;
    if (near < lanes) o.section = (int32_t)near;
    return o;
}

/* ---- attention: sums of dQ ------------------------------------------------------------ */

/*
 * fp32 sums of dQ lie as the threads hold them, so that they move in one piece: tile after
 * tile of BWD_BLOCK_ROWS(D) queries of a head, each two parts of 64 x 64, each 8 columns
 * by 8 columns, each thread by thread.  Part p of a tile is columns from 64 p on where D is
 * 128, rows from 64 p on where D is 64.
 */
enum { DQ_PART = 64 * 64 };

#define BWD_BLOCK_ROWS(dim) ((dim) == 128 ? 64 : 128)

/* Number of the tile. */
LAYOUT int64_t dq_tile_at(int32_t sequence, int32_t head, int32_t block, int32_t heads,
                          int32_t blocks)
{
    return ((int64_t)sequence * heads + head) * blocks + block;
}

/* Accumulator i of a thread (acc_row, acc_col), in floats from the beginning of a part; four
 * neighbours lie together. */
LAYOUT uint32_t dq_part(uint32_t thread, uint32_t i)
{
    return i / 4 * 512 + thread * 4 + i % 4;
}

#endif
