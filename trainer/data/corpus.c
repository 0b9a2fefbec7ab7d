/* corpus.c - a count beside each word. */
#include "trainer/data/corpus.h"

kr_status corpus_add(struct corpus *c, const char *piece, size_t len, int64_t count)
{
    int64_t number;

    TRY(words_add(&c->pieces, piece, len, &number));
    TRY(mem_grow(&c->counts, &c->room, (size_t)number + 1, sizeof *c->counts, "counts"));
    c->counts[number] += count;
    return KR_OK;
}

kr_status corpus_join(struct corpus *into, const struct corpus *other)
{
    for (int64_t i = 0; i < other->pieces.count; i++) {
        size_t len;
        const char *piece = words_text(&other->pieces, i, &len);

        TRY(corpus_add(into, piece, len, other->counts[i]));
    }
    return KR_OK;
}

void corpus_free(struct corpus *c)
{
    words_free(&c->pieces);
    mem_free(c->counts);
    *c = (struct corpus){ 0 };
}
