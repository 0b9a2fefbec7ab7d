/*
 * bpe_learn.h - the merges of byte-level BPE (Sennrich, Haddow, Birch 2016) from counts.
 *
 * Tokens 0..255 are the bytes.  Merge k joins the neighbouring pair of tokens that is most
 * frequent then, the one of lower ids among equals, into token 256 + k.  The result is a
 * function of the counts alone: order of the text and number of threads do not matter.
 */
#ifndef TRAIN_BPE_LEARN_H
#define TRAIN_BPE_LEARN_H

#include "trainer/data/corpus.h"

struct bpe_merge {
    int32_t left, right;
};

/* Up to `most` merges into out; *count may be lower: no pair comes twice any more.  tell
 * (may be NULL) is called now and then with the number of merges so far. */
kr_status bpe_learn(const struct corpus *c, int64_t most, struct bpe_merge *out,
                    int64_t *count, void (*tell)(void *arg, int64_t merges), void *arg);

#endif
