/* eval_match.c - questions dealt out in turn, answers gathered by rank 0. */
#include "trainer/run/eval_match.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "trainer/run/questions.h"

static kr_status answer_own(struct questions *q, struct voice *v, struct comm *c,
                            int64_t tokens)
{
    struct writer_how how = { .tokens = tokens };
    int32_t rank = comm_rank(c), size = comm_size(c);

    for (int64_t i = rank; i < q->count; i += size) {
        TRY(questions_answer(q, i, v, how));
        if (rank == 0) questions_tell(q, i + size < q->count ? i + 1 : q->count);
    }
    return KR_OK;
}

/* Each rank's answers as one text of lines "number JSON-string", for rank 0 to take. */
static kr_status gather(struct questions *q, struct comm *c)
{
    struct mem_text mine = { 0 };
    int32_t rank = comm_rank(c), size = comm_size(c);
    char *all = NULL, *at;
    kr_status st;

    mem_printf(&mine, "[");
    for (int64_t i = rank; i < q->count; i += size) {
        cJSON *s = cJSON_CreateString(q->list[i].generated);
        char *text = cJSON_PrintUnformatted(s);

        mem_printf(&mine, "%s%s", mine.len > 1 ? "," : "", text ? text : "\"\"");
        cJSON_free(text);
        cJSON_Delete(s);
    }
    mem_printf(&mine, "]");
    st =
        comm_agree(c, mine.failed ? KR_FAIL(KR_ERR_MEM, "no memory for answers") : KR_OK);
    if (st == KR_OK) st = comm_gather_texts(c, mine.at, &all);
    at = all;
    for (int32_t r = 0; r < size && at && st == KR_OK; r++, at += strlen(at) + 1) {
        cJSON *list = cJSON_Parse(at), *s;
        int64_t i = r;

        cJSON_ArrayForEach(s, list)
        {
            free(q->list[i].generated);
            q->list[i].generated = strdup(s->valuestring);
            i += size;
        }
        cJSON_Delete(list);
    }
    mem_free(all);
    mem_text_free(&mine);
    return st;
}

static kr_status report(const struct questions *q, int64_t step, const char *out)
{
    struct mem_text text = { 0 };
    int64_t right = 0;
    kr_status st = KR_OK;

    for (int64_t i = 0; i < q->count; i++) {
        right += questions_right(q, i);
        questions_print(q, i, &text);
    }
    printf("{\"step\": %" PRId64 ", \"examples\": %" PRId64 ", \"exact\": %" PRId64
           ", \"exact_match\": %.6g}\n",
           step, q->count, right, (double)right / (double)q->count);
    if (out[0]) st = fs_replace(out, text.at, text.len);
    mem_text_free(&text);
    return st;
}

kr_status eval_match(struct loaded *l, struct comm *c, const char *path, int64_t tokens,
                     const char *out)
{
    struct questions q = { 0 };
    struct voice v = { 0 };
    bool first = comm_rank(c) == 0;
    kr_status st;

    /* rank 0 first, so that what all would say is said once */
    TRY_OR(st, comm_agree(c, first ? questions_read(&q, path, true) : KR_OK), done);
    TRY_OR(st, comm_agree(c, first ? KR_OK : questions_read(&q, path, true)), done);
    TRY_OR(st, comm_agree(c, first ? voice_open(&v, l, true) : KR_OK), done);
    TRY_OR(st, comm_agree(c, first ? KR_OK : voice_open(&v, l, true)), done);
    TRY_OR(st, comm_agree(c, answer_own(&q, &v, c, tokens)), done);
    TRY_OR(st, gather(&q, c), done);
    st = comm_agree(c, first ? report(&q, l->step, out) : KR_OK);
done:
    voice_close(&v);
    questions_free(&q);
    return st;
}
