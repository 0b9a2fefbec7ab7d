/*
 * rng.h - random numbers as a function of where they are used.
 *
 * Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011).  There is no generator to save or to share: the value is a
 * function of (seed, stream, index), so it does not depend on the rank, the time or the
 * number of calls made before.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

/* Streams keep uses of one seed apart. */
enum rng_stream { RNG_INIT = 1, RNG_ORDER, RNG_SHIFT, RNG_SAMPLE, RNG_TEST, RNG_ROUND };

/* The bare function of the paper. */
void rng_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* Four independent 32-bit words for block (hi, lo) of a stream. */
void rng_block(uint32_t out[4], uint64_t seed, uint32_t stream, uint32_t hi, uint64_t lo);

/* 64 uniform bits; `hi` numbers a sub-stream (a tensor, an epoch), `index` an element. */
uint64_t rng_u64(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t index);

/* Uniform in [0, 1) with 53 bits. */
double rng_uniform(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t index);

/* Standard normal (Box-Muller). */
double rng_normal(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t index);

/* Element i of a pseudo-random permutation of 0 .. n-1 keyed by (seed, stream, hi): a
 * Feistel network over the next even power of two, walked until it lands below n.
 * O(1) expected time, no memory.  Needs i < n <= 2^62. */
uint64_t rng_permute(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t n, uint64_t i);

#endif
