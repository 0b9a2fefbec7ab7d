/* documents.c - reading ahead to the next place to cut; JSON lines without losing NUL. */
#include "trainer/data/documents.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "trainer/data/object.h"

enum { BLOCK = 1 << 20, BLOCK_MOST = 1 << 30 };

struct documents {
    char *const *paths;
    int count, at; /* the file that is open, or the next */
    enum tokenizer_cut cut;
    FILE *in;
    bool lines, any; /* of the file: JSON lines; it had a byte */
    int64_t line;
    struct mem_text carry; /* read, but behind the cut */
};

kr_status documents_open(struct documents **out, char *const *paths, int count,
                         enum tokenizer_cut cut)
{
    TRY(mem_alloc(out, 1, sizeof **out, "documents"));
    **out = (struct documents){ .paths = paths, .count = count, .cut = cut };
    return KR_OK;
}

static void close_file(struct documents *d)
{
    if (d->in && d->in != stdin) fclose(d->in);
    d->in = NULL;
}

void documents_close(struct documents *d)
{
    if (!d) return;
    close_file(d);
    mem_text_free(&d->carry);
    mem_free(d);
}

int64_t documents_bytes(const struct documents *d)
{
    int64_t sum = 0;
    struct stat s;

    for (int i = 0; i < d->count; i++) {
        if (stat(d->paths[i], &s) != 0 || !S_ISREG(s.st_mode)) return -1;
        sum += s.st_size;
    }
    return sum;
}

/* ---- blocks ----------------------------------------------------------------------------- */

static kr_status unreadable(const char *path)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %s", path, strerror(errno));
}

static kr_status open_file(struct documents *d)
{
    const char *path = d->paths[d->at];
    size_t n = strlen(path);

    d->lines = n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
    d->any = false;
    d->line = 1;
    d->in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    return d->in ? KR_OK : unreadable(path);
}

static bool is_solid(int n, uint32_t code) { return n > 0 && !utf8_is_space(code); }

/* The last place to cut; 0: none. */
static size_t cut_place(const struct documents *d, const struct mem_text *t)
{
    if (!d->lines && d->cut == CUT_ANYWHERE) return t->len;
    if (!d->lines && d->cut == CUT_NOWHERE) return 0;
    for (size_t at = t->len; at > 0; at--) {
        uint32_t before, after;

        if (t->at[at - 1] != '\n') continue;
        if (d->lines) return at;
        if (is_solid(utf8_get_last(t->at, at - 1, &before), before) &&
            is_solid(utf8_get(t->at + at, t->len - at, &after), after))
            return at;
    }
    return 0;
}

/* Read on until there is a place to cut or the file ends. */
static kr_status fill(struct documents *d, struct mem_text *t, size_t *cut, bool *end)
{
    const char *path = d->paths[d->at];
    char buffer[1 << 16];
    size_t want = BLOCK, n = 1;

    *cut = 0;
    while (*cut == 0 && n > 0) {
        while (t->len < want && (n = fread(buffer, 1, sizeof buffer, d->in)) > 0)
            mem_append(t, buffer, n);
        if (ferror(d->in)) return unreadable(path);
        if (t->failed || t->len > BLOCK_MOST)
            return KR_FAIL(KR_ERR_ARG, "%s: a document or line beyond 1 GiB", path);
        if (n > 0) *cut = cut_place(d, t);
        want = t->len * 2;
    }
    *end = n == 0;
    return KR_OK;
}

static int64_t newlines(const struct mem_text *t)
{
    int64_t n = 0;

    for (size_t i = 0; i < t->len; i++)
        n += t->at[i] == '\n';
    return n;
}

/* The next part of the file that is open; the file is closed behind its last. */
static kr_status next_part(struct documents *d, struct block *b)
{
    struct mem_text old = b->raw;
    size_t cut;

    b->raw = d->carry;
    d->carry = old;
    d->carry.len = 0;
    TRY(fill(d, &b->raw, &cut, &b->ends));
    if (!b->ends) {
        mem_append(&d->carry, b->raw.at + cut, b->raw.len - cut);
        b->raw.len = cut;
        b->raw.at[cut] = '\0';
    }
    b->path = d->paths[d->at];
    b->lines = d->lines;
    b->first_line = d->line;
    if (d->lines) d->line += newlines(&b->raw);
    d->any |= b->raw.len > 0;
    if (b->ends) {
        close_file(d);
        d->at++;
    }
    return d->carry.failed ? KR_FAIL(KR_ERR_MEM, "no memory to read %s", b->path) : KR_OK;
}

kr_status documents_next(struct documents *d, struct block *out, bool *more)
{
    while (d->at < d->count) {
        if (!d->in) TRY(open_file(d));
        TRY(next_part(d, out));
        /* the end of a document may come with no text left, but not without any */
        if (out->raw.len || (out->ends && d->any && !out->lines)) {
            *more = true;
            return KR_OK;
        }
    }
    *more = false;
    return KR_OK;
}

/* ---- texts of a block ------------------------------------------------------------------- */

/* cJSON ends a text at its first NUL.  So replace each, written \u0000 or as it is, by a
 * byte that the line does not have and that no escape yields.  The line gets shorter;
 * false: it has all of these bytes. */
static bool hide_nul(char *line, size_t *bytes, char *nul)
{
    size_t to = 0;
    int mark = 0xff;

    while (mark >= 0xf8 && memchr(line, mark, *bytes))
        mark--;
    for (size_t i = 0; i < *bytes; i++) {
        if (line[i] == '\0') {
            line[to++] = (char)mark;
        } else if (line[i] != '\\' || i + 1 == *bytes) {
            line[to++] = line[i];
        } else if (*bytes - i >= 6 && memcmp(line + i + 1, "u0000", 5) == 0) {
            line[to++] = (char)mark;
            i += 5;
        } else {
            line[to++] = line[i++];
            line[to++] = line[i];
        }
    }
    *bytes = to;
    *nul = (char)mark;
    return mark >= 0xf8;
}

static void show_nul(char *text, size_t len, char nul)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] == nul) text[i] = '\0';
}

static bool only_space(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r\n", *at))
        at++;
    return at == end;
}

static kr_status one_line(char *line, size_t len, const char *key, documents_fn fn,
                          void *arg, const char **why)
{
    const char *end = NULL;
    kr_status st = KR_ERR_ARG;
    cJSON *j;
    char *text, nul;

    *why = "is no JSON, nor UTF-8";
    if (!hide_nul(line, &len, &nul)) return KR_ERR_ARG;
    j = cJSON_ParseWithLengthOpts(line, len, &end, false);
    text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
    if (!j || !only_space(end, line + len)) {
        *why = "is not one JSON object";
    } else if (!text) {
        *why = "no text under";
    } else {
        size_t n = strlen(text);

        *why = NULL;
        show_nul(text, n, nul);
        st = fn(arg, text, n, true);
    }
    cJSON_Delete(j);
    return st;
}

static void tell(struct mem_text *error, const struct block *b, int64_t number,
                 const char *why, const char *key)
{
    bool about_key = strcmp(why, "no text under") == 0;

    mem_printf(error, "%s:%" PRId64 ": %s", b->path, number, why);
    if (about_key) mem_printf(error, " \"%s\"", key);
}

kr_status documents_each(struct block *b, const char *key, documents_fn fn, void *arg,
                         struct mem_text *error)
{
    char *at = b->raw.at, *end = at + b->raw.len;
    int64_t number = b->first_line;

    if (!b->lines) return fn(arg, at ? at : "", b->raw.len, b->ends);
    for (; at < end; number++) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *why = NULL;
        kr_status st = KR_OK;

        if (!stop) stop = end;
        if (!only_space(at, stop))
            st = one_line(at, (size_t)(stop - at), key, fn, arg, &why);
        if (why) tell(error, b, number, why, key);
        if (st != KR_OK) return st;
        at = stop + 1;
    }
    return KR_OK;
}
