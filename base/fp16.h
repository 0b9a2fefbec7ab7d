/*
 * fp16.h - IEEE half precision as bits: 5 bits of exponent, 11 of significand (10 stored).
 *
 * Every half is a single, so fp16_value is exact and fp16_round(fp16_value(h)) == h, for
 * NaN too (a signalling one becomes quiet).
 */
#ifndef BASE_FP16_H
#define BASE_FP16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float fp16_value(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u;
    uint32_t fraction = h & 0x3ffu, u;
    float x;

    if (exponent == 0) /* zero or subnormal: fraction * 2^-24, exact */
        return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    u = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* To nearest, ties to even; what is too large becomes infinity. */
static inline uint16_t fp16_round(float x)
{
    uint32_t u, sign, rest;

    memcpy(&u, &x, sizeof u);
    sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* from 65520 on */
    if (u < 0x38800000u) /* below 2^-14: count of 2^-24, rounded as the hardware does */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(x) * 0x1p24f));
    rest = u + 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | (rest - 0x38000000u) >> 13);
}

#endif
