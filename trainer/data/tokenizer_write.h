/*
 * tokenizer_write.h - a tokenizer.json of byte-level BPE, as Hugging Face's library writes it.
 *
 * Ids: 0..255 the bytes, then one a merge, then the special tokens.
 */
#ifndef TRAIN_TOKENIZER_WRITE_H
#define TRAIN_TOKENIZER_WRITE_H

#include "base/mem.h"
#include "trainer/data/bpe_learn.h"

/* Append the file's text.  pattern: how text is split (NULL: it is not). */
kr_status tokenizer_print(struct mem_text *out, const char *pattern,
                          const struct bpe_merge *m, int64_t merges,
                          const char *const *specials, int count);

/* The same for the tokenizer "byte": ids and texts are its own. */
kr_status tokenizer_print_bytes(struct mem_text *out);

#endif
