/* choices.c - two kinds of files, one list. */
#include "trainer/data/choices.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "trainer/data/object.h"

enum {
    FILE_MOST = 1 << 30,
    LLMC_HEADER = 1024,
    LLMC_MAGIC = 20240522,
    LLMC_START = 65535, /* the word that begins an example */
    LLMC_FIXED =
        6 /* words before the context: start, bytes, index, label, count, length */
};

struct reader {
    struct choices *c;
    const char *path;
    struct encoder *e;
    int64_t vocab;
};

static kr_status bad(const struct reader *r, const char *unit, int64_t number,
                     const char *why)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %s %" PRId64 ": %s", r->path, unit, number, why);
}

static kr_status keep(struct reader *r, const struct choice_question *q)
{
    struct choices *c = r->c;

    TRY(mem_grow(&c->list, &c->room, (size_t)c->count + 1, sizeof *c->list, "questions"));
    c->list[c->count++] = *q;
    return KR_OK;
}

static kr_status check_ids(const struct reader *r)
{
    for (size_t i = 0; i < r->c->ids.count; i++)
        if (r->c->ids.at[i] >= r->vocab)
            return KR_FAIL(KR_ERR_ARG,
                           "%s: token %d is beyond the vocabulary of model.vocab = "
                           "%" PRId64,
                           r->path, r->c->ids.at[i], r->vocab);
    return KR_OK;
}

/* ---- JSON lines ------------------------------------------------------------------------- */

static const char *first_text(const cJSON *j, const char *const *names)
{
    for (; *names; names++)
        if (object_text(j, *names)) return object_text(j, *names);
    return NULL;
}

static int64_t label_of(const cJSON *j)
{
    const char *text = object_text(j, "label");
    int64_t label = object_count(j, "label");

    if (label < 0) label = object_count(j, "answer");
    if (text && text[0] >= '0' && text[0] <= '9' && !text[1]) label = text[0] - '0';
    return label;
}

static kr_status put(struct reader *r, const char *text, size_t len, unsigned flags,
                     int64_t *at, int64_t *count)
{
    *at = (int64_t)r->c->ids.count;
    TRY(encoder_add(r->e, text, len, flags, &r->c->ids));
    *count = (int64_t)r->c->ids.count - *at;
    return KR_OK;
}

static kr_status put_ending(struct reader *r, const char *text, struct choice_question *q)
{
    struct mem_text spaced = { 0 };
    kr_status st;

    mem_printf(&spaced, " %s", text);
    st = spaced.failed ? KR_FAIL(KR_ERR_MEM, "no memory for a question")
                       : put(r, spaced.at, spaced.len, ENCODE_PLAIN, &q->ending[q->count],
                             &q->ending_len[q->count]);
    q->count++;
    mem_text_free(&spaced);
    return st;
}

static kr_status add_object(struct reader *r, const cJSON *j, int64_t number)
{
    static const char *const contexts[] = { "ctx", "query", "question", NULL };
    const char *context = first_text(j, contexts);
    const cJSON *endings = object_member(j, "endings"), *one;
    struct choice_question q = { .label = (int32_t)label_of(j) };

    if (!endings) endings = object_member(j, "choices");
    if (!context || !cJSON_IsArray(endings))
        return bad(r, "line", number, "has no ctx or question, or no endings or choices");
    TRY(put(r, context, strlen(context), ENCODE_TEMPLATE, &q.context, &q.context_len));
    cJSON_ArrayForEach(one, endings)
    {
        if (!cJSON_IsString(one) || q.count == CHOICES_MOST)
            return bad(r, "line", number, "an ending is no text, or there are too many");
        TRY(put_ending(r, one->valuestring, &q));
    }
    if (q.count < 2 || label_of(j) < 0 || label_of(j) >= q.count)
        return bad(r, "line", number, "label is none of the endings");
    return keep(r, &q);
}

static kr_status read_lines(struct reader *r, const char *at, const char *end)
{
    for (int64_t number = 1; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        kr_status st = KR_OK;
        cJSON *j;

        if (!stop) stop = end;
        if ((size_t)(stop - at) > strspn(at, " \t\r")) {
            j = object_parse(at, (size_t)(stop - at));
            st = j ? add_object(r, j, number)
                   : bad(r, "line", number, "is not one JSON object");
            cJSON_Delete(j);
        }
        if (st != KR_OK) return st;
        at = stop + 1;
    }
    return KR_OK;
}

/* ---- llm.c ------------------------------------------------------------------------------ */

/* Words of one example, and where reading stands. */
struct cursor {
    const char *at, *end;
};

static bool take(struct cursor *c, int64_t words, struct ids *out)
{
    if (words < 0 || (c->end - c->at) / 2 < words) return false;
    for (int64_t i = 0; i < words; i++, c->at += 2) {
        uint16_t word;
        int32_t id;

        memcpy(&word, c->at, sizeof word);
        id = word;
        if (ids_add(out, &id, 1) != KR_OK) return false;
    }
    return true;
}

static bool take_tokens(struct cursor *c, int64_t words, struct ids *ids, int64_t *at,
                        int64_t *count)
{
    *at = (int64_t)ids->count;
    *count = words;
    return words > 0 && take(c, words, ids);
}

static kr_status add_example(struct reader *r, struct cursor *c, struct ids *head,
                             int64_t number)
{
    struct choice_question q = { 0 };
    const char *start = c->at;
    bool good;

    head->count = 0;
    good = take(c, LLMC_FIXED, head) && head->at[0] == LLMC_START;
    if (good) {
        q.label = head->at[3];
        q.count = head->at[4];
    }
    good = good && q.count >= 2 && q.count <= CHOICES_MOST && q.label < q.count &&
           take_tokens(c, head->at[5], &r->c->ids, &q.context, &q.context_len);
    for (int32_t i = 0; i < q.count && good; i++) {
        head->count = 0;
        good = take(c, 1, head) &&
               take_tokens(c, head->at[0], &r->c->ids, &q.ending[i], &q.ending_len[i]);
    }
    if (!good || c->at == start)
        return bad(r, "example", number, "is not as its head says");
    return keep(r, &q);
}

static kr_status read_llmc(struct reader *r, const char *text, size_t bytes)
{
    struct cursor c = { text + LLMC_HEADER, text + bytes };
    struct ids head = { 0 };
    int32_t header[3];
    kr_status st = KR_OK;

    if (bytes < LLMC_HEADER) return bad(r, "header", 0, "is short");
    memcpy(header, text, sizeof header);
    if (header[0] != LLMC_MAGIC || header[1] != 1)
        return bad(r, "header", 0, "is not that of an evaluation file of llm.c");
    for (int32_t i = 0; i < header[2] && st == KR_OK; i++)
        st = add_example(r, &c, &head, i);
    if (st == KR_OK && c.at != c.end)
        st = bad(r, "example", header[2], "is more than the header counts");
    ids_free(&head);
    return st;
}

/* ---- front ------------------------------------------------------------------------------ */

static kr_status read_text(struct reader *r, const char *text, size_t bytes,
                           const struct tokenizer *t)
{
    size_t n = strlen(r->path);
    kr_status st;

    if (n > 4 && strcmp(r->path + n - 4, ".bin") == 0) return read_llmc(r, text, bytes);
    if (!t)
        return KR_FAIL(KR_ERR_ARG,
                       "%s: this model has no tokenizer; name one: --set "
                       "data.tokenizer=PATH",
                       r->path);
    TRY(encoder_open(&r->e, t));
    st = read_lines(r, text, text + bytes);
    encoder_close(r->e);
    return st;
}

kr_status choices_read(struct choices *c, const char *path, const struct tokenizer *t,
                       int64_t vocab)
{
    struct reader r = { .c = c, .path = path, .vocab = vocab };
    char *text = NULL;
    size_t bytes;
    kr_status st = fs_read_all(path, &text, &bytes, FILE_MOST);

    if (st == KR_OK) st = read_text(&r, text, bytes, t);
    if (st == KR_OK) st = check_ids(&r);
    if (st == KR_OK && c->count == 0)
        st = KR_FAIL(KR_ERR_ARG, "%s: holds no question", path);
    mem_free(text);
    return st == KR_OK || st == KR_ERR_MEM ? st : KR_ERR_ARG;
}

void choices_free(struct choices *c)
{
    ids_free(&c->ids);
    mem_free(c->list);
    *c = (struct choices){ 0 };
}
