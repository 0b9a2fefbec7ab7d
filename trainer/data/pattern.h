/*
 * pattern.h - regular expressions of tokenizers, by PCRE2.
 *
 * tokenizer.json files are written for Oniguruma.  Where the two differ the expression is
 * translated: \s and \S become Unicode's White_Space (PCRE2 counts U+180E too), a set
 * nested in a set is flattened.  What has another meaning here and cannot be translated
 * is refused.
 */
#ifndef TRAIN_PATTERN_H
#define TRAIN_PATTERN_H

#include <stdbool.h>

#include "base/mem.h"

struct pattern; /* opaque; read-only: any number of threads */

/* literal: the text means itself.  KR_ERR_ARG with one line: no expression, or one that
 * cannot be translated. */
kr_status pattern_open(struct pattern **out, const char *text, bool literal);
void pattern_close(struct pattern *p); /* NULL is fine */

/* What a thread needs to match.  Zero-initialise. */
struct pattern_work {
    void *match, *stack, *context;
};
void pattern_work_free(struct pattern_work *w);

/* The first match at or after `from` that is not empty.  text is UTF-8 (else: undefined).
 * *found = false: none.  KR_ERR_DATA: the expression needs more steps than is sane. */
kr_status pattern_find(const struct pattern *p, struct pattern_work *w, const char *text,
                       size_t len, size_t from, bool *found, size_t *begin, size_t *end);

#endif
