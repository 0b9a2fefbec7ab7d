/* hash.h - checksums and names for bytes: XXH3 of the xxhash library. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH3-64 of a block: detects every error that storage makes by accident. */
uint64_t hash64(const void *at, size_t bytes);

/* A running XXH3-128.  Opaque; hash_open returns NULL when there is no memory. */
struct hash;
struct hash *hash_open(void);
void hash_add(struct hash *h, const void *at, size_t bytes);
/* 32 hexadecimal digits and NUL of all bytes so far; h goes on. */
void hash_hex(const struct hash *h, char out[33]);
uint64_t hash_low(const struct hash *h); /* the low half of it */
void hash_close(struct hash *h);

#endif
