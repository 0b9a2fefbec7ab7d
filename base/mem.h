/*
 * mem.h - host memory.
 *
 * Sizes are checked for overflow; failure is KR_ERR_MEM with one line that says how much
 * was asked for what.  KILORANK_MEM_FAULT=N makes the N-th allocation of the process
 * fail (tests).
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { MEM_ALIGN = 64 }; /* bytes; a cache line, an AVX-512 register */

/* count * size bytes, zeroed, aligned to MEM_ALIGN; *out may be freed with mem_free.
 * count == 0 gives NULL and KR_OK.  `what` is for the error line. */
kr_status mem_alloc(void *out, size_t count, size_t size, const char *what);
void mem_free(void *at); /* NULL is fine */

/* Make room for `want` elements of `size` bytes in the array at *at, of which *room are
 * there: the old ones stay, new ones are zero, and room at least doubles, so that adding
 * one by one costs O(1) each.  `at` is a pointer to the array's pointer. */
kr_status mem_grow(void *at, size_t *room, size_t want, size_t size, const char *what);

/* A text that grows.  Zero-initialise; after a failed append `failed` stays set and
 * later appends do nothing, so that one check at the end is enough. */
struct mem_text {
    char *at; /* NUL-terminated; NULL while empty */
    size_t len, room;
    int failed;
};
void mem_printf(struct mem_text *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void mem_append(struct mem_text *t, const void *from, size_t bytes);
void mem_text_free(struct mem_text *t);

#endif
