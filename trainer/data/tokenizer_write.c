/* tokenizer_write.c - vocabulary, merges and steps as text. */
#include "trainer/data/tokenizer_write.h"

#include <inttypes.h>
#include <string.h>

#include "base/utf8.h"
#include "base/words.h"
#include "trainer/data/tokenizer_parts.h"

/* A token as characters that stand for its bytes, as JSON. */
static void put_token(struct mem_text *out, const struct words *texts, int64_t id)
{
    size_t len;
    const char *text = words_text(texts, id, &len);

    mem_append(out, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        char c[4];
        int n = utf8_put(c, byte_to_char((unsigned char)text[i]));

        utf8_json(out, c, (size_t)n);
    }
    mem_append(out, "\"", 1);
}

/* Bytes of every token: those of a merge are its parts'. */
static kr_status spell(struct words *texts, const struct bpe_merge *m, int64_t merges)
{
    struct mem_text whole = { 0 };
    int64_t number;
    kr_status st = KR_OK;

    for (int i = 0; i < 256 && st == KR_OK; i++) {
        char c = (char)i;

        st = words_add(texts, &c, 1, &number);
    }
    for (int64_t i = 0; i < merges && st == KR_OK; i++) {
        size_t a, b;
        const char *left = words_text(texts, m[i].left, &a), *right;

        whole.len = 0;
        mem_append(&whole, left, a);
        right = words_text(texts, m[i].right, &b);
        mem_append(&whole, right, b);
        st = words_add(texts, whole.at, whole.len, &number);
    }
    mem_text_free(&whole);
    return st;
}

static void put_specials(struct mem_text *out, const char *const *specials, int count,
                         int64_t first)
{
    mem_printf(out, "  \"added_tokens\": [");
    for (int i = 0; i < count; i++) {
        mem_printf(out, "%s\n    {\"id\": %" PRId64 ", \"content\": \"", i ? "," : "",
                   first + i);
        utf8_json(out, specials[i], strlen(specials[i]));
        mem_printf(out,
                   "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                   "\"normalized\": false, \"special\": true}");
    }
    mem_printf(out, "\n  ],\n");
}

/* Without a pattern nothing is split: a merge may span any bytes. */
static void put_steps(struct mem_text *out, const char *pattern)
{
    static const char byte_level[] =
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": true, \"use_regex\": false}";

    mem_printf(out, "  \"normalizer\": null,\n  \"pre_tokenizer\": ");
    if (pattern) {
        mem_printf(out, "{\"type\": \"Sequence\", \"pretokenizers\": [\n    {\"type\": "
                        "\"Split\", \"pattern\": {\"Regex\": \"");
        utf8_json(out, pattern, strlen(pattern));
        mem_printf(out, "\"}, \"behavior\": \"Isolated\", \"invert\": false},\n    ");
    }
    mem_printf(out, "%s%s,\n", byte_level, pattern ? "\n  ]}" : "");
    mem_printf(out, "  \"post_processor\": %s,\n  \"decoder\": %s,\n", byte_level,
               byte_level);
}

static void put_model(struct mem_text *out, const struct words *texts,
                      const struct bpe_merge *m, int64_t merges)
{
    mem_printf(out, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": "
                    "null, \"continuing_subword_prefix\": null, \"end_of_word_suffix\": "
                    "null, \"fuse_unk\": false, \"byte_fallback\": false, "
                    "\"ignore_merges\": false,\n    \"vocab\": {");
    for (int64_t i = 0; i < 256 + merges; i++) {
        mem_printf(out, "%s\n      ", i ? "," : "");
        put_token(out, texts, i);
        mem_printf(out, ": %" PRId64, i);
    }
    mem_printf(out, "\n    },\n    \"merges\": [");
    for (int64_t i = 0; i < merges; i++) {
        mem_printf(out, "%s\n      [", i ? "," : "");
        put_token(out, texts, m[i].left);
        mem_printf(out, ", ");
        put_token(out, texts, m[i].right);
        mem_printf(out, "]");
    }
    mem_printf(out, "\n    ]\n  }\n}\n");
}

kr_status tokenizer_print(struct mem_text *out, const char *pattern,
                          const struct bpe_merge *m, int64_t merges,
                          const char *const *specials, int count)
{
    struct words texts = { 0 };
    kr_status st = spell(&texts, m, merges);

    if (st == KR_OK) {
        mem_printf(out, "{\n  \"version\": \"1.0\", \"truncation\": null, \"padding\": "
                        "null,\n");
        put_specials(out, specials, count, 256 + merges);
        put_steps(out, pattern);
        put_model(out, &texts, m, merges);
        if (out->failed) st = KR_FAIL(KR_ERR_MEM, "no memory for the tokenizer");
    }
    words_free(&texts);
    return st;
}

kr_status tokenizer_print_bytes(struct mem_text *out)
{
    static const char *const end[] = { TOKENIZER_BYTE_END };

    return tokenizer_print(out, NULL, NULL, 0, end, 1);
}
