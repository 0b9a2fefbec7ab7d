/*
 * The arithmetic of the Hopper kernels: the copy engine puts each element where the tensor
 * cores look for it, results leave in the order in which they are stored, and every tile is
 * computed exactly once.
 *
 * The hardware's half is written down here from its description, not with the functions
 * under test.
 */
#include "kernels/cuda/sm90_layout.h"

#include <stdlib.h>

#include "tests/check.h"

/* Hardware: 16-byte chunks of 128-byte rows, permuted by the row inside 1024 bytes. */
static uint32_t hardware_swizzle(uint32_t at)
{
    uint32_t row = at / 128 % 8, chunk = at / 16 % 8;

    return at / 128 * 128 + (chunk ^ row) * 16 + at % 16;
}

/* Where the copy engine puts column x, row y of a box of 64 columns. */
static uint32_t copied_to(uint32_t panel, uint32_t x, uint32_t y)
{
    return hardware_swizzle(panel + y * 128 + x * 2);
}

/* Where the tensor cores look for (mn, k) of the operand that descriptor d names. */
static uint32_t read_from(uint64_t d, bool mn_major, uint32_t mn, uint32_t k)
{
    uint32_t start = (uint32_t)(d & 0x3fff) * 16,
             lead = (uint32_t)(d >> 16 & 0x3fff) * 16;
    uint32_t stride = (uint32_t)(d >> 32 & 0x3fff) * 16;

    if (mn_major)
        return hardware_swizzle(start + mn / 64 * lead + k / 8 * stride + k % 8 * 128 +
                                mn % 64 * 2);
    return hardware_swizzle(start + mn / 8 * stride + mn % 8 * 128 + k * 2);
}

/* A tile of rows x depth, k contiguous, in panels of 64 of k; mn rows of it from `first`. */
static void check_k_major(uint32_t base, uint32_t rows, uint32_t first, uint32_t mn,
                          uint32_t depth)
{
    int64_t wrong = 0;

    for (uint32_t s = 0; s < depth / 16; s++) {
        uint64_t d = desc_add(desc_k(base + first * 128), step_k(s, rows));

        wrong += d >> 62 != 1;
        for (uint32_t i = 0; i < mn; i++)
            for (uint32_t j = 0; j < 16; j++) {
                uint32_t k = s * 16 + j, panel = base + k / 64 * rows * 128;

                wrong += read_from(d, false, i, j) != copied_to(panel, k % 64, first + i);
            }
    }
    CHECK_I64(wrong, ==, 0);
}

/* A tile of depth x mn, mn contiguous, in panels of 64 of mn. */
static void check_mn_major(uint32_t base, uint32_t depth, uint32_t mn)
{
    int64_t wrong = 0;

    for (uint32_t s = 0; s < depth / 16; s++) {
        uint64_t d = desc_add(desc_mn(base, depth), step_mn(s));

        wrong += d >> 62 != 1;
        for (uint32_t i = 0; i < mn; i++)
            for (uint32_t j = 0; j < 16; j++) {
                uint32_t panel = base + i / 64 * depth * 128;

                wrong += read_from(d, true, i, j) != copied_to(panel, i % 64, s * 16 + j);
            }
    }
    CHECK_I64(wrong, ==, 0);
}

/* All rows, halves and depths that kernels use, at every kind of place. */
static void rows_along_k_are_found(void)
{
    for (uint32_t base = 1024; base < 200 << 10; base += 9 << 10) {
        check_k_major(base, 128, 0, 64, 64);
        check_k_major(base, 128, 64, 64, 64);
        check_k_major(base, 128, 0, 128, 128);
        check_k_major(base, 192, 128, 64, 64);
        check_k_major(base, 96, 0, 96, 128);
        check_k_major(base, 64, 0, 64, 128);
    }
    check_k_major(1024, 256, 0, 256, 64);
}

static void rows_across_k_are_found(void)
{
    for (uint32_t base = 1024; base < 160 << 10; base += 9 << 10) {
        check_mn_major(base, 64, 64);
        check_mn_major(base, 64, 256);
        check_mn_major(base, 64, 128);
        check_mn_major(base, 96, 128);
        check_mn_major(base, 128, 128);
        check_mn_major(base, 128, 64);
    }
}

static void descriptors_reach_all_of_shared_memory(void)
{
    int64_t wrong = 0;

    for (uint32_t at = 0; at < 227 << 10; at += 1024)
        for (uint32_t more = 0; at + more < 227 << 10; more += 16 * 1021)
            wrong += desc_add(desc_k(at), more) != desc_k(at + more);
    CHECK_I64(wrong, ==, 0);
}

/* stmatrix: lane l holds (l / 4, 2 (l % 4) + {0, 1}) of each 8 x 8 matrix and names the
 * address of row l % 8 of matrix l / 8.  Accumulators 8 b .. 8 b + 7 of a thread are its
 * elements of columns 16 b .. 16 b + 15, in pairs: registers 0 .. 3. */
static void results_are_staged_as_they_are_stored(void)
{
    int64_t wrong = 0;

    for (uint32_t thread = 0; thread < 128; thread++)
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t warp = thread / 32, lane = thread % 32, block = i / 8;
            uint32_t matrix = i % 8 / 2, row = lane / 4, byte = lane % 4 * 4 + i % 2 * 2;
            uint32_t at = stage_at(warp * 16, block * 16, matrix * 8 + row) + byte;

            wrong += at != copied_to(0, acc_col(thread, i), acc_row(thread, i));
        }
    CHECK_I64(wrong, ==, 0);
}

static void staging_meets_no_bank_twice(void)
{
    for (uint32_t block = 0; block < 4; block++)
        for (uint32_t matrix = 0; matrix < 4; matrix++) {
            uint32_t banks = 0;

            for (uint32_t row = 0; row < 8; row++)
                banks |= 15u << stage_at(16, block * 16, matrix * 8 + row) / 4 % 32;
            CHECK_I64(banks, ==, 0xffffffff);
        }
}

/* Accumulators cover a tile: each element belongs to one register of one thread. */
static void accumulators_cover_a_tile(void)
{
    static int seen[64][256];
    int64_t wrong = 0;

    for (uint32_t thread = 0; thread < 128; thread++)
        for (uint32_t i = 0; i < 128; i++)
            seen[acc_row(thread, i)][acc_col(thread, i)]++;
    for (int i = 0; i < 64 * 256; i++)
        wrong += seen[i / 256][i % 256] != 1;
    CHECK_I64(wrong, ==, 0);
}

static void check_raster(int32_t rows, int32_t cols)
{
    int *seen = calloc((size_t)(rows * cols), sizeof *seen);
    int64_t wrong = 0;

    for (int32_t i = 0; i < rows * cols; i++) {
        int32_t row, col;

        raster(i, rows, cols, &row, &col);
        if (row < 0 || row >= rows || col < 0 || col >= cols)
            wrong++;
        else
            seen[row * cols + col]++;
    }
    for (int32_t i = 0; i < rows * cols; i++)
        wrong += seen[i] != 1;
    CHECK_I64(wrong, ==, 0);
    free(seen);
}

static void each_tile_is_computed_once(void)
{
    for (int32_t rows = 1; rows < 40; rows++)
        for (int32_t cols = 1; cols < 40; cols += 1 + cols / 8)
            check_raster(rows, cols);
    check_raster(256, 501);
}

/* What runs together shares rows and columns: 66 clusters of 128 x 256 tiles read little. */
static void tiles_that_run_together_lie_together(void)
{
    bool row_seen[128] = { false }, col_seen[128] = { false };
    int32_t rows = 0, cols = 0, row, col;

    for (int32_t i = 660; i < 726; i++) {
        raster(i, 128, 16, &row, &col);
        rows += !row_seen[row], row_seen[row] = true;
        cols += !col_seen[col], col_seen[col] = true;
    }
    CHECK_I64(rows, <=, 16);
    CHECK_I64(cols, <=, 16);
}

static void parts_cover_the_inner_dimension(void)
{
    for (int32_t steps = 16; steps < 600; steps += 7)
        for (int32_t parts = 1; parts <= GEMM_MAX_SPLIT; parts *= 2) {
            CHECK_I64(split_begin(steps, 0, parts), ==, 0);
            CHECK_I64(split_begin(steps, parts, parts), ==, steps);
            for (int32_t s = 0; s < parts; s++)
                CHECK_I64(split_begin(steps, s, parts), <,
                          split_begin(steps, s + 1, parts));
        }
}

static void check_plan(int32_t m, int32_t n, int32_t k)
{
    struct gemm_plan p = gemm_choose(m, n, k, 132, true),
                     q = gemm_choose(m, n, k, 132, false);
    int32_t steps = ceil_div(k, GEMM_K);

    CHECK(p.tile_n == 256 || (p.tile_n == 128 && p.pair == 1));
    CHECK(p.split == 1 || (p.tile_n == 128 && steps / p.split >= 8));
    CHECK(p.split == 1 || gemm_tiles(p, m, n) * p.split <= 132);
    CHECK(p.pair == 1 || m > GEMM_M);
    CHECK(q.split == 1 && q.tile_n == p.tile_n && q.pair == p.pair);
}

static void plans_are_legal(void)
{
    for (int32_t m = 1; m < 70000; m += 1 + m / 2)
        for (int32_t n = 1; n < 140000; n += 1 + n / 2)
            for (int32_t k = 1; k < 40000; k += 1 + k)
                check_plan(m, n, k);
}

/* Layers of an 8B model take the large tile; small weight gradients are cut. */
static void plans_fit_the_shapes_of_training(void)
{
    struct gemm_plan big = gemm_choose(16384, 4096, 4096, 132, false);
    struct gemm_plan small = gemm_choose(768, 768, 16384, 132, true);

    CHECK(big.tile_n == 256 && big.pair == 2);
    CHECK(small.tile_n == 128 && small.split == 2);
    CHECK_I64(gemm_tiles(small, 768, 768) * small.split, ==, 72);
}

/* Work of the busiest worker, where a tile of rank r costs blocks - r. */
static int64_t check_order(struct attention_order o, int32_t workers)
{
    int32_t tiles = o.blocks * o.lanes, *seen = calloc((size_t)tiles, sizeof *seen);
    int64_t most = 0, wrong = 0;

    for (int32_t w = 0; w < workers; w++) {
        int64_t work = 0;

        for (int32_t round = 0; round * workers < tiles; round++) {
            int32_t i = snake(round, w, workers), rank, lane;

            if (i >= tiles) continue;
            attention_tile(o, i, &rank, &lane);
            wrong += rank < 0 || rank >= o.blocks || lane < 0 || lane >= o.lanes;
            if (!wrong) seen[rank * o.lanes + lane]++;
            work += o.blocks - rank;
        }
        if (work > most) most = work;
    }
    for (int32_t i = 0; i < tiles; i++)
        wrong += seen[i] != 1;
    CHECK_I64(wrong, ==, 0);
    free(seen);
    return most;
}

static void each_block_of_attention_is_computed_once(void)
{
    for (int32_t blocks = 1; blocks < 70; blocks += 1 + blocks / 3)
        for (int32_t lanes = 1; lanes < 140; lanes += 1 + lanes / 3)
            for (int32_t section = 1; section <= lanes; section += 1 + section)
                for (int32_t workers = 1; workers < 140; workers += 43)
                    check_order((struct attention_order){ blocks, lanes, section },
                                workers);
}

static void long_and_short_blocks_even_out(void)
{
    struct attention_order o = attention_order(64, 64, 8, 8192, 128);
    int64_t all = (int64_t)64 * 65 / 2 * 64;

    CHECK_I64(o.section, ==, 64);
    CHECK_I64(check_order(o, 132) * 132, <, all * 105 / 100);
    o = attention_order(256, 64, 8, 32768, 128);
    CHECK_I64(o.section, ==, 16);
    all = (int64_t)256 * 257 / 2 * 64;
    CHECK_I64(check_order(o, 132) * 132, <, all * 105 / 100);
}

static void sums_of_dq_have_a_place_each(void)
{
    static int seen[DQ_PART];
    int64_t wrong = 0;

    for (uint32_t thread = 0; thread < 128; thread++)
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t at = dq_part(thread, i);

            wrong += at >= DQ_PART || seen[at]++ ||
                     (i % 4 && at != dq_part(thread, i - 1) + 1);
        }
    for (int64_t n = 0; n < 2 * 3 * 5; n++)
        wrong += dq_tile_at((int32_t)n / 15, (int32_t)(n / 5 % 3), (int32_t)(n % 5), 3,
                            5) != n;
    CHECK_I64(wrong, ==, 0);
}

/* ---- turns of the backward ------------------------------------------------------------ */

/*
 * A model of the backward: CTAs take tiles in order, a step takes 1, adding a block of dQ
 * `add`, and comes after the same block of the tile before; a CTA has two buffers.
 */
enum { WORKERS = 132, BUFFERS = 2 };
struct turns {
    int32_t blocks, tiles, group, lanes; /* of queries, of keys; of a lane; lanes */
    bool usual;                          /* not our order, but that of others */
    double *added;                       /* (lanes, group, blocks): when */
};

/* Step number n of a tile whose first block is lo: which sum of dQ of the lane.  Ours: from the
 * last block to the first, all heads of each; others: head after head, upwards. */
static int64_t sum_of(struct turns t, int32_t lo, int64_t n)
{
    int64_t high = t.blocks - lo;
    int64_t head = t.usual ? n / high : n % t.group;
    int64_t block = t.usual ? lo + n % high : t.blocks - 1 - n / t.group;

    return head * t.blocks + block;
}

/* When a tile that begins at `now` has added its last block; *steps of them. */
static double walk(struct turns t, int32_t rank, int32_t lane, double now, double add,
                   int64_t *steps)
{
    int32_t lo = rank * t.blocks / t.tiles;
    double out[BUFFERS] = { 0 };

    *steps = (int64_t)(t.blocks - lo) * t.group;
    for (int64_t n = 0; n < *steps; n++) {
        double *before = &t.added[(int64_t)lane * t.group * t.blocks + sum_of(t, lo, n)];
        double *mine = &out[n % BUFFERS];

        now += 1;
        if (now < *mine) now = *mine;
        *mine = (now < *before ? *before : now) + add;
        *before = *mine;
    }
    return out[(*steps - 1) % BUFFERS];
}

/* The time that CTAs would take without turns, as part of the time that they take. */
static double efficiency(struct turns t, int64_t seq, int32_t dim, double add)
{
    struct attention_order o = backward_order(t.tiles, t.lanes, t.group, seq, dim);
    double free_at[WORKERS] = { 0 }, work = 0, end = 0;

    t.added =
        calloc((size_t)t.lanes * (size_t)t.blocks * (size_t)t.group, sizeof(double));
    for (int32_t i = 0; i < t.tiles * t.lanes; i++) {
        int32_t rank = t.tiles - 1 - i % t.tiles, lane = i / t.tiles, w = 0;
        int64_t steps;

        for (int32_t k = 1; k < WORKERS; k++)
            if (free_at[k] < free_at[w]) w = k;
        if (!t.usual) attention_tile(o, i, &rank, &lane);
        free_at[w] = walk(t, rank, lane, free_at[w], add, &steps);
        work += (double)steps;
        if (free_at[w] > end) end = free_at[w];
    }
    free(t.added);
    return work / WORKERS / end;
}

/* Longest first and one step behind each other: turns cost next to nothing. */
static void turns_of_the_backward_cost_little(void)
{
    for (int64_t seq = 2048; seq <= 16384; seq *= 2) {
        struct turns t = { (int32_t)(seq / 64),
                           (int32_t)(seq / 128),
                           8,
                           (int32_t)(8 * 16384 / seq),
                           false,
                           NULL };
        struct turns others = t;
        double fast = efficiency(t, seq, 128, 0.5), slow = efficiency(t, seq, 128, 1.2);

        others.usual = true;
        printf(
            "# 64/8 heads of 128, 16384 tokens, T %lld: work is %.3f of the time where "
            "adding takes 0.5 steps, %.3f where it takes 1.2; shortest first %.3f\n",
            (long long)seq, fast, slow, efficiency(others, seq, 128, 0.5));
        CHECK(fast > 0.95 && slow > 0.94);
    }
}

int main(void)
{
    RUN(rows_along_k_are_found);
    RUN(rows_across_k_are_found);
    RUN(descriptors_reach_all_of_shared_memory);
    RUN(results_are_staged_as_they_are_stored);
    RUN(staging_meets_no_bank_twice);
    RUN(accumulators_cover_a_tile);
    RUN(each_tile_is_computed_once);
    RUN(tiles_that_run_together_lie_together);
    RUN(parts_cover_the_inner_dimension);
    RUN(plans_are_legal);
    RUN(plans_fit_the_shapes_of_training);
    RUN(each_block_of_attention_is_computed_once);
    RUN(long_and_short_blocks_even_out);
    RUN(sums_of_dq_have_a_place_each);
    RUN(turns_of_the_backward_cost_little);
    return check_done();
}
