/*
 * added.h - tokens that are cut out of the text before it is encoded.
 *
 * The longest that begins at the leftmost place wins, then the search goes on behind it.
 * Such a token may ask for no letters beside it (single_word) and may swallow the white
 * space on a side (lstrip, rstrip).
 */
#ifndef TRAIN_ADDED_H
#define TRAIN_ADDED_H

#include "trainer/data/pattern.h"

struct added_token {
    char *text; /* owned by the list */
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip, special;
};

struct added {
    struct added_token *list; /* sorted by text once added_ready */
    size_t count, room;
    struct pattern *word; /* a letter; if some token asks */
    bool first[256];      /* some token begins with this byte */
};

/* t->text is copied. */
kr_status added_add(struct added *a, const struct added_token *t);
kr_status added_ready(struct added *a); /* after the last; two alike: KR_ERR_ARG */
void added_free(struct added *a);

/* The token written so; NULL: none. */
const struct added_token *added_named(const struct added *a, const char *text);

/* The next token at or after `from`: it covers [begin, end).  specials: find those too;
 * else their text is passed over and stays plain.  *token = NULL: there is none. */
kr_status added_find(const struct added *a, struct pattern_work *w, const char *text,
                     size_t len, size_t from, bool specials,
                     const struct added_token **token, size_t *begin, size_t *end);

#endif
