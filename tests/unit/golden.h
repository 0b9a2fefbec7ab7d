/*
 * golden.h - the numbers behind the golden values: weights from a hash of (number of the
 * tensor, element of it as it is stored), tokens and labels of one small batch.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include "kernels/kernels.h"

enum {
    GOLDEN_SEQ = 7,
    GOLDEN_SEQUENCES = 2,
    GOLDEN_ROWS = GOLDEN_SEQ * GOLDEN_SEQUENCES,
    GOLDEN_VALID = 10, /* labels that count */
    GOLDEN_VOCAB = 40
};

static inline uint32_t golden_mix(uint32_t t, uint32_t k)
{
    uint32_t x = (t + 1) * 2654435761u + (k + 1) * 40503u;

    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    return x ^ x >> 16;
}

/* -0.5 .. 0.5 */
static inline double golden_value(uint32_t t, uint32_t k)
{
    return golden_mix(t, k) / 0x1p32 - 0.5;
}

/* The last of a sequence has no label, nor have the first two of the second one. */
static inline void golden_batch(int32_t token[GOLDEN_ROWS], int32_t label[GOLDEN_ROWS])
{
    for (int i = 0; i < GOLDEN_ROWS; i++)
        token[i] = (int32_t)(golden_mix(999, (uint32_t)i) % GOLDEN_VOCAB);
    for (int i = 0; i < GOLDEN_ROWS; i++)
        label[i] = i % GOLDEN_SEQ == GOLDEN_SEQ - 1 ? KERN_IGNORE : token[i + 1];
    label[GOLDEN_SEQ] = label[GOLDEN_SEQ + 1] = KERN_IGNORE;
}

#endif
