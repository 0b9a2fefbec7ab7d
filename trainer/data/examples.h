/*
 * examples.h - labelled examples from JSON lines, packed into rows of a sequence's length.
 *
 * Each record (record.h) becomes a conversation in a chat template (chat.h); answers carry
 * loss, with the token that ends them; of "text" all is learned.  Rows are packed best fit,
 * longest first, once; examples in a row do not see each other.
 */
#ifndef TRAIN_EXAMPLES_H
#define TRAIN_EXAMPLES_H

#include "trainer/data/chat.h"
#include "trainer/data/tokens.h"

struct examples; /* opaque */

struct examples_config {
    const char *path;
    enum tokens_part part; /* held out: the last examples of the file */
    double held_out;       /* share of them */
    const struct tokenizer *tokenizer;
    int template;    /* of CHAT_CHOICES */
    int64_t context; /* labels in a row */
};

/* KR_ERR_ARG with one line naming file and line.  Examples longer than a row are left out
 * with one warning that counts them; if none is left, KR_ERR_ARG. */
kr_status examples_open(struct examples **out, const struct examples_config *c);
void examples_close(struct examples *x); /* NULL is fine */

int64_t examples_rows(const struct examples *x);
const char *examples_describe(const struct examples *x);

/* Row i: context tokens, labels (`ignore` where there is none) and, for each place, the place
 * in the row where its example starts. */
void examples_row(const struct examples *x, int64_t i, int32_t ignore, int32_t *token,
                  int32_t *label, int32_t *start);

#endif
