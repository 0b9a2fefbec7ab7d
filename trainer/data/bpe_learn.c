/*
 * bpe_learn.c - counts of pairs kept up to date, a heap with lazy entries.
 *
 * A merge touches only the words that hold its pair.  Counts of old pairs only fall, so a
 * heap entry that promises too much is put back with the true count when it comes up; new
 * pairs are put in once, after the merge that made them.
 */
#include "trainer/data/bpe_learn.h"

#include <stdbool.h>
#include <string.h>

struct pair {
    int32_t left, right;
    int64_t count;
    int32_t *words; /* that hold it or held it, each once in a row */
    size_t word_count, word_room;
};

struct entry {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
};

struct learner {
    const struct corpus *corpus;
    int32_t *symbols; /* of all words, one after the other */
    size_t *starts;   /* of each word */
    int32_t *lens;
    struct pair *pairs;
    size_t pair_count, pair_room;
    uint32_t *slots; /* open addressing: pair + 1 */
    size_t slot_count;
    struct entry *heap;
    size_t heap_count, heap_room;
};

/* ---- pairs ------------------------------------------------------------------------------ */

static size_t slot_of(const struct learner *l, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t mask = l->slot_count - 1, i;

    i = (size_t)((key ^ key >> 29) * 0x9e3779b97f4a7c15u >> 24) & mask;
    for (; l->slots[i]; i = (i + 1) & mask) {
        const struct pair *p = &l->pairs[l->slots[i] - 1];

        if (p->left == left && p->right == right) break;
    }
    return i;
}

static kr_status spread(struct learner *l)
{
    uint32_t *old = l->slots;

    l->slot_count = l->slot_count ? l->slot_count * 2 : 1 << 16;
    l->slots = NULL;
    TRY(mem_alloc(&l->slots, l->slot_count, sizeof *l->slots, "pairs"));
    mem_free(old);
    for (size_t i = 0; i < l->pair_count; i++)
        l->slots[slot_of(l, l->pairs[i].left, l->pairs[i].right)] = (uint32_t)i + 1;
    return KR_OK;
}

static kr_status find_pair(struct learner *l, int32_t left, int32_t right,
                           struct pair **out)
{
    size_t i;

    if (l->pair_count * 2 >= l->slot_count) TRY(spread(l));
    i = slot_of(l, left, right);
    if (!l->slots[i]) {
        TRY(mem_grow(&l->pairs, &l->pair_room, l->pair_count + 1, sizeof *l->pairs,
                     "pairs"));
        l->pairs[l->pair_count++] = (struct pair){ .left = left, .right = right };
        l->slots[i] = (uint32_t)l->pair_count;
    }
    *out = &l->pairs[l->slots[i] - 1];
    return KR_OK;
}

static kr_status more(struct learner *l, int32_t left, int32_t right, int32_t word)
{
    struct pair *p;

    TRY(find_pair(l, left, right, &p));
    p->count += l->corpus->counts[word];
    if (p->word_count && p->words[p->word_count - 1] == word) return KR_OK;
    TRY(mem_grow(&p->words, &p->word_room, p->word_count + 1, sizeof *p->words,
                 "words of a pair"));
    p->words[p->word_count++] = word;
    return KR_OK;
}

static void fewer(struct learner *l, int32_t left, int32_t right, int32_t word)
{
    size_t i = slot_of(l, left, right);

    if (l->slots[i]) l->pairs[l->slots[i] - 1].count -= l->corpus->counts[word];
}

/* ---- heap ------------------------------------------------------------------------------- */

static bool before(const struct entry *a, const struct entry *b)
{
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static kr_status push(struct learner *l, uint32_t pair)
{
    const struct pair *p = &l->pairs[pair];
    struct entry e = { p->count, p->left, p->right, pair };
    size_t i = l->heap_count;

    if (p->count <= 0) return KR_OK;
    TRY(mem_grow(&l->heap, &l->heap_room, i + 1, sizeof *l->heap, "heap"));
    l->heap_count++;
    for (; i > 0 && before(&e, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = e;
    return KR_OK;
}

static struct entry pop(struct learner *l)
{
    struct entry top = l->heap[0], last = l->heap[--l->heap_count];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < l->heap_count) {
        if (child + 1 < l->heap_count && before(&l->heap[child + 1], &l->heap[child]))
            child++;
        if (!before(&l->heap[child], &last)) break;
        l->heap[i] = l->heap[child];
        i = child;
    }
    if (l->heap_count) l->heap[i] = last;
    return top;
}

/* The most frequent pair; false: none comes twice. */
static kr_status best(struct learner *l, struct entry *out, bool *found)
{
    *found = false;
    while (l->heap_count) {
        struct entry e = pop(l);
        int64_t now = l->pairs[e.pair].count;

        if (now == e.count && now > 1) {
            *out = e;
            *found = true;
            return KR_OK;
        }
        if (now < e.count) TRY(push(l, e.pair));
    }
    return KR_OK;
}

/* ---- learning --------------------------------------------------------------------------- */

static kr_status lay_out(struct learner *l)
{
    const struct words *w = &l->corpus->pieces;
    size_t words = (size_t)w->count, at = 0;

    TRY(mem_alloc(&l->symbols, w->used, sizeof *l->symbols, "symbols"));
    TRY(mem_alloc(&l->starts, words, sizeof *l->starts, "words"));
    TRY(mem_alloc(&l->lens, words, sizeof *l->lens, "words"));
    for (size_t i = 0; i < words; i++) {
        size_t len;
        const char *text = words_text(w, (int64_t)i, &len);

        l->starts[i] = at;
        l->lens[i] = (int32_t)len;
        for (size_t k = 0; k < len; k++)
            l->symbols[at++] = (unsigned char)text[k];
        for (size_t k = 0; k + 1 < len; k++)
            TRY(more(l, l->symbols[at - len + k], l->symbols[at - len + k + 1],
                     (int32_t)i));
    }
    for (uint32_t i = 0; i < l->pair_count; i++)
        TRY(push(l, i));
    return KR_OK;
}

/* Join left and right wherever they meet in a word, from its start. */
static kr_status join_in_word(struct learner *l, int32_t word, int32_t left,
                              int32_t right, int32_t whole)
{
    int32_t *s = l->symbols + l->starts[word], n = l->lens[word], to = 0;

    for (int32_t i = 0; i < n; i++) {
        if (i + 1 == n || s[i] != left || s[i + 1] != right) {
            s[to++] = s[i];
            continue;
        }
        if (to > 0) {
            fewer(l, s[to - 1], left, word);
            TRY(more(l, s[to - 1], whole, word));
        }
        if (i + 2 < n) {
            fewer(l, right, s[i + 2], word);
            TRY(more(l, whole, s[i + 2], word));
        }
        s[to++] = whole;
        i++;
    }
    l->lens[word] = to;
    return KR_OK;
}

static kr_status join(struct learner *l, struct entry e, int32_t whole)
{
    size_t old = l->pair_count;
    int32_t *words = l->pairs[e.pair].words;
    size_t count = l->pairs[e.pair].word_count;
    kr_status st = KR_OK;

    l->pairs[e.pair].words = NULL;
    l->pairs[e.pair].word_count = l->pairs[e.pair].word_room = 0;
    for (size_t i = 0; i < count && st == KR_OK; i++)
        st = join_in_word(l, words[i], e.left, e.right, whole);
    mem_free(words);
    l->pairs[e.pair].count = 0;
    for (uint32_t i = (uint32_t)old; i < l->pair_count && st == KR_OK; i++)
        st = push(l, i);
    return st;
}

static void close_learner(struct learner *l)
{
    for (size_t i = 0; i < l->pair_count; i++)
        mem_free(l->pairs[i].words);
    mem_free(l->pairs);
    mem_free(l->slots);
    mem_free(l->heap);
    mem_free(l->symbols);
    mem_free(l->starts);
    mem_free(l->lens);
}

kr_status bpe_learn(const struct corpus *c, int64_t most, struct bpe_merge *out,
                    int64_t *count, void (*tell)(void *arg, int64_t merges), void *arg)
{
    struct learner l = { .corpus = c };
    bool found = true;
    int64_t n = 0;
    kr_status st;

    TRY_OR(st, lay_out(&l), done);
    while (n < most) {
        struct entry e;

        TRY_OR(st, best(&l, &e, &found), done);
        if (!found) break;
        TRY_OR(st, join(&l, e, (int32_t)(256 + n)), done);
        out[n++] = (struct bpe_merge){ e.left, e.right };
        if (tell && n % 64 == 0) tell(arg, n);
    }
    *count = n;
done:
    close_learner(&l);
    return st;
}
