/* bf16.c - rows of numbers, rounded by chance. */
#include "base/bf16.h"

#include "base/rng.h"

void bf16_round_row(uint16_t *y, const float *x, int64_t count, uint64_t key,
                    uint32_t sub, int64_t first)
{
    uint32_t word[4] = { 0 };

    for (int64_t i = 0; i < count; i++) {
        int half = (int)((first + i) % 8);

        if (i == 0 || half == 0)
            rng_block(word, key, RNG_ROUND, sub, (uint64_t)(first + i) / 8);
        y[i] = bf16_round_random(x[i], word[half / 2] >> 16 * (half % 2));
    }
}
