/* hash.h - checksums and names for bytes: XXH3 of the xxhash library. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH3-64 of a block: detects every error that storage makes by accident. */
uint64_t hash64(const void *at, size_t bytes);

/* The same over bytes that come in parts.  Opaque; hash_open returns NULL when there is no
 * memory. */
struct hash;
struct hash *hash_open(void);
void hash_begin(struct hash *h); /* anew, as just opened */
void hash_add(struct hash *h, const void *at, size_t bytes);
/* Of all bytes so far; h goes on.  hash_hex: XXH3-128, 32 hexadecimal digits and NUL. */
uint64_t hash_end(const struct hash *h);
void hash_hex(const struct hash *h, char out[33]);
void hash_close(struct hash *h);

#endif
