/* order.c - epochs of shifted windows in a permuted order. */
#include "trainer/data/order.h"

#include "base/rng.h"

int64_t order_epoch(int64_t tokens, int64_t seq)
{
    int64_t windows = tokens / seq - 1; /* any shift below seq leaves so many whole */

    return windows < 1 ? 1 : windows;
}

int64_t order_first(uint64_t seed, int64_t tokens, int64_t seq, int64_t n)
{
    int64_t windows = order_epoch(tokens, seq), epoch = n / windows;
    int64_t room = tokens - 1 - windows * seq; /* largest shift that still fits */
    uint64_t shifts = (uint64_t)(room + 1 < seq ? room + 1 : seq);
    uint64_t shift = rng_u64(seed, RNG_SHIFT, 0, (uint64_t)epoch) % shifts;
    uint64_t window = rng_permute(seed, RNG_ORDER, (uint32_t)epoch, (uint64_t)windows,
                                  (uint64_t)(n % windows));

    return (int64_t)(window * (uint64_t)seq + shift);
}
