/* speech.c - the places where a tokenizer may lie. */
#include "trainer/run/speech.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { TOKENIZER_MOST = 1 << 28 /* bytes */ };

kr_status speech_find(struct settings *s, const char *path)
{
    /* beside the run, above RUN/best, above RUN/checkpoints/step-N of either; what was
     * imported has it among its origin's files */
    static const char *const places[] = { "", "/..", "/../..", "/../../.." };
    static const char *const names[] = { "tokenizer.json", "hf/tokenizer.json" };
    char at[FS_PATH];

    for (size_t i = 0; i < 8; i++) {
        TRY(fs_path(at, "%s%s/config.ini", path, places[i / 2]));
        if (i > 1 && !fs_exists(at)) continue;
        TRY(fs_path(at, "%s%s/%s", path, places[i / 2], names[i % 2]));
        if (!fs_exists(at)) continue;
        if (strlen(at) >= sizeof s->tokenizer)
            return KR_FAIL(KR_ERR_ARG, "%s: too long a path for data.tokenizer", at);
        strcpy(s->tokenizer, at);
        return KR_OK;
    }
    return KR_OK;
}

kr_status speech_keep(const struct settings *s, const char *run)
{
    char path[FS_PATH], *text = NULL;
    size_t bytes;
    kr_status st;

    if (!s->tokenizer[0] || strcmp(s->tokenizer, "byte") == 0) return KR_OK;
    TRY(fs_path(path, "%s/tokenizer.json", run));
    /* the original may have gone since the run began */
    if (!fs_exists(s->tokenizer) && fs_exists(path)) return KR_OK;
    TRY(fs_read_all(s->tokenizer, &text, &bytes, TOKENIZER_MOST));
    st = fs_replace(path, text, bytes);
    mem_free(text);
    return st;
}

kr_status speech_open(struct tokenizer **out, const struct settings *s)
{
    const char *name = s->tokenizer[0]                 ? s->tokenizer
                       : s->vocab == TOKENS_BYTE_VOCAB ? "byte"
                                                       : NULL;

    *out = NULL;
    if (!name) return KR_OK;
    TRY(tokenizer_open(out, name));
    if (tokenizer_size(*out) <= s->vocab) return KR_OK;
    tokenizer_close(*out);
    *out = NULL;
    return KR_FAIL(KR_ERR_ARG, "%s: it has more ids than model.vocab", name);
}
