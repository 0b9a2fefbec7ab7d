/* rng.c - Philox 4x32-10 and what is made of it. */
#include "base/rng.h"

#include <math.h>

enum { ROUNDS = 10, FEISTEL_ROUNDS = 4 };

static void round_once(uint32_t c[4], const uint32_t k[2])
{
    uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t n[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b,
                      (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a };

    for (int i = 0; i < 4; i++)
        c[i] = n[i];
}

void rng_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t k[2] = { key[0], key[1] };

    for (int i = 0; i < 4; i++)
        out[i] = counter[i];
    for (int i = 0; i < ROUNDS; i++) {
        round_once(out, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
}

void rng_block(uint32_t out[4], uint64_t seed, uint32_t stream, uint32_t hi, uint64_t lo)
{
    uint32_t counter[4] = { (uint32_t)lo, (uint32_t)(lo >> 32), hi, stream };
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };

    rng_philox(out, counter, key);
}

uint64_t rng_u64(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t index)
{
    uint32_t w[4];

    rng_block(w, seed, stream, hi, index);
    return (uint64_t)w[1] << 32 | w[0];
}

static double unit(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }

double rng_uniform(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t index)
{
    return unit(rng_u64(seed, stream, hi, index));
}

double rng_normal(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t index)
{
    uint32_t w[4];
    double radius, angle;

    rng_block(w, seed, stream, hi, index);
    radius = sqrt(-2 * log(1 - unit((uint64_t)w[1] << 32 | w[0])));
    angle = 2 * acos(-1.0) * unit((uint64_t)w[3] << 32 | w[2]);
    return radius * cos(angle);
}

/* One pass through a balanced Feistel network on 2 * half bits. */
static uint64_t feistel(uint64_t seed, uint32_t stream, uint32_t hi, int half, uint64_t x)
{
    uint64_t mask = ((uint64_t)1 << half) - 1, left = x >> half, right = x & mask;

    for (uint64_t r = 0; r < FEISTEL_ROUNDS; r++) {
        uint64_t f = rng_u64(seed, stream, hi, r << 48 | right) & mask;
        uint64_t next = left ^ f;

        left = right;
        right = next;
    }
    return left << half | right;
}

uint64_t rng_permute(uint64_t seed, uint32_t stream, uint32_t hi, uint64_t n, uint64_t i)
{
    int half = 1;

    while (half < 31 && (uint64_t)1 << (2 * half) < n)
        half++;
    do {
        i = feistel(seed, stream, hi, half, i);
    } while (i >= n);
    return i;
}
