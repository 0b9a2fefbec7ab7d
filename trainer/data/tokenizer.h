/*
 * tokenizer.h - text to token ids and back.
 *
 * Two kinds: "byte" (ids 0..255 are the bytes, 256 ends a document) and tokenizer.json of
 * Hugging Face with a BPE model: byte-level (GPT-2, LLaMA 3, BLOOM, GLM-4) or of
 * characters with byte fallback (LLaMA 2).  The same ids as the library that wrote the
 * file; what a file asks for and is not known here is one clear line at open.
 *
 *   text -> added tokens cut out -> normalizer -> pieces -> BPE -> ids
 *
 * Malformed UTF-8 is no error: each such byte is a piece of its own, which a byte-level
 * vocabulary keeps as it is and any other treats as an unknown character.
 * `truncation` and `padding` of a file are for batches and are left aside.
 */
#ifndef TRAIN_TOKENIZER_H
#define TRAIN_TOKENIZER_H

#include <stdbool.h>

#include "trainer/data/ids.h"

struct tokenizer; /* opaque; read-only: any number of threads */
struct encoder;   /* opaque; one a thread */

/* name: "byte" or the path of a file.  KR_ERR_ARG: it cannot be read, is no tokenizer, or
 * asks for what is not known here. */
kr_status tokenizer_open(struct tokenizer **out, const char *name);
void tokenizer_close(struct tokenizer *t); /* NULL is fine */

int64_t tokenizer_size(const struct tokenizer *t); /* ids are below it */
const char *tokenizer_describe(const struct tokenizer *t);

/* The added token written so ("<|eot_id|>"); -1: there is none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text);

/* The id that ends a document: the first of the usual names that is there; -1: none. */
int32_t tokenizer_end(const struct tokenizer *t);

/* Append what stands before a text by itself: the start of the file's template, else the end
 * token, for what follows it in training begins a document; else nothing. */
kr_status tokenizer_begin(const struct tokenizer *t, struct ids *out);

/* The first special token in a text, at [begin, end); -1: there is none. */
int32_t tokenizer_special(const struct tokenizer *t, const char *text, size_t len,
                          size_t *begin, size_t *end);

/* Bytes that an id adds when it is decoded. */
size_t tokenizer_id_bytes(const struct tokenizer *t, int32_t id);

/* Where may a text be cut, its parts be encoded one by one, and the ids be the same? */
enum tokenizer_cut {
    CUT_NOWHERE,
    CUT_LINES, /* behind a newline between two characters that are no white space */
    CUT_ANYWHERE
};
enum tokenizer_cut tokenizer_cut(const struct tokenizer *t);

/* t must outlive it. */
kr_status encoder_open(struct encoder **out, const struct tokenizer *t);
void encoder_close(struct encoder *e);

enum encode_flags {
    ENCODE_PLAIN = 0,
    ENCODE_SPECIALS = 1, /* special tokens in the text count; else they are plain text */
    ENCODE_TEMPLATE = 2  /* also what the file's post-processor puts around a text */
};

/* Append the ids of a text. */
kr_status encoder_add(struct encoder *e, const char *text, size_t len, unsigned flags,
                      struct ids *out);

/* Call fn for each piece that BPE would see. */
kr_status encoder_split(struct encoder *e, const char *text, size_t len, unsigned flags,
                        kr_status (*fn)(void *arg, const char *piece, size_t len),
                        void *arg);

/* Append the bytes of ids; ids that have no text give none.  specials: special tokens as
 * they are written, else nothing.  start: these ids begin the text (some vocabularies drop
 * a space there).  Bytes may be malformed UTF-8, for a token may end within a character. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *id, size_t count,
                      bool specials, bool start, struct mem_text *out);

#endif
