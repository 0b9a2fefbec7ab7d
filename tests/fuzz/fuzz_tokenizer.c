/*
 * fuzz_tokenizer.c - tokenizer.json of any bytes: opened or refused; what opens encodes any
 * text to ids of its own and, if it is byte-level, gives the same bytes back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "trainer/data/tokenizer.h"
#include "trainer/data/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[4096];

/* Bytes are laid in here, so that most inputs get beyond the JSON. */
static const char *const frames[] = {
    "%.*s",
    "{\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a "
    "b\"]},%.*s}",
    "{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"unk_token\":\"a\",\"vocab\":{\"a\":0,%"
    ".*s},"
    "\"merges\":[]}}",
    "{\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
    "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%.*s\"},"
    "\"behavior\":"
    "\"Isolated\"},{\"type\":\"ByteLevel\"}]},\"model\":{\"unk_token\":\"a\",\"vocab\":{"
    "\"a\":"
    "0},\"merges\":[]}}",
    "{\"added_tokens\":[{\"id\":3,%.*s}],\"decoder\":{\"type\":\"Fuse\"},\"model\":{"
    "\"unk_token"
    "\":\"a\",\"vocab\":{\"a\":0},\"merges\":[]}}",
};

static void clean_up(void) { unlink(path); }

static void set_up(void)
{
    snprintf(path, sizeof path, "%s/fuzz_tokenizer.%d.json",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
    atexit(clean_up);
    log_mute(true);
}

static bool all_bytes(const struct tokenizer *t)
{
    for (int i = 0; i < 256; i++) {
        char c = (char)i;

        if (bpe_find(t->bpe, &c, 1) < 0) return false;
    }
    return t->byte_level && t->raw.count + t->normal.count == 0;
}

static void use(const struct tokenizer *t, const uint8_t *data, size_t size)
{
    struct encoder *e = NULL;
    struct ids ids = { 0 };
    struct mem_text out = { 0 };

    if (encoder_open(&e, t) != KR_OK) abort();
    if (encoder_add(e, (const char *)data, size, ENCODE_SPECIALS | ENCODE_TEMPLATE,
                    &ids) == KR_OK) {
        for (size_t i = 0; i < ids.count; i++)
            if (ids.at[i] < 0 || ids.at[i] >= tokenizer_size(t)) abort();
        tokenizer_decode(t, ids.at, ids.count, true, true, &out);
        if (all_bytes(t) && out.len < size) abort();
    }
    mem_text_free(&out);
    ids_free(&ids);
    encoder_close(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokenizer *t = NULL;
    FILE *f;

    if (!path[0]) set_up();
    if (size < 1 || !(f = fopen(path, "wb"))) return 0;
    if (data[0] % 5 == 0)
        fwrite(data + 1, 1, size - 1, f);
    else
        fprintf(f, frames[data[0] % 5], (int)(size - 1), (const char *)data + 1);
    if (fclose(f) != 0) abort();
    if (tokenizer_open(&t, path) == KR_OK)
        use(t, data + 1, size - 1);
    else if (t)
        abort();
    tokenizer_close(t);
    return 0;
}
