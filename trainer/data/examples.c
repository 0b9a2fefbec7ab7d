/* examples.c - records to conversations, conversations to tokens, tokens to rows. */
#include "trainer/data/examples.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "trainer/data/record.h"

enum { FILE_MOST = 1 << 30, WORD = 64 };

struct example {
    size_t at;    /* in ids and learn */
    int64_t len;  /* tokens */
    int64_t next; /* in its row; -1: the last */
};

struct examples {
    struct ids ids;
    struct mem_text learn;
    struct example *list;
    size_t count, room;
    int64_t *rows; /* first example of each */
    int64_t row_count, context;
    char about[FS_PATH + 160];
};

/* ---- tokens ----------------------------------------------------------------------------- */

struct reader {
    const struct examples_config *c;
    struct examples *x;
    struct encoder *e;
    const struct chat_template *template;
    struct record record;
    int64_t too_long, empty;
};

/* All of a text is learned, and the end of it. */
static kr_status put_whole(struct reader *r, const char *text)
{
    struct examples *x = r->x;
    size_t from = x->ids.count, begun;
    int32_t end = tokenizer_end(r->c->tokenizer);

    TRY(tokenizer_begin(r->c->tokenizer, &x->ids));
    begun = x->ids.count - from;
    TRY(encoder_add(r->e, text, strlen(text), ENCODE_PLAIN, &x->ids));
    if (end >= 0) TRY(ids_add(&x->ids, &end, 1));
    for (size_t i = from; i < x->ids.count; i++)
        mem_append(&x->learn, &(char){ i - from >= begun }, 1);
    return KR_OK;
}

static bool learns(const struct examples *x, size_t from)
{
    for (size_t i = from + 1; i < x->ids.count; i++)
        if (x->learn.at[i]) return true;
    return false;
}

/* Keep what was just appended, or take it back. */
static kr_status keep(struct reader *r, size_t from)
{
    struct examples *x = r->x;
    int64_t len = (int64_t)(x->ids.count - from);
    bool too_long = len > r->c->context + 1, empty = !learns(x, from);

    if (x->learn.failed) return KR_FAIL(KR_ERR_MEM, "no memory for examples");
    if (too_long || empty) {
        r->too_long += too_long;
        r->empty += !too_long;
        x->ids.count = x->learn.len = from;
        return KR_OK;
    }
    TRY(mem_grow(&x->list, &x->room, x->count + 1, sizeof *x->list, "examples"));
    x->list[x->count++] = (struct example){ from, len, -1 };
    return KR_OK;
}

/* There is something to learn from, be it left out. */
static bool has_answer(struct record *k)
{
    bool any = k->text != NULL;

    for (int i = 0; i < k->count; i++)
        any |= k->turns[i].role == CHAT_ASSISTANT;
    if (!any) k->why = "has no answer to learn";
    return any;
}

static kr_status add_line(struct reader *r, const char *line, size_t len, int64_t number)
{
    struct examples *x = r->x;
    cJSON *j = object_parse(line, len);
    size_t from = x->ids.count;
    kr_status st = KR_OK;

    if (!j)
        st = KR_FAIL(KR_ERR_ARG, "%s:%" PRId64 ": is not one JSON object", r->c->path,
                     number);
    else if (!record_read(&r->record, j) || !has_answer(&r->record))
        st = KR_FAIL(KR_ERR_ARG, "%s:%" PRId64 ": %s", r->c->path, number, r->record.why);
    else if (r->record.text)
        st = put_whole(r, r->record.text);
    else
        st = chat_render(r->template, r->c->tokenizer, r->e, r->record.turns,
                         r->record.count, false, &x->ids, &x->learn);
    cJSON_Delete(j);
    return st == KR_OK ? keep(r, from) : st;
}

static bool blank(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r", *at))
        at++;
    return at == end;
}

/* The lines number `from` to `to` of those that are not blank; counts all of them. */
static kr_status add_lines(struct reader *r, const char *text, size_t bytes, int64_t from,
                           int64_t to, int64_t *count)
{
    const char *at = text, *end = text + bytes;

    *count = 0;
    for (int64_t number = 1; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));

        if (!stop) stop = end;
        if (!blank(at, stop)) {
            if (*count >= from && *count < to)
                TRY(add_line(r, at, (size_t)(stop - at), number));
            ++*count;
        }
        at = stop + 1;
    }
    return KR_OK;
}

static kr_status read_all(struct reader *r, const char *text, size_t bytes)
{
    const struct examples_config *c = r->c;
    int64_t lines, cut, unused;

    TRY(add_lines(r, text, bytes, 0, 0, &lines));
    cut = c->part == TOKENS_ALL ? lines : lines - (int64_t)((double)lines * c->held_out);
    if (c->part == TOKENS_HELD_OUT)
        TRY(add_lines(r, text, bytes, cut, lines, &unused));
    else
        TRY(add_lines(r, text, bytes, 0, cut, &unused));
    if (r->too_long)
        LOG_WARNING("%s: %" PRId64 " examples are longer than model.context = %" PRId64
                    " and left out",
                    c->path, r->too_long, c->context);
    if (r->empty)
        LOG_WARNING("%s: %" PRId64 " examples have nothing to learn and are left out",
                    c->path, r->empty);
    if (r->x->count) return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "%s: %s", c->path,
                   c->part == TOKENS_HELD_OUT ? "holds no example out"
                                              : "holds no example");
}

static kr_status read_file(struct reader *r)
{
    char *text = NULL;
    size_t bytes;
    kr_status st;

    TRY(fs_read_all(r->c->path, &text, &bytes, FILE_MOST));
    st = encoder_open(&r->e, r->c->tokenizer);
    if (st == KR_OK) st = chat_choose(&r->template, r->c->template, r->c->tokenizer);
    if (st == KR_OK) st = read_all(r, text, bytes);
    encoder_close(r->e);
    record_free(&r->record);
    mem_free(text);
    return st;
}

/* ---- rows ------------------------------------------------------------------------------- */

/* Places that an example takes: its last token is only a label. */
static int64_t places(const struct example *e) { return e->len - 1; }

/* Rows that have room, by how much: a list for each, and a bit where a list is not empty. */
struct shelf {
    int64_t *head, *next; /* rows; -1: end */
    uint64_t *bits;
    int64_t room;
};

static kr_status shelf_open(struct shelf *s, int64_t room, size_t rows)
{
    s->room = room;
    TRY(mem_alloc(&s->head, (size_t)room + 1, sizeof *s->head, "rows"));
    TRY(mem_alloc(&s->next, rows, sizeof *s->next, "rows"));
    TRY(mem_alloc(&s->bits, (size_t)room / WORD + 1, sizeof *s->bits, "rows"));
    for (int64_t i = 0; i <= room; i++)
        s->head[i] = -1;
    return KR_OK;
}

static void shelf_close(struct shelf *s)
{
    mem_free(s->head);
    mem_free(s->next);
    mem_free(s->bits);
}

static void shelve(struct shelf *s, int64_t row, int64_t room)
{
    s->next[row] = s->head[room];
    s->head[room] = row;
    s->bits[room / WORD] |= 1ull << room % WORD;
}

/* Take the row with the least room that is enough; -1: none. */
static int64_t take(struct shelf *s, int64_t need, int64_t *room)
{
    uint64_t word = s->bits[need / WORD] & ~0ull << need % WORD;
    int64_t i = need / WORD, row;

    while (!word && ++i <= s->room / WORD)
        word = s->bits[i];
    if (!word) return -1;
    *room = i * WORD + __builtin_ctzll(word);
    row = s->head[*room];
    s->head[*room] = s->next[row];
    if (s->head[*room] < 0) s->bits[i] &= ~(1ull << *room % WORD);
    return row;
}

static int longest_first(const void *a, const void *b, void *arg)
{
    const struct example *list = arg;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;

    if (list[i].len != list[j].len) return list[i].len > list[j].len ? -1 : 1;
    return (i > j) - (i < j);
}

/* order: longest first.  An example goes to the front of its row's list. */
static kr_status fill_rows(struct examples *x, const int64_t *order)
{
    struct shelf s = { 0 };
    kr_status st = shelf_open(&s, x->context, x->count);

    for (size_t i = 0; i < x->count && st == KR_OK; i++) {
        struct example *e = &x->list[order[i]];
        int64_t room = x->context, row = take(&s, places(e), &room);

        if (row < 0) {
            row = x->row_count++;
            room = x->context;
            x->rows[row] = -1;
        }
        e->next = x->rows[row];
        x->rows[row] = order[i];
        if (room > places(e)) shelve(&s, row, room - places(e));
    }
    shelf_close(&s);
    return st;
}

static kr_status pack(struct examples *x)
{
    int64_t *order = NULL;
    kr_status st;

    TRY_OR(st, mem_alloc(&x->rows, x->count, sizeof *x->rows, "rows"), done);
    TRY_OR(st, mem_alloc(&order, x->count, sizeof *order, "order of examples"), done);
    for (size_t i = 0; i < x->count; i++)
        order[i] = (int64_t)i;
    qsort_r(order, x->count, sizeof *order, longest_first, x->list);
    st = fill_rows(x, order);
done:
    mem_free(order);
    return st;
}

/* ---- front ------------------------------------------------------------------------------ */

static void describe(struct examples *x, const struct reader *r)
{
    int64_t learned = 0;

    for (size_t i = 0; i < x->learn.len; i++)
        learned += x->learn.at[i];
    snprintf(x->about, sizeof x->about,
             "%s: %zu examples in %" PRId64 " rows, %zu tokens, %" PRId64
             " of them learned, template %s",
             r->c->path, x->count, x->row_count, x->ids.count, learned,
             chat_name(r->template));
}

kr_status examples_open(struct examples **out, const struct examples_config *c)
{
    struct examples *x = NULL;
    struct reader *r = NULL;
    kr_status st;

    TRY_OR(st, mem_alloc(&x, 1, sizeof *x, "examples"), done);
    TRY_OR(st, mem_alloc(&r, 1, sizeof *r, "reader of examples"), done);
    x->context = c->context;
    r->c = c;
    r->x = x;
    TRY_OR(st, read_file(r), done);
    TRY_OR(st, pack(x), done);
    describe(x, r);
    *out = x;
done:
    mem_free(r);
    if (st != KR_OK) examples_close(x);
    return st == KR_ERR_IO || st == KR_ERR_DATA ? KR_ERR_ARG : st;
}

void examples_close(struct examples *x)
{
    if (!x) return;
    ids_free(&x->ids);
    mem_text_free(&x->learn);
    mem_free(x->list);
    mem_free(x->rows);
    mem_free(x);
}

int64_t examples_rows(const struct examples *x) { return x->row_count; }
const char *examples_describe(const struct examples *x) { return x->about; }

void examples_row(const struct examples *x, int64_t i, int32_t ignore, int32_t *token,
                  int32_t *label, int32_t *start)
{
    int64_t at = 0;

    for (int64_t k = x->rows[i]; k >= 0; k = x->list[k].next) {
        const struct example *e = &x->list[k];
        const int32_t *id = x->ids.at + e->at;
        int64_t first = at;

        for (int64_t n = 0; n < places(e); n++, at++) {
            token[at] = id[n];
            label[at] = x->learn.at[e->at + (size_t)n + 1] ? id[n + 1] : ignore;
            start[at] = (int32_t)first;
        }
    }
    for (; at < x->context; at++) {
        token[at] = 0;
        label[at] = ignore;
        start[at] = (int32_t)at;
    }
}
