/* speech.c - the places where a tokenizer may lie. */
#include "trainer/run/speech.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { TOKENIZER_MOST = 1 << 28 /* bytes */ };

bool speech_find(const struct settings *s, const char *path, char out[FS_PATH])
{
    /* beside the run, above RUN/best, above RUN/checkpoints/step-N of either */
    static const char *const places[] = { "", "/..", "/../..", "/../../.." };

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (fs_path(out, "%s%s/config.ini", path, places[i]) != KR_OK) return false;
        if (i > 0 && !fs_exists(out)) continue;
        if (fs_path(out, "%s%s/tokenizer.json", path, places[i]) != KR_OK) return false;
        if (fs_exists(out)) return true;
    }
    if (s->tokenizer[0])
        snprintf(out, FS_PATH, "%s", s->tokenizer);
    else
        snprintf(out, FS_PATH, "%s", s->vocab == TOKENS_BYTE_VOCAB ? "byte" : "");
    return out[0] != '\0';
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

kr_status speech_open(struct tokenizer **out, const struct settings *s, const char *path)
{
    char name[FS_PATH];

    *out = NULL;
    if (!speech_find(s, path, name)) return KR_OK;
    TRY(tokenizer_open(out, name));
    if (tokenizer_size(*out) <= s->vocab) return KR_OK;
    tokenizer_close(*out);
    *out = NULL;
    return KR_FAIL(KR_ERR_ARG, "%s: it has more ids than model.vocab", name);
}
