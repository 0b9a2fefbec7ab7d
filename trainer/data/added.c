/* added.c - a sorted list narrowed byte by byte: a trie without nodes. */
#include "trainer/data/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Rust's \w: Alphabetic, marks, decimal digits, connectors, joiners. */
static const char word_class[] =
    "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}"
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}]";

kr_status added_add(struct added *a, const struct added_token *t)
{
    struct added_token copy = *t;

    TRY(mem_grow(&a->list, &a->room, a->count + 1, sizeof *a->list, "added tokens"));
    TRY(mem_alloc(&copy.text, t->len + 1, 1, "added token"));
    memcpy(copy.text, t->text, t->len);
    a->list[a->count++] = copy;
    return KR_OK;
}

void added_free(struct added *a)
{
    for (size_t i = 0; i < a->count; i++)
        mem_free(a->list[i].text);
    mem_free(a->list);
    pattern_close(a->word);
    *a = (struct added){ 0 };
}

static int by_text(const void *x, const void *y)
{
    const struct added_token *a = x, *b = y;
    size_t n = a->len < b->len ? a->len : b->len;
    int order = memcmp(a->text, b->text, n);

    return order ? order : (a->len > b->len) - (a->len < b->len);
}

kr_status added_ready(struct added *a)
{
    bool words = false;

    if (a->count) qsort(a->list, a->count, sizeof *a->list, by_text);
    for (size_t i = 0; i < a->count; i++) {
        a->first[(unsigned char)a->list[i].text[0]] = true;
        words |= a->list[i].single_word;
        if (i && by_text(&a->list[i - 1], &a->list[i]) == 0)
            return KR_FAIL(KR_ERR_ARG, "added token \"%.80s\" is there twice",
                           a->list[i].text);
    }
    return words ? pattern_open(&a->word, word_class, false) : KR_OK;
}

const struct added_token *added_named(const struct added *a, const char *text)
{
    struct added_token key = { .text = (char *)(uintptr_t)text, .len = strlen(text) };

    return a->count ? bsearch(&key, a->list, a->count, sizeof *a->list, by_text) : NULL;
}

/* First of [low, high) whose byte number `at` is c or above; shorter texts come first. */
static size_t first_from(const struct added *a, size_t low, size_t high, size_t at, int c)
{
    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct added_token *t = &a->list[mid];

        if (t->len <= at || (unsigned char)t->text[at] < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The longest token at the start of text. */
static const struct added_token *longest(const struct added *a, const char *text,
                                         size_t len)
{
    const struct added_token *best = NULL;
    size_t low = 0, high = a->count;

    for (size_t i = 0; i < len && low < high; i++) {
        int c = (unsigned char)text[i];

        low = first_from(a, low, high, i, c);
        high = first_from(a, low, high, i, c + 1);
        if (low < high && a->list[low].len == i + 1) best = &a->list[low];
    }
    return best;
}

/* Is the one character of `len` bytes at text one of a word? */
static kr_status is_word(const struct added *a, struct pattern_work *w, const char *text,
                         int len, bool *out)
{
    size_t begin, end;

    *out = false;
    return len ? pattern_find(a->word, w, text, (size_t)len, 0, out, &begin, &end)
               : KR_OK;
}

static kr_status fits(const struct added *a, struct pattern_work *w, const char *text,
                      size_t len, size_t begin, size_t end, bool *out)
{
    bool before, after;
    uint32_t code;
    int n = utf8_get_last(text, begin, &code);

    TRY(is_word(a, w, text + begin - n, n, &before));
    TRY(is_word(a, w, text + end, utf8_get(text + end, len - end, &code), &after));
    *out = !before && !after;
    return KR_OK;
}

static size_t strip_left(const char *text, size_t floor, size_t at)
{
    uint32_t code;
    int n;

    while ((n = utf8_get_last(text + floor, at - floor, &code)) && utf8_is_space(code))
        at -= (size_t)n;
    return at;
}

static size_t strip_right(const char *text, size_t len, size_t at)
{
    uint32_t code;
    int n;

    while ((n = utf8_get(text + at, len - at, &code)) && utf8_is_space(code))
        at += (size_t)n;
    return at;
}

kr_status added_find(const struct added *a, struct pattern_work *w, const char *text,
                     size_t len, size_t from, bool specials,
                     const struct added_token **token, size_t *begin, size_t *end)
{
    const struct added_token *t;
    bool fit = true;

    *token = NULL;
    for (size_t i = from; a->count && i < len; i++) {
        if (!a->first[(unsigned char)text[i]]) continue;
        if (!(t = longest(a, text + i, len - i))) continue;
        if (t->single_word) TRY(fits(a, w, text, len, i, i + t->len, &fit));
        if (fit && (specials || !t->special)) {
            *begin = t->lstrip ? strip_left(text, from, i) : i;
            *end = t->rstrip ? strip_right(text, len, i + t->len) : i + t->len;
            *token = t;
            return KR_OK;
        }
        fit = true;
        i += t->len - 1;
    }
    return KR_OK;
}
