/* voice.c - prompts to ids, ids to text that can be shown. */
#include "trainer/run/voice.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "trainer/run/speech.h"

kr_status voice_open(struct voice *v, struct loaded *l, bool cache)
{
    kr_status st;

    *v = (struct voice){ .l = l };
    TRY_OR(st, speech_open(&v->tokenizer, &l->set), done);
    if (v->tokenizer) {
        TRY_OR(st, encoder_open(&v->encoder, v->tokenizer), done);
        TRY_OR(st, chat_choose(&v->template, l->set.template, v->tokenizer), done);
    }
    st = writer_open(&v->writer, &l->trainer, cache);
done:
    if (st != KR_OK) voice_close(v);
    return st;
}

void voice_close(struct voice *v)
{
    writer_close(v->writer);
    encoder_close(v->encoder);
    tokenizer_close(v->tokenizer);
    ids_free(&v->ids);
    mem_text_free(&v->answer);
    mem_text_free(&v->pending);
    *v = (struct voice){ 0 };
}

/* ---- prompts ---------------------------------------------------------------------------- */

static kr_status read_ids(struct voice *v, const char *p)
{
    int64_t vocab = v->l->set.vocab;
    char *end;

    for (; *p; p = end + strspn(end, " ")) {
        long long id = strtoll(p, &end, 10);
        int32_t narrow = (int32_t)id;

        if (end == p || id < 0 || id >= vocab)
            return KR_FAIL(KR_ERR_ARG,
                           "prompt: this model has no tokenizer: want token ids below "
                           "%" PRId64 " with spaces between",
                           vocab);
        TRY(ids_add(&v->ids, &narrow, 1));
    }
    return v->ids.count ? KR_OK : KR_FAIL(KR_ERR_ARG, "this model needs a prompt");
}

kr_status voice_text(struct voice *v, const char *text)
{
    v->ids.count = 0;
    v->chat = false;
    if (!v->tokenizer) return read_ids(v, text);
    TRY(tokenizer_begin(v->tokenizer, &v->ids));
    TRY(encoder_add(v->encoder, text, strlen(text), ENCODE_PLAIN, &v->ids));
    return v->ids.count ? KR_OK : KR_FAIL(KR_ERR_ARG, "this model needs a prompt");
}

kr_status voice_turns(struct voice *v, const struct chat_turn *turns, int count)
{
    v->ids.count = 0;
    v->chat = true;
    if (!v->tokenizer)
        return KR_FAIL(KR_ERR_ARG, "this model has no tokenizer, so it cannot chat; name "
                                   "one: --set data.tokenizer=PATH");
    return chat_render(v->template, v->tokenizer, v->encoder, turns, count, true, &v->ids,
                       NULL);
}

kr_status voice_record(struct voice *v, const struct record *r)
{
    return r->text ? voice_text(v, r->text) : voice_turns(v, r->turns, r->count);
}

/* ---- answers ---------------------------------------------------------------------------- */

static bool ends(void *arg, int32_t id)
{
    const struct voice *v = arg;

    if (!v->tokenizer) return false;
    return v->chat ? chat_stops(v->template, v->tokenizer, id)
                   : id == tokenizer_end(v->tokenizer);
}

/* Show and keep what is complete; `all`: also what will never be. */
static void show(struct voice *v, bool all)
{
    size_t wait = all ? 0 : utf8_unfinished(v->pending.at, v->pending.len);
    size_t len = v->pending.len - wait, from = v->answer.len;

    if (len == 0) return;
    utf8_repair(&v->answer, v->pending.at, len);
    if (v->out) {
        fwrite(v->answer.at + from, 1, v->answer.len - from, v->out);
        fflush(v->out);
    }
    memmove(v->pending.at, v->pending.at + len, wait);
    v->pending.len = wait;
}

static void told(void *arg, int32_t id)
{
    struct voice *v = arg;

    if (v->tokenizer)
        tokenizer_decode(v->tokenizer, &id, 1, false, !v->begun && v->chat, &v->pending);
    else
        mem_printf(&v->pending, "%d ", id);
    v->begun |= v->pending.len > 0;
    if (v->pending.len) show(v, false);
}

kr_status voice_answer(struct voice *v, struct writer_how how, FILE *out)
{
    v->answer.len = v->pending.len = 0;
    mem_append(&v->answer, "", 0);
    v->begun = false;
    v->out = out;
    how.ends = ends;
    how.told = told;
    how.arg = v;
    TRY(writer_go_on(v->writer, &v->ids, &how));
    if (v->pending.len) show(v, true);
    return v->answer.failed || v->pending.failed
               ? KR_FAIL(KR_ERR_MEM, "no memory for an answer")
               : KR_OK;
}
