/* mem.c - checked allocation, growing text. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Is this the allocation that KILORANK_MEM_FAULT names? */
static int is_faulty(void)
{
    static atomic_long seen;
    const char *text = getenv("KILORANK_MEM_FAULT");

    return text && atomic_fetch_add(&seen, 1) + 1 == atol(text);
}

kr_status mem_alloc(void *out, size_t count, size_t size, const char *what)
{
    size_t bytes;
    void *at = NULL;

    if (count == 0 || size == 0) {
        memcpy(out, &at, sizeof at);
        return KR_OK;
    }
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - MEM_ALIGN)
        return KR_FAIL(KR_ERR_MEM, "%s: %zu times %zu bytes is too much", what, count,
                       size);
    if (is_faulty() ||
        !(at = aligned_alloc(MEM_ALIGN, (bytes + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN)))
        return KR_FAIL(KR_ERR_MEM, "%s: no memory for %zu bytes", what, bytes);
    memset(at, 0, bytes);
    memcpy(out, &at, sizeof at);
    return KR_OK;
}

void mem_free(void *at) { free(at); }

kr_status mem_grow(void *at, size_t *room, size_t want, size_t size, const char *what)
{
    size_t more = *room < 8 ? 16 : *room * 2;
    void *old, *new = NULL;

    if (want <= *room) return KR_OK;
    if (more < want) more = want;
    TRY(mem_alloc(&new, more, size, what));
    memcpy(&old, at, sizeof old);
    if (*room) memcpy(new, old, *room * size);
    mem_free(old);
    memcpy(at, &new, sizeof new);
    *room = more;
    return KR_OK;
}

/* Room for `more` bytes and a NUL. */
static int grow(struct mem_text *t, size_t more)
{
    size_t want = t->len + more + 1, room = t->room ? t->room : 256;
    char *at;

    if (t->failed) return 0;
    while (room < want)
        room *= 2;
    if (room == t->room) return 1;
    if (!(at = realloc(t->at, room))) {
        t->failed = 1;
        return 0;
    }
    t->at = at;
    t->room = room;
    return 1;
}

void mem_append(struct mem_text *t, const void *from, size_t bytes)
{
    if (!grow(t, bytes)) return;
    memcpy(t->at + t->len, from, bytes);
    t->len += bytes;
    t->at[t->len] = '\0';
}

void mem_printf(struct mem_text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !grow(t, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(t->at + t->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
}

void mem_text_free(struct mem_text *t)
{
    free(t->at);
    *t = (struct mem_text){ 0 };
}
