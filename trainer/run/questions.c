/* questions.c - read all, answer one by one. */
#include "trainer/run/questions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"

enum { FILE_MOST = 1 << 30 };

static kr_status add(struct questions *q, const char *line, size_t len, int64_t number,
                     bool answered)
{
    struct question one = { .object = object_parse(line, len) };
    const char *why = one.object ? NULL : "is not one JSON object";

    if (one.object && !record_read(q->record, one.object)) why = q->record->why;
    if (!why && !q->record->text) one.expected = record_answer(q->record);
    if (!why && answered && !one.expected) why = "has no answer to compare with";
    if (why) {
        cJSON_Delete(one.object);
        return KR_FAIL(KR_ERR_ARG, "%s:%" PRId64 ": %s", q->path, number, why);
    }
    TRY(mem_grow(&q->list, &q->room, (size_t)q->count + 1, sizeof *q->list, "questions"));
    q->list[q->count++] = one;
    return KR_OK;
}

static kr_status add_lines(struct questions *q, const char *at, const char *end,
                           bool answered)
{
    for (int64_t number = 1; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));

        if (!stop) stop = end;
        if ((size_t)(stop - at) > strspn(at, " \t\r"))
            TRY(add(q, at, (size_t)(stop - at), number, answered));
        at = stop + 1;
    }
    return q->count ? KR_OK : KR_FAIL(KR_ERR_ARG, "%s: holds no record", q->path);
}

kr_status questions_read(struct questions *q, const char *path, bool answered)
{
    char *text = NULL;
    size_t bytes;
    kr_status st;

    q->path = path;
    q->started = q->told = clock_now();
    TRY(mem_alloc(&q->record, 1, sizeof *q->record, "record"));
    st = fs_read_all(path, &text, &bytes, FILE_MOST);
    if (st == KR_OK) st = add_lines(q, text, text + bytes, answered);
    mem_free(text);
    return st == KR_OK || st == KR_ERR_MEM ? st : KR_ERR_ARG;
}

void questions_free(struct questions *q)
{
    for (int64_t i = 0; i < q->count; i++) {
        cJSON_Delete(q->list[i].object);
        free(q->list[i].generated);
    }
    if (q->record) record_free(q->record);
    mem_free(q->record);
    mem_free(q->list);
    *q = (struct questions){ 0 };
}

kr_status questions_answer(struct questions *q, int64_t i, struct voice *v,
                           struct writer_how how)
{
    struct question *one = &q->list[i];

    (void)record_read(q->record, one->object); /* as when it was read */
    if (!q->record->text) (void)record_answer(q->record);
    TRY(voice_record(v, q->record));
    TRY(voice_answer(v, how, NULL));
    one->generated = strdup(v->answer.at);
    return one->generated ? KR_OK : KR_FAIL(KR_ERR_MEM, "no memory for an answer");
}

/* The text without white space around it. */
static const char *core(const char *text, size_t *len)
{
    text += strspn(text, " \t\r\n");
    *len = strlen(text);
    while (*len && strchr(" \t\r\n", text[*len - 1]))
        --*len;
    return text;
}

bool questions_right(const struct questions *q, int64_t i)
{
    const struct question *one = &q->list[i];
    size_t a, b;
    const char *said, *wanted;

    if (!one->generated || !one->expected) return false;
    said = core(one->generated, &a);
    wanted = core(one->expected, &b);
    return a == b && memcmp(said, wanted, a) == 0;
}

void questions_print(const struct questions *q, int64_t i, struct mem_text *out)
{
    const struct question *one = &q->list[i];
    char *line;

    cJSON_DeleteItemFromObjectCaseSensitive(one->object, "generated");
    (void)cJSON_AddStringToObject(one->object, "generated", one->generated);
    line = cJSON_PrintUnformatted(one->object);
    if (line) mem_printf(out, "%s\n", line);
    out->failed |= !line;
    cJSON_free(line);
}

void questions_tell(struct questions *q, int64_t done)
{
    double now = clock_now();
    bool terminal = isatty(STDERR_FILENO), last = done == q->count;

    if (!last && now - q->told < (terminal ? 0.2 : 5)) return;
    q->told = now;
    fprintf(stderr, "%sanswered %" PRId64 " of %" PRId64 ", %.1f/s%s",
            terminal ? "\r\033[K" : "", done, q->count,
            (double)done / (now - q->started + 1e-9), terminal && !last ? "" : "\n");
}
