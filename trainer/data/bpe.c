/* bpe.c - a table of pairs, a linked list of symbols, a heap of candidates. */
#include "trainer/data/bpe.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum {
    CACHED_LEN = 48, /* bytes; longer pieces hardly come again */
    CACHED_MOST = 1 << 16,
    LONGEST = INT32_MAX - 1
};

static const char space[] = "\xe2\x96\x81"; /* U+2581 */
enum { SPACE = sizeof space - 1 };

struct merge {
    int32_t left, right, rank, whole; /* rank 0: the slot is free */
};

struct bpe {
    struct bpe_rules rules;
    struct words texts;
    int32_t *id_of; /* of each text */
    size_t id_room;
    struct merge *merges; /* open addressing */
    size_t slot_count, merge_count;
    int32_t next_rank;
    int32_t byte_id[256]; /* of each byte, or of each <0xNN>; -1: none */
    bool spaces_inside;   /* a token has a space behind another character */
    bool words;           /* pieces fall into words */
};

struct bpe_symbol {
    int32_t id, previous, next; /* id -1: merged away */
};

struct bpe_pair {
    int32_t rank, at, whole;
};

/* ---- building --------------------------------------------------------------------------- */

kr_status bpe_open(struct bpe **out) { return mem_alloc(out, 1, sizeof **out, "BPE"); }

void bpe_close(struct bpe *b)
{
    if (!b) return;
    words_free(&b->texts);
    mem_free(b->id_of);
    mem_free(b->merges);
    mem_free(b);
}

/* Where the word that a text begins with ends: before a space behind another character. */
static size_t word_of(const char *at, size_t len)
{
    const char *from = at, *end = at + len, *found;

    while ((found = memmem(from, (size_t)(end - from), space, SPACE))) {
        if (found > from) return (size_t)(found - at);
        from = found + SPACE;
    }
    return len;
}

kr_status bpe_add_token(struct bpe *b, int32_t id, const char *at, size_t len)
{
    int64_t before = b->texts.count, number;

    TRY(words_add(&b->texts, at, len, &number));
    if (b->texts.count == before)
        return KR_FAIL(KR_ERR_ARG, "tokens %d and %d are written alike", id,
                       b->id_of[number]);
    TRY(mem_grow(&b->id_of, &b->id_room, (size_t)number + 1, sizeof *b->id_of, "tokens"));
    b->id_of[number] = id;
    if (word_of(at, len) < len) b->spaces_inside = true;
    return KR_OK;
}

int32_t bpe_find(const struct bpe *b, const char *at, size_t len)
{
    int64_t number = words_find(&b->texts, at, len);

    return number < 0 ? -1 : b->id_of[number];
}

static size_t slot_of(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t mask = b->slot_count - 1, i;

    i = (size_t)((key ^ key >> 29) * 0x9e3779b97f4a7c15u >> 24) & mask;
    while (b->merges[i].rank &&
           (b->merges[i].left != left || b->merges[i].right != right))
        i = (i + 1) & mask;
    return i;
}

static kr_status spread(struct bpe *b)
{
    struct merge *old = b->merges;
    size_t count = b->slot_count;

    b->merges = NULL;
    b->slot_count = count ? count * 2 : 1024;
    if (mem_alloc(&b->merges, b->slot_count, sizeof *b->merges, "merges") != KR_OK) {
        b->merges = old;
        b->slot_count = count;
        return KR_ERR_MEM;
    }
    for (size_t i = 0; i < count; i++)
        if (old[i].rank) b->merges[slot_of(b, old[i].left, old[i].right)] = old[i];
    mem_free(old);
    return KR_OK;
}

kr_status bpe_add_merge(struct bpe *b, int32_t left, int32_t right, int32_t whole)
{
    size_t i;

    if (b->merge_count * 2 >= b->slot_count) TRY(spread(b));
    i = slot_of(b, left, right);
    b->merge_count += b->merges[i].rank == 0;
    b->merges[i] = (struct merge){ left, right, ++b->next_rank, whole };
    return KR_OK;
}

kr_status bpe_set_rules(struct bpe *b, const struct bpe_rules *rules)
{
    bool all = true;

    b->rules = *rules;
    for (int i = 0; i < 256; i++) {
        char name[8] = { (char)i };
        int len = 1;

        if (!rules->bytes) len = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        b->byte_id[i] =
            rules->bytes || rules->byte_fallback ? bpe_find(b, name, (size_t)len) : -1;
        if (b->byte_id[i] < 0) all = false;
    }
    if (rules->byte_fallback && !all) b->rules.byte_fallback = false;
    b->words = !rules->bytes && !rules->whole_first && !b->spaces_inside &&
               bpe_find(b, space, SPACE) >= 0;
    if (all || rules->unknown >= 0) return KR_OK;
    return KR_FAIL(KR_ERR_ARG,
                   "some text would have no tokens: neither all 256 bytes nor "
                   "an unknown token are in the vocabulary");
}

/* ---- symbols ---------------------------------------------------------------------------- */

struct row { /* of symbols, while it is laid out */
    struct bpe_symbol *at;
    int32_t count;
    bool unknown_last;
};

static void put(struct row *r, int32_t id, bool unknown)
{
    r->at[r->count] = (struct bpe_symbol){ id, r->count - 1, r->count + 1 };
    r->count++;
    r->unknown_last = unknown;
}

static void put_unknown(const struct bpe *b, struct row *r, const char *at, int len)
{
    if (b->rules.byte_fallback)
        for (int i = 0; i < len; i++)
            put(r, b->byte_id[(unsigned char)at[i]], false);
    else if (!r->unknown_last || !b->rules.fuse_unknown)
        put(r, b->rules.unknown, true);
}

static void lay_characters(const struct bpe *b, struct row *r, const char *at, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t code;
        int n = utf8_get(at + i, len - i, &code);
        int32_t id = n ? bpe_find(b, at + i, (size_t)n) : -1;

        if (n == 0) n = 1; /* a malformed byte is an unknown character */
        if (id >= 0)
            put(r, id, false);
        else
            put_unknown(b, r, at + i, n);
        i += (size_t)n;
    }
}

static void lay_bytes(const struct bpe *b, struct row *r, const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        int32_t id = b->byte_id[(unsigned char)at[i]];

        if (id >= 0)
            put(r, id, false);
        else
            put_unknown(b, r, at + i, 1);
    }
}

/* ---- merging ---------------------------------------------------------------------------- */

static bool before(const struct bpe_pair *a, const struct bpe_pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(struct bpe_work *w, struct bpe_pair p)
{
    size_t i = w->heap_count++;

    for (; i > 0 && before(&p, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = p;
}

static struct bpe_pair pop(struct bpe_work *w)
{
    struct bpe_pair top = w->heap[0], last = w->heap[--w->heap_count];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < w->heap_count) {
        if (child + 1 < w->heap_count && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* The pair that begins at symbol `at`, if it has a rank. */
static const struct merge *merge_at(const struct bpe *b, const struct bpe_symbol *s,
                                    int32_t count, int32_t at)
{
    const struct merge *m;

    if (at < 0 || s[at].id < 0 || s[at].next >= count || !b->slot_count) return NULL;
    m = &b->merges[slot_of(b, s[at].id, s[s[at].next].id)];
    return m->rank ? m : NULL;
}

static void consider(const struct bpe *b, struct bpe_work *w, int32_t count, int32_t at)
{
    const struct merge *m = merge_at(b, w->symbols, count, at);

    if (m) push(w, (struct bpe_pair){ m->rank, at, m->whole });
}

/* Each merge removes a symbol and adds two pairs at most: 3 * count of them in all. */
static void merge_all(const struct bpe *b, struct bpe_work *w, int32_t count)
{
    struct bpe_symbol *s = w->symbols;

    w->heap_count = 0;
    for (int32_t i = 0; i + 1 < count; i++)
        consider(b, w, count, i);
    while (w->heap_count) {
        struct bpe_pair p = pop(w);
        const struct merge *m = merge_at(b, s, count, p.at);
        int32_t right = s[p.at].next;

        if (!m || m->whole != p.whole) continue; /* a neighbour has changed since */
        s[p.at].id = p.whole;
        s[p.at].next = s[right].next;
        s[right].id = -1;
        if (s[right].next < count) s[s[right].next].previous = p.at;
        consider(b, w, count, s[p.at].previous);
        consider(b, w, count, p.at);
    }
}

/* Without merges bytes are tokens as they are. */
static kr_status spell(const struct bpe *b, const char *piece, size_t len,
                       struct ids *out)
{
    TRY(mem_grow(&out->at, &out->room, out->count + len, sizeof *out->at, "tokens"));
    for (size_t i = 0; i < len; i++)
        out->at[out->count++] = b->byte_id[(unsigned char)piece[i]];
    return KR_OK;
}

static kr_status encode(const struct bpe *b, struct bpe_work *w, const char *piece,
                        size_t len, struct ids *out)
{
    int32_t whole = b->rules.whole_first ? bpe_find(b, piece, len) : -1;
    struct row r = { 0 };

    if (whole >= 0) return ids_add(out, &whole, 1);
    if (!b->merge_count && b->rules.bytes && b->rules.unknown < 0)
        return spell(b, piece, len, out);
    if (len > LONGEST / 3)
        return KR_FAIL(KR_ERR_MEM, "a piece of text of %zu bytes", len);
    TRY(mem_grow(&w->symbols, &w->symbol_room, len, sizeof *w->symbols, "symbols"));
    TRY(mem_grow(&w->heap, &w->heap_room, 3 * len, sizeof *w->heap, "pairs"));
    r.at = w->symbols;
    if (b->rules.bytes)
        lay_bytes(b, &r, piece, len);
    else
        lay_characters(b, &r, piece, len);
    merge_all(b, w, r.count);
    for (int32_t i = 0; i < r.count; i = w->symbols[i].next)
        TRY(ids_add(out, &w->symbols[i].id, 1));
    return KR_OK;
}

/* ---- the cache -------------------------------------------------------------------------- */

static kr_status remember(struct bpe_work *w, const char *piece, size_t len,
                          const struct ids *out, size_t from)
{
    int64_t number;

    if (w->seen.count == CACHED_MOST) {
        words_clear(&w->seen);
        w->seen_ids.count = 0;
    }
    TRY(words_add(&w->seen, piece, len, &number));
    TRY(mem_grow(&w->seen_at, &w->seen_room, (size_t)number + 2, sizeof *w->seen_at,
                 "cache"));
    w->seen_at[number] = w->seen_ids.count;
    TRY(ids_add(&w->seen_ids, out->at + from, out->count - from));
    w->seen_at[number + 1] = w->seen_ids.count;
    return KR_OK;
}

static kr_status encode_word(const struct bpe *b, struct bpe_work *w, const char *piece,
                             size_t len, struct ids *out)
{
    size_t from = out->count;
    int64_t known;

    if (len > CACHED_LEN) return encode(b, w, piece, len, out);
    known = words_find(&w->seen, piece, len);
    if (known >= 0)
        return ids_add(out, w->seen_ids.at + w->seen_at[known],
                       w->seen_at[known + 1] - w->seen_at[known]);
    TRY(encode(b, w, piece, len, out));
    return remember(w, piece, len, out, from);
}

kr_status bpe_encode(const struct bpe *b, struct bpe_work *w, const char *piece,
                     size_t len, struct ids *out)
{
    while (len > 0) {
        size_t n = b->words ? word_of(piece, len) : len;

        TRY(encode_word(b, w, piece, n, out));
        piece += n;
        len -= n;
    }
    return KR_OK;
}

void bpe_work_free(struct bpe_work *w)
{
    mem_free(w->symbols);
    mem_free(w->heap);
    words_free(&w->seen);
    mem_free(w->seen_at);
    ids_free(&w->seen_ids);
    *w = (struct bpe_work){ 0 };
}
