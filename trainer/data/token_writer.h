/*
 * token_writer.h - documents of tokens to PREFIX.bin and PREFIX.idx, Megatron's format.
 *
 * Tokens are uint16 if the vocabulary allows, else int32.  They stream to PREFIX.bin.tmp;
 * lengths of documents wait in memory (4 bytes each) for the index.  Both files are
 * complete and on disk before either gets its name; the index is renamed last, and without
 * it nothing reads the .bin as Megatron's.
 */
#ifndef TRAIN_TOKEN_WRITER_H
#define TRAIN_TOKEN_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct token_writer; /* opaque */

/* replace: files of these names may exist.  KR_ERR_ARG if they do and may not, or the
 * folder cannot be written. */
kr_status token_writer_open(struct token_writer **out, const char *prefix, int64_t vocab,
                            bool replace);

/* Tokens of the document that is open. */
kr_status token_writer_add(struct token_writer *w, const int32_t *id, size_t count);
kr_status token_writer_end(struct token_writer *w); /* the document ends */

int64_t token_writer_documents(const struct token_writer *w);
int64_t token_writer_tokens(const struct token_writer *w);

/* Give the files their names.  KR_ERR_ARG: there is no document. */
kr_status token_writer_finish(struct token_writer *w);

/* Unfinished, nothing stays.  NULL is fine. */
void token_writer_close(struct token_writer *w);

#endif
