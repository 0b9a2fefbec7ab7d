/* t_part.c - every element and every micro-batch has exactly one owner, at any size. */
#include "comm/part.h"
#include "kernels/kernels.h"
#include "tests/check.h"

static const int64_t lengths[] = { 0,    1,     4095,      4096,
                                   4097, 12345, 124439808, INT64_C(1) << 40 };
static const int32_t sizes[] = { 1, 2, 3, 4, 5, 7, 8, 31, 64, 1000, 1024 };

enum { LENGTHS = sizeof lengths / sizeof *lengths, SIZES = sizeof sizes / sizeof *sizes };

/* The spans of all ranks follow each other from 0 to n. */
static void check_tiling(int64_t n, int32_t size)
{
    int64_t at = 0;

    for (int32_t r = 0; r < size; r++) {
        struct span s = part_own(n, size, r);

        CHECK_I64(s.begin, ==, at);
        CHECK_I64(s.end, >=, s.begin);
        at = s.end;
    }
    CHECK_I64(at, ==, n);
}

static void spans_tile_the_array(void)
{
    for (int i = 0; i < LENGTHS; i++)
        for (int k = 0; k < SIZES; k++)
            check_tiling(lengths[i], sizes[k]);
}

static void chunks_are_equal_aligned_and_enough(void)
{
    for (int i = 0; i < LENGTHS; i++)
        for (int k = 0; k < SIZES; k++) {
            int64_t chunk = part_chunk(lengths[i], sizes[k]);

            CHECK_I64(chunk % PART_ALIGN, ==, 0);
            CHECK_I64(chunk * sizes[k], >=, lengths[i]);
            /* less than one more block per rank than is needed */
            CHECK_I64((chunk - PART_ALIGN) * sizes[k], <, lengths[i] ? lengths[i] : 1);
        }
}

/* A rank owns whole blocks of the sum of squares, except for the end of the array. */
static void owners_change_only_between_sum_blocks(void)
{
    CHECK_I64(PART_ALIGN % KERN_SUM_BLOCK, ==, 0);
    for (int i = 0; i < LENGTHS; i++)
        for (int k = 0; k < SIZES; k++)
            for (int32_t r = 0; r < sizes[k]; r++) {
                struct span s = part_own(lengths[i], sizes[k], r);

                CHECK(s.begin % KERN_SUM_BLOCK == 0 || s.begin == lengths[i]);
            }
}

/* What a new rank needs is, piece by piece, what the old ranks have. */
static void check_reshard(int64_t n, int32_t old_size, int32_t new_size)
{
    int64_t moved = 0;

    for (int32_t to = 0; to < new_size; to++) {
        struct span need = part_own(n, new_size, to);
        int64_t at = need.begin;

        for (int32_t from = 0; from < old_size; from++) {
            struct span s = part_meet(part_own(n, old_size, from), need);

            if (s.begin == s.end) continue;
            CHECK_I64(s.begin, ==, at);
            at = s.end;
            moved += s.end - s.begin;
        }
        CHECK_I64(at, ==, need.end);
    }
    CHECK_I64(moved, ==, n);
}

static void resharding_loses_nothing(void)
{
    for (int i = 0; i < LENGTHS; i++)
        for (int k = 0; k < SIZES - 2; k++) /* 1000 by 1024 owners take long */
            for (int m = 0; m < SIZES - 2; m++)
                check_reshard(lengths[i], sizes[k], sizes[m]);
}

static void spans_that_do_not_meet_are_empty(void)
{
    struct span a = { 0, 10 }, b = { 10, 20 }, c = { 15, 30 }, s;

    s = part_meet(a, b);
    CHECK_I64(s.begin, ==, s.end);
    s = part_meet(a, c);
    CHECK_I64(s.begin, ==, s.end);
    s = part_meet(b, c);
    CHECK_I64(s.begin, ==, 15);
    CHECK_I64(s.end, ==, 20);
}

static void leaves_are_shared_out_evenly(void)
{
    for (int64_t leaves = 1; leaves <= 300; leaves++)
        for (int k = 0; k < SIZES && sizes[k] <= leaves; k++) {
            int64_t at = 0;

            for (int32_t r = 0; r < sizes[k]; r++) {
                struct span s = part_leaves(leaves, sizes[k], r);

                CHECK_I64(s.begin, ==, at);
                CHECK_I64(s.end - s.begin, >=, leaves / sizes[k]);
                CHECK_I64(s.end - s.begin, <=, leaves / sizes[k] + 1);
                at = s.end;
            }
            CHECK_I64(at, ==, leaves);
        }
}

/* Either way each micro-batch has one home, and homes and lists agree. */
static void every_micro_batch_is_dealt_once(void)
{
    for (int32_t size = 1; size <= 9; size++)
        for (int64_t leaves = size; leaves <= 40; leaves++)
            for (int deal = PART_RUNS; deal <= PART_ROUNDS; deal++) {
                int64_t dealt = 0, wrong = 0;

                for (int32_t r = 0; r < size; r++)
                    for (int64_t i = 0; i < part_leaf_count(deal, leaves, size, r); i++) {
                        int64_t leaf = part_leaf(deal, leaves, size, r, i);
                        struct part_home h;

                        if (leaf < 0) continue;
                        h = part_home(deal, leaves, size, leaf);
                        wrong += h.rank != r || h.index != i || leaf >= leaves;
                        dealt++;
                    }
                CHECK_I64(dealt, ==, leaves);
                CHECK_I64(wrong, ==, 0);
            }
}

int main(void)
{
    RUN(spans_tile_the_array);
    RUN(chunks_are_equal_aligned_and_enough);
    RUN(owners_change_only_between_sum_blocks);
    RUN(resharding_loses_nothing);
    RUN(spans_that_do_not_meet_are_empty);
    RUN(leaves_are_shared_out_evenly);
    RUN(every_micro_batch_is_dealt_once);
    return check_done();
}
