/*
 * tokenizer_file.c - tokenizer.json to the parts of a tokenizer.
 *
 * Order: steps (they say whether bytes or characters are encoded), vocabulary, merges,
 * added tokens, template, decoder.  Vocabulary and merges are walked once each.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "trainer/data/object.h"
#include "trainer/data/tokenizer_parts.h"

enum { FILE_MOST = 1 << 28 /* bytes */, TOKEN_LONGEST = 1 << 20 };

/* ---- the byte alphabet ------------------------------------------------------------------ */

/* 0-32, 127-160 and 173 do not print; they come from U+0100 on, in this order. */
uint32_t byte_to_char(int byte)
{
    if (byte < 33) return 0x100 + (uint32_t)byte;
    if (byte >= 127 && byte <= 160) return 0x100 + 33 + (uint32_t)(byte - 127);
    return byte == 173 ? 0x143 : (uint32_t)byte;
}

int char_to_byte(uint32_t code)
{
    int other = (int)code - 0x100;

    if (code < 256) return byte_to_char((int)code) == code ? (int)code : -1;
    if (other == 67) return 173;
    return other < 33 ? other : other < 67 ? other - 33 + 127 : -1;
}

/* A token of a byte-level file as bytes; false: it has characters that stand for none, so
 * it means itself and no text is ever encoded as it. */
static bool to_bytes(const char *text, struct mem_text *out)
{
    size_t len = strlen(text);

    out->len = 0;
    for (size_t i = 0; i < len;) {
        uint32_t code;
        int n = utf8_get(text + i, len - i, &code);
        int byte = n ? char_to_byte(code) : -1;
        char c = (char)byte;

        if (byte < 0) return false;
        mem_append(out, &c, 1);
        i += (size_t)n;
    }
    return true;
}

/* ---- how a token reads ------------------------------------------------------------------ */

struct reader {
    struct tokenizer *t;
    const cJSON *model;
    struct mem_text left, right; /* scratch */
    /* of the decoder, for vocabularies of characters */
    const char *replace_from, *replace_by;
    bool byte_fallback;
};

/* <0xNN> as its byte; -1: it is none. */
static int fallback_byte(const char *text)
{
    unsigned byte;
    char end;

    if (strlen(text) != 6 || sscanf(text, "<0x%2X%c", &byte, &end) != 2 || end != '>')
        return -1;
    return (int)byte;
}

static kr_status set_characters(struct reader *r, int32_t id, const char *text)
{
    struct mem_text *out = &r->right;
    size_t from = r->replace_from ? strlen(r->replace_from) : 0;
    int byte = r->byte_fallback ? fallback_byte(text) : -1;
    char c = (char)byte;

    if (byte >= 0) return tokenizer_set_text(r->t, id, &c, 1, false);
    out->len = 0;
    while (*text) {
        if (from && strncmp(text, r->replace_from, from) == 0) {
            mem_append(out, r->replace_by, strlen(r->replace_by));
            text += from;
        } else {
            mem_append(out, text++, 1);
        }
    }
    return tokenizer_set_text(r->t, id, out->len ? out->at : "", out->len, false);
}

/* ---- vocabulary and merges -------------------------------------------------------------- */

static kr_status read_token(struct reader *r, const char *text, int64_t id)
{
    struct tokenizer *t = r->t;
    size_t len = strlen(text);

    if (id < 0 || id >= TOKENIZER_MOST_IDS || len > TOKEN_LONGEST)
        return tokenizer_refuse(r->t, "token \"%.80s\" has no sane id or length", text);
    if (!t->byte_level) {
        TRY(bpe_add_token(t->bpe, (int32_t)id, text, len));
        return set_characters(r, (int32_t)id, text);
    }
    if (!to_bytes(text, &r->left))
        return tokenizer_set_text(t, (int32_t)id, text, len, false);
    TRY(bpe_add_token(t->bpe, (int32_t)id, r->left.len ? r->left.at : "", r->left.len));
    return tokenizer_set_text(t, (int32_t)id, r->left.len ? r->left.at : "", r->left.len,
                              false);
}

static kr_status read_vocab(struct reader *r)
{
    const cJSON *vocab = object_member(r->model, "vocab"), *token;

    if (!cJSON_IsObject(vocab)) return tokenizer_refuse(r->t, "the model has no vocab");
    cJSON_ArrayForEach(token, vocab)
        TRY(read_token(r, token->string, object_count_of(token)));
    return KR_OK;
}

/* Append the part of a merge as the model knows it. */
static bool put_part(const struct reader *r, const char *text, size_t len,
                     struct mem_text *out)
{
    char part[512];

    if (len >= sizeof part) return false;
    memcpy(part, text, len);
    part[len] = '\0';
    if (r->t->byte_level) return to_bytes(part, out);
    out->len = 0;
    mem_append(out, part, len);
    return true;
}

static kr_status read_merge(struct reader *r, const char *left, size_t left_len,
                            const char *right)
{
    struct bpe *b = r->t->bpe;
    int32_t a = -1, c = -1, whole = -1;

    if (put_part(r, left, left_len, &r->left) &&
        put_part(r, right, strlen(right), &r->right) && r->left.len && r->right.len) {
        a = bpe_find(b, r->left.at, r->left.len);
        c = bpe_find(b, r->right.at, r->right.len);
        mem_append(&r->left, r->right.at, r->right.len);
        whole = bpe_find(b, r->left.at, r->left.len);
    }
    if (a < 0 || c < 0 || whole < 0)
        return tokenizer_refuse(
            r->t, "merge \"%.*s %.80s\" is not made of tokens of the vocabulary",
            (int)(left_len < 80 ? left_len : 80), left, right);
    return bpe_add_merge(b, a, c, whole);
}

static kr_status read_merge_line(struct reader *r, const char *line)
{
    const char *space = strchr(line, ' ');

    if (strncmp(line, "#version", 8) == 0) return KR_OK;
    if (!space || strchr(space + 1, ' '))
        return tokenizer_refuse(r->t, "merge \"%.80s\" is not two tokens", line);
    return read_merge(r, line, (size_t)(space - line), space + 1);
}

static kr_status read_merges(struct reader *r)
{
    const cJSON *merges = object_member(r->model, "merges"), *m;

    if (!cJSON_IsArray(merges)) return tokenizer_refuse(r->t, "the model has no merges");
    cJSON_ArrayForEach(m, merges)
    {
        const char *line = cJSON_GetStringValue(m);
        const char *left = cJSON_GetStringValue(cJSON_GetArrayItem(m, 0));
        const char *right = cJSON_GetStringValue(cJSON_GetArrayItem(m, 1));

        if (line) {
            TRY(read_merge_line(r, line));
        } else {
            if (!left || !right || cJSON_GetArraySize(m) != 2)
                return tokenizer_refuse(r->t, "a merge that is not two tokens");
            TRY(read_merge(r, left, strlen(left), right));
        }
    }
    return KR_OK;
}

/* ---- rules ------------------------------------------------------------------------------ */

/* What changes the meaning of a model and is not known here must be absent. */
static kr_status check_model(const struct tokenizer *t, const cJSON *m)
{
    static const char *const affixes[] = { "continuing_subword_prefix",
                                           "end_of_word_suffix" };
    const char *type = object_text(m, "type");
    const cJSON *dropout = object_member(m, "dropout");

    if (!m) return tokenizer_refuse(t, "no tokenizer: it has no model");
    if (type && strcmp(type, "BPE") != 0)
        return tokenizer_refuse(t, "a model of type %s; only BPE is known here", type);
    for (size_t i = 0; i < 2; i++) {
        const char *text = object_text(m, affixes[i]);

        if (text && text[0])
            return tokenizer_refuse(t, "a model with %s is not known here", affixes[i]);
    }
    if (dropout && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return tokenizer_refuse(t, "a model with dropout has no fixed tokens");
    return KR_OK;
}

/* Id of a token of the vocabulary as the file writes it; -1: none that text can become. */
static int32_t find_token(struct reader *r, const char *text)
{
    if (!r->t->byte_level) return bpe_find(r->t->bpe, text, strlen(text));
    if (!to_bytes(text, &r->left) || !r->left.len) return -1;
    return bpe_find(r->t->bpe, r->left.at, r->left.len);
}

static kr_status read_rules(struct reader *r)
{
    const char *unknown = object_text(r->model, "unk_token");
    struct bpe_rules rules = {
        .bytes = r->t->byte_level,
        .byte_fallback = object_true(r->model, "byte_fallback", false),
        .whole_first = object_true(r->model, "ignore_merges", false),
        .fuse_unknown = object_true(r->model, "fuse_unk", false),
        .unknown = -1,
    };

    if (unknown) rules.unknown = find_token(r, unknown);
    return bpe_set_rules(r->t->bpe, &rules);
}

/* ---- added tokens ----------------------------------------------------------------------- */

static kr_status append_piece(void *arg, const char *piece, size_t len)
{
    mem_append(arg, piece, len);
    return KR_OK;
}

/* A token looked for behind the normalizer is written as the normalizer would. */
static kr_status add_normal(struct reader *r, struct added_token *a)
{
    struct steps_work work = { 0 };
    struct mem_text text = { 0 };
    kr_status st =
        steps_run(&r->t->normalizer, &work, a->text, a->len, true, append_piece, &text);

    if (st == KR_OK && text.len) {
        a->text = text.at;
        a->len = text.len;
        st = added_add(&r->t->normal, a);
    }
    steps_work_free(&work);
    mem_text_free(&text);
    return st;
}

static kr_status read_added(struct reader *r, const cJSON *j)
{
    const char *text = object_text(j, "content");
    int64_t id = object_count(j, "id");
    struct tokenizer *t = r->t;
    struct added_token a = {
        .single_word = object_true(j, "single_word", false),
        .lstrip = object_true(j, "lstrip", false),
        .rstrip = object_true(j, "rstrip", false),
        .special = object_true(j, "special", false),
    };
    size_t len = text ? strlen(text) : 0;
    struct mem_text copy = { 0 };
    kr_status st;

    if (len == 0 || len > TOKEN_LONGEST || id < 0 || id >= TOKENIZER_MOST_IDS)
        return tokenizer_refuse(r->t, "an added token without content or with a bad id");
    a.id = (int32_t)id;
    a.len = len;
    /* the vocabulary may list it too; then it reads as it is written, not as bytes */
    if (id < t->size && t->list[id].known) t->list[id].known = false;
    TRY(tokenizer_set_text(t, a.id, text, len, a.special));
    mem_append(&copy, text, len);
    if (copy.failed) return KR_FAIL(KR_ERR_MEM, "no memory for added tokens");
    a.text = copy.at;
    st = object_true(j, "normalized", !a.special) ? add_normal(r, &a)
                                                  : added_add(&t->raw, &a);
    mem_text_free(&copy);
    return st;
}

/* The vocabulary must not have the token under another id, nor the id for another token. */
static kr_status check_added(struct reader *r, const cJSON *j)
{
    const char *text = object_text(j, "content");
    int64_t id = object_count(j, "id");
    int32_t there = text ? find_token(r, text) : -1;
    const struct token_text *k;

    if (!text || id < 0 || there == id) return KR_OK;
    if (there >= 0)
        return tokenizer_refuse(r->t,
                                "added token \"%.80s\" has the id %" PRId64
                                ", but the vocabulary gives it %d",
                                text, id, there);
    k = id < r->t->size ? &r->t->list[id] : NULL;
    if (!k || !k->known ||
        (k->len == strlen(text) && memcmp(r->t->texts.at + k->at, text, k->len) == 0))
        return KR_OK;
    return tokenizer_refuse(
        r->t, "added token \"%.80s\" has the id %" PRId64 " of another token", text, id);
}

static kr_status read_all_added(struct reader *r, const cJSON *file)
{
    const cJSON *j;

    cJSON_ArrayForEach(j, object_member(file, "added_tokens")) TRY(check_added(r, j));
    cJSON_ArrayForEach(j, object_member(file, "added_tokens")) TRY(read_added(r, j));
    TRY(added_ready(&r->t->raw));
    return added_ready(&r->t->normal);
}

/* ---- template --------------------------------------------------------------------------- */

/* One part of a template: the text itself, or special tokens before or after it. */
static kr_status read_part(struct tokenizer *t, const cJSON *part, const cJSON *specials,
                           bool *seen)
{
    const char *name = object_text(object_member(part, "SpecialToken"), "id");
    const cJSON *id;

    if (object_member(part, "Sequence")) {
        if (*seen) return tokenizer_refuse(t, "a template with the text twice");
        *seen = true;
        return KR_OK;
    }
    if (!name || !object_member(specials, name))
        return tokenizer_refuse(t, "a template with a part that is not known here");
    cJSON_ArrayForEach(id, object_member(object_member(specials, name), "ids"))
    {
        int64_t n = object_count_of(id);
        int32_t token = (int32_t)n;

        if (n < 0 || n >= t->size)
            return tokenizer_refuse(t, "template token %s has no id of the vocabulary",
                                    name);
        TRY(ids_add(*seen ? &t->after : &t->before, &token, 1));
    }
    return KR_OK;
}

static kr_status read_post(struct tokenizer *t, const cJSON *j, int depth)
{
    const char *type = object_text(j, "type");
    const cJSON *part;
    bool seen = false;

    if (!j || (type && strcmp(type, "ByteLevel") == 0)) return KR_OK;
    if (type && strcmp(type, "Sequence") == 0 && depth < 8) {
        cJSON_ArrayForEach(part, object_member(j, "processors"))
            TRY(read_post(t, part, depth + 1));
        return KR_OK;
    }
    if (!type || strcmp(type, "TemplateProcessing") != 0 || t->before.count ||
        t->after.count)
        return tokenizer_refuse(t, "a post_processor of type %s is not known here",
                                type ? type : "(none)");
    cJSON_ArrayForEach(part, object_member(j, "single"))
        TRY(read_part(t, part, object_member(j, "special_tokens"), &seen));
    return seen ? KR_OK : tokenizer_refuse(t, "a template without the text");
}

/* ---- decoder ---------------------------------------------------------------------------- */

static kr_status read_strip(struct tokenizer *t, const cJSON *j)
{
    const char *text = object_text(j, "content");
    int64_t start = object_count(j, "start"), stop = object_count(j, "stop");

    if (!text || strlen(text) != 1 || start < 0 || stop != 0)
        return tokenizer_refuse(t, "a Strip that is not known here");
    t->strip_char = text[0];
    t->strip_start = (size_t)start;
    return KR_OK;
}

static kr_status read_decoder(struct reader *r, const cJSON *j, int depth)
{
    const char *type = object_text(j, "type"), *mark = object_text(j, "replacement"),
               *when = object_text(j, "prepend_scheme");
    const cJSON *part;

    if (!type) type = "(none)";
    if (strcmp(type, "Sequence") == 0 && depth < 8) {
        cJSON_ArrayForEach(part, object_member(j, "decoders"))
            TRY(read_decoder(r, part, depth + 1));
        return KR_OK;
    }
    if (strcmp(type, "ByteLevel") == 0 && r->t->byte_level) return KR_OK;
    if (r->t->byte_level || (strcmp(type, "Replace") != 0 && strcmp(type, "Strip") != 0 &&
                             strcmp(type, "ByteFallback") != 0 &&
                             strcmp(type, "Fuse") != 0 && strcmp(type, "Metaspace") != 0))
        return tokenizer_refuse(r->t, "a decoder of type %s is not known here", type);
    if (strcmp(type, "ByteFallback") == 0) r->byte_fallback = true;
    if (strcmp(type, "Strip") == 0) return read_strip(r->t, j);
    if (strcmp(type, "Replace") == 0) {
        r->replace_from = object_text(object_member(j, "pattern"), "String");
        r->replace_by = object_text(j, "content");
        if (!r->replace_from || !r->replace_by || !r->replace_from[0])
            return tokenizer_refuse(r->t, "a Replace without a String and its content");
    }
    if (strcmp(type, "Metaspace") == 0) {
        r->replace_from = mark && mark[0] ? mark : "\xe2\x96\x81";
        r->replace_by = " ";
        r->t->strip_char = ' ';
        r->t->strip_start = !when || strcmp(when, "never") != 0;
    }
    return KR_OK;
}

/* ---- the file --------------------------------------------------------------------------- */

static kr_status read_parts(struct reader *r, const cJSON *file)
{
    r->model = object_member(file, "model");
    TRY(check_model(r->t, r->model));
    TRY(steps_read(r->t, file));
    TRY(read_decoder(r, object_member(file, "decoder"), 0));
    TRY(bpe_open(&r->t->bpe));
    TRY(read_vocab(r));
    TRY(read_merges(r));
    TRY(read_rules(r));
    TRY(read_all_added(r, file));
    return read_post(r->t, object_member(file, "post_processor"), 0);
}

kr_status tokenizer_read(struct tokenizer *t, const char *path)
{
    struct reader r = { .t = t };
    cJSON *file = NULL;
    kr_status st;

    TRY(object_read(&file, path, FILE_MOST));
    st = read_parts(&r, file);
    cJSON_Delete(file);
    mem_text_free(&r.left);
    mem_text_free(&r.right);
    return st == KR_OK || st == KR_ERR_MEM ? st : KR_ERR_ARG;
}
