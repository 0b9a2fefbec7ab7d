/* hash.c - XXH3, inlined, so that nothing else sees xxhash. */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>

/* struct hash is never defined: its pointers are XXH3_state_t pointers.  One state serves
 * XXH3-64 and XXH3-128; only the digests differ. */

uint64_t hash64(const void *at, size_t bytes) { return XXH3_64bits(at, bytes); }

struct hash *hash_open(void)
{
    XXH3_state_t *state = XXH3_createState();

    if (state) XXH3_128bits_reset(state);
    return (struct hash *)state;
}

void hash_begin(struct hash *h) { XXH3_128bits_reset((XXH3_state_t *)h); }

void hash_add(struct hash *h, const void *at, size_t bytes)
{
    XXH3_128bits_update((XXH3_state_t *)h, at, bytes);
}

uint64_t hash_end(const struct hash *h)
{
    return XXH3_64bits_digest((const XXH3_state_t *)h);
}

void hash_hex(const struct hash *h, char out[33])
{
    XXH128_hash_t d = XXH3_128bits_digest((const XXH3_state_t *)h);

    snprintf(out, 33, "%016llx%016llx", (unsigned long long)d.high64,
             (unsigned long long)d.low64);
}

void hash_close(struct hash *h) { XXH3_freeState((XXH3_state_t *)h); }
