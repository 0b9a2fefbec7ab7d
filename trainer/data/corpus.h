/*
 * corpus.h - how often each piece comes in a text: what BPE is learned from.
 */
#ifndef TRAIN_CORPUS_H
#define TRAIN_CORPUS_H

#include "base/words.h"

/* Zero-initialise. */
struct corpus {
    struct words pieces;
    int64_t *counts; /* of each piece */
    size_t room;
};

kr_status corpus_add(struct corpus *c, const char *piece, size_t len, int64_t count);
kr_status corpus_join(struct corpus *into, const struct corpus *other);
void corpus_free(struct corpus *c);

#endif
