/*
 * bpe.h - byte pair encoding: pieces of text to token ids.
 *
 * A piece starts as its smallest symbols: bytes (byte-level vocabularies) or characters.
 * Then, again and again, the neighbouring pair of the lowest rank becomes one token, the
 * leftmost first among equals, until no pair has a rank.  A heap of pairs makes that
 * O(n log n), for a piece may be a whole document.
 *
 * Vocabularies of characters (LLaMA 2) write a space as U+2581.  Where no token has one
 * behind another character, no merge can cross the place before such a space, so a piece
 * falls into words there, which the cache knows, and not a token changes.
 *
 * Pairs map to (rank, token), not tokens to pairs: several pairs may make the same token.
 */
#ifndef TRAIN_BPE_H
#define TRAIN_BPE_H

#include <stdbool.h>

#include "base/words.h"
#include "trainer/data/ids.h"

struct bpe_rules {
    bool bytes;         /* symbols are bytes, else characters */
    bool byte_fallback; /* an unknown character becomes tokens <0xNN> */
    bool whole_first;   /* a piece that is a token stays whole, whatever the merges say */
    bool fuse_unknown;  /* neighbouring unknown characters are one */
    int32_t unknown;    /* token of unknown characters; -1: none */
};

struct bpe; /* opaque; read-only once built: any number of threads */

kr_status bpe_open(struct bpe **out);
void bpe_close(struct bpe *b); /* NULL is fine */

/* Build: tokens, then merges in the order of their ranks (a pair given again takes the
 * later rank; `whole` is written as both are), then the rules.  bpe_add_token: KR_ERR_ARG if the string has a number.
 * bpe_set_rules: KR_ERR_ARG if some text could not be encoded. */
kr_status bpe_add_token(struct bpe *b, int32_t id, const char *at, size_t len);
kr_status bpe_add_merge(struct bpe *b, int32_t left, int32_t right, int32_t whole);
kr_status bpe_set_rules(struct bpe *b, const struct bpe_rules *rules);

int32_t bpe_find(const struct bpe *b, const char *at, size_t len); /* -1: no such token */

/* What a thread needs to encode: scratch, and a cache of short pieces.  Zero-initialise. */
struct bpe_work {
    struct bpe_symbol *symbols;
    struct bpe_pair *heap;
    size_t symbol_room, heap_room, heap_count;
    struct words seen;
    size_t *seen_at; /* of each seen piece: where its tokens begin in seen_ids */
    size_t seen_room;
    struct ids seen_ids;
};
void bpe_work_free(struct bpe_work *w);

/* Append the tokens of a piece. */
kr_status bpe_encode(const struct bpe *b, struct bpe_work *w, const char *piece,
                     size_t len, struct ids *out);

#endif
