/*
 * bf16.h - bfloat16 as bits: the upper half of an IEEE single.
 *
 * 8 bits of exponent, 8 of significand (7 stored): the range of fp32, 2 to 3 digits.
 * Rounding to nearest even keeps NaN a NaN and may make infinity of the largest singles.
 */
#ifndef BASE_BF16_H
#define BASE_BF16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t bf16_bits(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float bf16_value(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;

    memcpy(&x, &u, sizeof x);
    return x;
}

/* The quiet NaN of a single that is one; a carry of rounding could make infinity of it. */
static inline uint16_t bf16_keep_nan(uint32_t u, uint32_t rounded)
{
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16 | 0x40u)
                                                      : rounded >> 16);
}

/* To nearest, ties to even. */
static inline uint16_t bf16_round(float x)
{
    uint32_t u = bf16_bits(x);

    return bf16_keep_nan(u, u + 0x7fffu + (u >> 16 & 1u));
}

/*
 * Stochastic rounding: away from zero with probability (what is cut off) / (distance of
 * the two neighbours), given 16 uniform bits.  Exactly 16 bits are cut off, so the mean
 * over `random` is x itself; bf16 numbers stay as they are.
 */
static inline uint16_t bf16_round_random(float x, uint32_t random)
{
    uint32_t u = bf16_bits(x);

    return bf16_keep_nan(u,
                         (u & 0x7f800000u) == 0x7f800000u ? u : u + (random & 0xffffu));
}

/* y[i] = x[i] by stochastic rounding.  Element i has number first + i = n and takes 16 bits
 * of Philox block (key, RNG_ROUND, sub, n / 8): half n mod 2, lower first, of word n mod 8
 * / 2. */
void bf16_round_row(uint16_t *y, const float *x, int64_t count, uint64_t key,
                    uint32_t sub, int64_t first);

#endif
