/*
 * documents.h - files of text as blocks that threads can work on.
 *
 * A file is plain text, one document, or *.jsonl, one JSON object a line with the text
 * under a key; "-" is text from standard input.  A block is a part of one file: whole
 * lines of JSON, or text cut where the tokenizer says that cutting changes nothing.
 */
#ifndef TRAIN_DOCUMENTS_H
#define TRAIN_DOCUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"
#include "trainer/data/tokenizer.h"

struct block {
    struct mem_text raw;
    bool lines; /* of JSON, else text */
    bool ends;  /* text: the document ends here */
    const char *path;
    int64_t first_line; /* from 1 */
};

struct documents; /* opaque */

/* The paths stay the caller's. */
kr_status documents_open(struct documents **out, char *const *paths, int count,
                         enum tokenizer_cut cut);
void documents_close(struct documents *d); /* NULL is fine */

int64_t documents_bytes(const struct documents *d); /* of all files; -1: not known */

/* The next block, about a MiB if it can be cut; *more = false: there is none.  KR_ERR_ARG
 * names the file that cannot be read. */
kr_status documents_next(struct documents *d, struct block *out, bool *more);

/* Give each text of a block to fn; ends: its document ends with it.  A line that is no
 * object with a text under `key` is KR_ERR_ARG, and one line goes to `error` (not to the
 * log: blocks are read by many threads, and the first bad line is the one to tell). */
typedef kr_status (*documents_fn)(void *arg, const char *text, size_t len, bool ends);
kr_status documents_each(struct block *b, const char *key, documents_fn fn, void *arg,
                         struct mem_text *error);

#endif
