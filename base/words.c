/* words.c - open addressing over a list of entries. */
#include "base/words.h"

#include <string.h>

#include "base/hash.h"

enum { LONGEST = 1 << 30, MOST = INT32_MAX };

/* The slot of a string, or the free one where it belongs. */
static size_t slot_of(const struct words *w, uint64_t hash, const void *at, size_t len)
{
    size_t mask = w->slot_count - 1, i = hash & mask;

    for (; w->slots[i]; i = (i + 1) & mask) {
        const struct words_entry *e = &w->list[w->slots[i] - 1];

        if (e->hash == hash && e->len == len && memcmp(w->bytes + e->at, at, len) == 0)
            break;
    }
    return i;
}

int64_t words_find(const struct words *w, const void *at, size_t len)
{
    if (w->count == 0) return -1;
    return (int64_t)w->slots[slot_of(w, hash64(at, len), at, len)] - 1;
}

/* Twice the slots, at most half of them taken. */
static kr_status spread(struct words *w)
{
    size_t count = w->slot_count ? w->slot_count * 2 : 64;
    uint32_t *slots = NULL;

    TRY(mem_alloc(&slots, count, sizeof *slots, "table of words"));
    for (int64_t k = 0; k < w->count; k++) {
        size_t i = w->list[k].hash & (count - 1);

        while (slots[i])
            i = (i + 1) & (count - 1);
        slots[i] = (uint32_t)k + 1;
    }
    mem_free(w->slots);
    w->slots = slots;
    w->slot_count = count;
    return KR_OK;
}

kr_status words_add(struct words *w, const void *at, size_t len, int64_t *number)
{
    uint64_t hash = hash64(at, len);
    size_t i;

    if (len > LONGEST || w->count == MOST)
        return KR_FAIL(KR_ERR_MEM, "a string of %zu bytes among %lld is too much", len,
                       (long long)w->count);
    if ((size_t)w->count * 2 >= w->slot_count) TRY(spread(w));
    i = slot_of(w, hash, at, len);
    if (w->slots[i]) {
        *number = (int64_t)w->slots[i] - 1;
        return KR_OK;
    }
    TRY(mem_grow(&w->list, &w->room, (size_t)w->count + 1, sizeof *w->list, "words"));
    TRY(mem_grow(&w->bytes, &w->bytes_room, w->used + len + 1, 1, "words"));
    memcpy(w->bytes + w->used, at, len);
    w->list[w->count] = (struct words_entry){ hash, w->used, (uint32_t)len };
    w->used += len;
    w->slots[i] = (uint32_t)++w->count;
    *number = w->count - 1;
    return KR_OK;
}

const char *words_text(const struct words *w, int64_t number, size_t *len)
{
    *len = w->list[number].len;
    return w->bytes + w->list[number].at;
}

void words_clear(struct words *w)
{
    if (w->slots) memset(w->slots, 0, w->slot_count * sizeof *w->slots);
    w->count = 0;
    w->used = 0;
}

void words_free(struct words *w)
{
    mem_free(w->list);
    mem_free(w->slots);
    mem_free(w->bytes);
    *w = (struct words){ 0 };
}
