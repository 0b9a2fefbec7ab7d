/*
 * words.h - a set of byte strings, numbered in the order they came: 0, 1, 2, ...
 *
 * Hashed with XXH3, so a file cannot make it slow by accident; strings lie in one block,
 * so a million of them cost no allocation each.
 */
#ifndef BASE_WORDS_H
#define BASE_WORDS_H

#include <stdint.h>

#include "base/mem.h"

struct words_entry {
    uint64_t hash;
    size_t at; /* in bytes */
    uint32_t len;
};

/* Zero-initialise; reading by several threads is fine. */
struct words {
    struct words_entry *list;
    int64_t count;
    size_t room;
    uint32_t *slots; /* number + 1; 0: free */
    size_t slot_count;
    char *bytes;
    size_t used, bytes_room;
};

/* Number of a string; -1: it is not there. */
int64_t words_find(const struct words *w, const void *at, size_t len);

/* Number of a string, added if it is new (then it is the last: count - 1). */
kr_status words_add(struct words *w, const void *at, size_t len, int64_t *number);

const char *words_text(const struct words *w, int64_t number, size_t *len);

void words_clear(struct words *w); /* empty, but keeps its room */
void words_free(struct words *w);

#endif
