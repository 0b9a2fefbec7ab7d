/* hf_speech.c - find the tokenizer, copy or spell it, and describe it. */
#include "trainer/hf/hf_speech.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "base/log.h"
#include "trainer/data/tokenizer_write.h"
#include "trainer/run/speech.h"

static kr_status put(const char *folder, const char *name, const char *text, size_t len)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/%s", folder, name));
    return fs_replace(path, text, len);
}

static kr_status put_json(const char *folder, const char *name, const cJSON *j)
{
    char *text = cJSON_Print(j);
    kr_status st = text ? put(folder, name, text, strlen(text))
                        : KR_FAIL(KR_ERR_MEM, "no memory for %s", name);

    cJSON_free(text);
    return st;
}

/* ---- tokenizer.json --------------------------------------------------------------------- */

static kr_status put_tokenizer(const char *folder, const char *name)
{
    char path[FS_PATH];
    struct mem_text text = { 0 };
    kr_status st;

    TRY(fs_path(path, "%s/tokenizer.json", folder));
    if (name[0] && strcmp(name, "byte") != 0) return fs_copy(name, path);
    st = tokenizer_print_bytes(&text);
    if (st == KR_OK) st = put(folder, "tokenizer.json", text.at, text.len);
    mem_text_free(&text);
    return st;
}

/* ---- its description -------------------------------------------------------------------- */

static void add_token(cJSON *j, const char *key, const struct tokenizer *t, int32_t id)
{
    struct mem_text text = { 0 };

    tokenizer_decode(t, &id, 1, true, false, &text);
    if (text.len && !text.failed) cJSON_AddStringToObject(j, key, text.at);
    mem_text_free(&text);
}

static kr_status put_config(const char *folder, const struct settings *set,
                            const struct tokenizer *t, const struct chat_template *c,
                            const struct ids *begin, const struct ids *stop)
{
    cJSON *j = cJSON_CreateObject();
    struct mem_text jinja = { 0 };
    kr_status st;

    cJSON_AddStringToObject(j, "tokenizer_class", "PreTrainedTokenizerFast");
    cJSON_AddNumberToObject(j, "model_max_length", (double)set->context);
    cJSON_AddBoolToObject(j, "clean_up_tokenization_spaces", false);
    if (begin->count == 1) add_token(j, "bos_token", t, begin->at[0]);
    if (stop->count) add_token(j, "eos_token", t, stop->at[0]);
    if (stop->count) add_token(j, "pad_token", t, stop->at[0]);
    if (c) chat_jinja(c, t, &jinja);
    if (c && !jinja.failed) cJSON_AddStringToObject(j, "chat_template", jinja.at);
    st = jinja.failed ? KR_FAIL(KR_ERR_MEM, "no memory for a chat template")
                      : put_json(folder, "tokenizer_config.json", j);
    mem_text_free(&jinja);
    cJSON_Delete(j);
    return st;
}

static kr_status put_generation(const char *folder, const struct ids *begin,
                                const struct ids *stop)
{
    cJSON *j = cJSON_CreateObject(), *ends;
    kr_status st;

    if (begin->count == 1) cJSON_AddNumberToObject(j, "bos_token_id", begin->at[0]);
    if (stop->count) {
        ends = cJSON_AddArrayToObject(j, "eos_token_id");
        for (size_t i = 0; i < stop->count; i++)
            cJSON_AddItemToArray(ends, cJSON_CreateNumber(stop->at[i]));
        cJSON_AddNumberToObject(j, "pad_token_id", stop->at[0]);
    }
    st = put_json(folder, "generation_config.json", j);
    cJSON_Delete(j);
    return st;
}

static kr_status describe(const char *folder, const struct settings *set,
                          const struct tokenizer *t)
{
    const struct chat_template *c = chat_usable(set->template, t);
    struct ids begin = { 0 }, stop = { 0 };
    int32_t end = tokenizer_end(t);
    kr_status st = tokenizer_begin(t, &begin);

    if (st == KR_OK && c) st = chat_stop_ids(c, t, &stop);
    if (st == KR_OK && !c && end >= 0) st = ids_add(&stop, &end, 1);
    if (st == KR_OK) st = put_config(folder, set, t, c, &begin, &stop);
    if (st == KR_OK) st = put_generation(folder, &begin, &stop);
    ids_free(&begin);
    ids_free(&stop);
    return st;
}

/* ---- front ------------------------------------------------------------------------------ */

kr_status hf_speech_write(const char *folder, const char *checkpoint,
                          const struct settings *set)
{
    const struct ids none = { 0 };
    struct settings s = *set;
    struct tokenizer *t = NULL;
    kr_status st;

    TRY(speech_find(&s, checkpoint));
    if (s.tokenizer[0] && strcmp(s.tokenizer, "byte") != 0 && !fs_exists(s.tokenizer)) {
        LOG_WARNING("data.tokenizer = %s: is not there; no tokenizer is exported",
                    s.tokenizer);
        return put_generation(folder, &none, &none);
    }
    TRY(speech_open(&t, &s));
    if (!t) return put_generation(folder, &none, &none);
    st = put_tokenizer(folder, s.tokenizer);
    if (st == KR_OK) st = describe(folder, set, t);
    tokenizer_close(t);
    return st;
}
