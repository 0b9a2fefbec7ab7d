/*
 * part.h - which rank owns which elements of a flat array, and which micro-batches.
 *
 * Pure arithmetic: no MPI, no memory, no state.  Optimizer, reduction, checkpoints and
 * resharding all ask this file, so they cannot disagree.
 *
 * Every rank's chunk has the same padded length (collectives want equal counts); the
 * last chunks may be short or empty.  Indices are global and 64-bit, spans half open.
 */
#ifndef COMM_PART_H
#define COMM_PART_H

#include <stdint.h>

/* Chunks start at multiples of this many elements: whole blocks of kern_sumsq, so that
 * the sum of squares does not depend on who owns what. */
enum { PART_ALIGN = 4096 };

/* [begin, end), in elements */
struct span {
    int64_t begin, end;
};

/* Elements per rank after padding: a multiple of PART_ALIGN, >= n / size.  n >= 0, size >= 1. */
static inline int64_t part_chunk(int64_t n, int32_t size)
{
    int64_t per_rank = n / size + (n % size != 0);

    return (per_rank + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
}

/* The elements rank owns, without the padding. */
static inline struct span part_own(int64_t n, int32_t size, int32_t rank)
{
    int64_t chunk = part_chunk(n, size);
    int64_t begin = chunk * rank < n ? chunk * rank : n;
    int64_t end = begin + chunk < n ? begin + chunk : n;

    return (struct span){ begin, end };
}

/* What two spans share; empty (begin == end) when they do not meet. */
static inline struct span part_meet(struct span a, struct span b)
{
    int64_t begin = a.begin > b.begin ? a.begin : b.begin;
    int64_t end = a.end < b.end ? a.end : b.end;

    return (struct span){ begin, end > begin ? end : begin };
}

/* The micro-batches of rank, out of `leaves` per step: contiguous runs whose lengths
 * differ by at most one.  Needs leaves >= size. */
static inline struct span part_leaves(int64_t leaves, int32_t size, int32_t rank)
{
    return (struct span){ leaves * rank / size, leaves * (rank + 1) / size };
}

/* How micro-batches are dealt out.  RUNS: each rank has its run, see part_leaves.  ROUNDS:
 * one each in turn, so that those of a round lie together; every rank takes part in every
 * round, and in the last one some may have none. */
enum part_deal { PART_RUNS, PART_ROUNDS };

/* Micro-batches, or rounds, of a rank. */
static inline int64_t part_leaf_count(enum part_deal deal, int64_t leaves, int32_t size,
                                      int32_t rank)
{
    struct span run = part_leaves(leaves, size, rank);

    return deal == PART_RUNS ? run.end - run.begin : (leaves + size - 1) / size;
}

/* The i-th of a rank; -1: it has none in that round. */
static inline int64_t part_leaf(enum part_deal deal, int64_t leaves, int32_t size,
                                int32_t rank, int64_t i)
{
    if (deal == PART_RUNS) return part_leaves(leaves, size, rank).begin + i;
    return i * size + rank < leaves ? i * size + rank : -1;
}

/* Who has a micro-batch, and as which of its own. */
struct part_home {
    int32_t rank;
    int64_t index;
};

static inline struct part_home part_home(enum part_deal deal, int64_t leaves,
                                         int32_t size, int64_t leaf)
{
    struct part_home h = { (int32_t)(leaf % size), leaf / size };

    if (deal == PART_ROUNDS) return h;
    h.rank = (int32_t)(((leaf + 1) * size - 1) / leaves);
    h.index = leaf - part_leaves(leaves, size, h.rank).begin;
    return h;
}

#endif
