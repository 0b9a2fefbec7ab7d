/*
 * tokens.h - a file of tokens, read by memory map.
 *
 * What a path may be, told apart by looking:
 *   PREFIX, PREFIX.bin or PREFIX.idx with both files there    Megatron indexed dataset
 *   FILE.bin starting with llm.c's magic                      llm.c shard
 *   FILE.bin else                                             nanoGPT: raw uint16
 *   a folder, or a file named *.txt                           plain text: bytes are
 *       tokens, TOKENS_END follows each file (symbolic links and files that are no
 *       text are left out; files in the order of their names)
 *
 * Everything is one long row of tokens; documents follow each other.  Files are hostile
 * until checked: sizes, headers, offsets at open, every id against the vocabulary when
 * read.
 */
#ifndef TRAIN_TOKENS_H
#define TRAIN_TOKENS_H

#include "base/status.h"

#include <stdint.h>

enum { TOKENS_END = 256, TOKENS_BYTE_VOCAB = 257 }; /* the byte tokenizer */

enum tokens_part {
    TOKENS_ALL,
    TOKENS_TRAIN,   /* all but the held out part */
    TOKENS_HELD_OUT /* text: the last part of each file; binary: the last part of the row */
};

struct tokens; /* opaque */

/* held_out: share of each text that belongs to TOKENS_HELD_OUT (0 .. 0.5).  vocab: ids
 * must be below it.  KR_ERR_ARG with one line naming the file: missing, empty, odd size,
 * bad header, an id beyond the vocabulary (files up to 64 MiB of tokens are checked
 * whole, larger ones at their start and end; the rest when read). */
kr_status tokens_open(struct tokens **out, const char *path, enum tokens_part part,
                      double held_out, int64_t vocab);
void tokens_close(struct tokens *t);

int64_t tokens_count(const struct tokens *t);
const char *
tokens_describe(const struct tokens *t); /* "train.bin: Megatron, uint16, ..." */

/* A number that tells this row of tokens from others: hash of its count and of samples
 * taken all over it. */
uint64_t tokens_fingerprint(const struct tokens *t);

/* Tokens [first, first + count) as int32.  KR_ERR_DATA: an id beyond the vocabulary. */
kr_status tokens_read(const struct tokens *t, int64_t first, int64_t count, int32_t *out);

#endif
