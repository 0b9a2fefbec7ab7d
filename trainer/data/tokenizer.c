/* tokenizer.c - the way of a text through the parts, and of ids back. */
#include "trainer/data/tokenizer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "trainer/data/tokenizer_parts.h"
#include "trainer/data/tokens.h"

/* ---- life ------------------------------------------------------------------------------- */

kr_status tokenizer_refuse(const struct tokenizer *t, const char *fmt, ...)
{
    char why[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return KR_FAIL(KR_ERR_ARG, "%s: %s", t->about, why);
}

kr_status tokenizer_set_text(struct tokenizer *t, int32_t id, const char *text,
                             size_t len, bool special)
{
    if (id < 0 || id >= TOKENIZER_MOST_IDS)
        return tokenizer_refuse(t, "token \"%.80s\" has no sane id", text);
    TRY(mem_grow(&t->list, &t->room, (size_t)id + 1, sizeof *t->list, "tokens"));
    if (t->list[id].known)
        return tokenizer_refuse(t, "id %d belongs to two tokens; one is \"%.80s\"", id,
                                text);
    t->list[id] = (struct token_text){ t->texts.len, (uint32_t)len, true, special };
    mem_append(&t->texts, text, len);
    if (id >= t->size) t->size = id + 1;
    return t->texts.failed ? KR_FAIL(KR_ERR_MEM, "no memory for tokens") : KR_OK;
}

/* Every byte is its own id; one more ends a document. */
static kr_status open_bytes(struct tokenizer *t)
{
    const struct bpe_rules rules = { .bytes = true, .unknown = -1 };
    char end[] = TOKENIZER_BYTE_END;
    struct added_token a = {
        .text = end, .len = sizeof end - 1, .id = TOKENS_END, .special = true
    };

    TRY(bpe_open(&t->bpe));
    for (int i = 0; i < 256; i++) {
        char c = (char)i;

        TRY(bpe_add_token(t->bpe, i, &c, 1));
        TRY(tokenizer_set_text(t, i, &c, 1, false));
    }
    TRY(tokenizer_set_text(t, TOKENS_END, a.text, a.len, true));
    TRY(added_add(&t->raw, &a));
    TRY(added_ready(&t->raw));
    t->byte_level = t->cuts_lines = true;
    return bpe_set_rules(t->bpe, &rules);
}

kr_status tokenizer_open(struct tokenizer **out, const char *name)
{
    bool bytes = strcmp(name, "byte") == 0;
    struct tokenizer *t = NULL;
    kr_status st;

    if (!bytes && !fs_exists(name))
        return KR_FAIL(KR_ERR_ARG, "%s: want byte, or the path of a tokenizer.json",
                       name);
    TRY(mem_alloc(&t, 1, sizeof *t, "tokenizer"));
    snprintf(t->about, sizeof t->about, "%s", name);
    st = bytes ? open_bytes(t) : tokenizer_read(t, name);
    if (st != KR_OK) {
        tokenizer_close(t);
        return st == KR_ERR_MEM ? st : KR_ERR_ARG;
    }
    snprintf(t->about, sizeof t->about, "%s: %s BPE, %" PRId64 " ids", name,
             t->byte_level ? "byte-level" : "character", t->size);
    *out = t;
    return KR_OK;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    bpe_close(t->bpe);
    added_free(&t->raw);
    added_free(&t->normal);
    steps_free(&t->normalizer);
    steps_free(&t->splits);
    mem_free(t->list);
    mem_text_free(&t->texts);
    ids_free(&t->before);
    ids_free(&t->after);
    mem_free(t);
}

int64_t tokenizer_size(const struct tokenizer *t) { return t->size; }
const char *tokenizer_describe(const struct tokenizer *t) { return t->about; }

enum tokenizer_cut tokenizer_cut(const struct tokenizer *t)
{
    bool strips = false;

    if (t->byte_level && t->splits.count == 0 && t->normalizer.count == 0 &&
        t->size == TOKENS_BYTE_VOCAB)
        return CUT_ANYWHERE;
    for (size_t i = 0; i < t->raw.count; i++)
        strips |= t->raw.list[i].lstrip || t->raw.list[i].rstrip ||
                  strchr(t->raw.list[i].text, '\n') != NULL;
    return t->cuts_lines && !strips && t->normal.count == 0 && t->normalizer.count == 0
               ? CUT_LINES
               : CUT_NOWHERE;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    const struct added_token *a = added_named(&t->raw, text);

    if (!a) a = added_named(&t->normal, text);
    return a ? a->id : -1;
}

int32_t tokenizer_end(const struct tokenizer *t)
{
    static const char *const names[] = { "<|endoftext|>", "<|end_of_text|>", "</s>",
                                         "<eos>", "<|im_end|>" };
    int32_t id = -1;

    for (size_t i = 0; i < sizeof names / sizeof *names && id < 0; i++)
        id = tokenizer_find(t, names[i]);
    return id;
}

kr_status tokenizer_begin(const struct tokenizer *t, struct ids *out)
{
    int32_t end = tokenizer_end(t);

    if (t->before.count) return ids_add(out, t->before.at, t->before.count);
    return end >= 0 ? ids_add(out, &end, 1) : KR_OK;
}

int32_t tokenizer_special(const struct tokenizer *t, const char *text, size_t len,
                          size_t *begin, size_t *end)
{
    const struct added_token *hit = NULL;
    struct pattern_work work = { 0 };
    kr_status st = added_find(&t->raw, &work, text, len, 0, true, &hit, begin, end);

    pattern_work_free(&work);
    return st == KR_OK && hit ? hit->id : -1;
}

size_t tokenizer_id_bytes(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && t->list[id].known ? t->list[id].len : 0;
}

/* ---- encoding --------------------------------------------------------------------------- */

struct encoder {
    const struct tokenizer *t;
    struct bpe_work bpe;
    struct steps_work normalizer, splits;
    struct pattern_work word;
    /* of the call that runs */
    bool specials, start;
    steps_fn emit;
    void *arg;
    kr_status (*special)(void *arg, int32_t id);
};

kr_status encoder_open(struct encoder **out, const struct tokenizer *t)
{
    TRY(mem_alloc(out, 1, sizeof **out, "encoder"));
    (*out)->t = t;
    return KR_OK;
}

void encoder_close(struct encoder *e)
{
    if (!e) return;
    bpe_work_free(&e->bpe);
    steps_work_free(&e->normalizer);
    steps_work_free(&e->splits);
    pattern_work_free(&e->word);
    mem_free(e);
}

/* Added tokens of a list go to e->special, what lies between them to `rest`. */
static kr_status cut(struct encoder *e, const struct added *list, const char *text,
                     size_t len, steps_fn rest)
{
    const struct added_token *hit;
    size_t at = 0, begin, end;

    for (;;) {
        TRY(added_find(list, &e->word, text, len, at, e->specials, &hit, &begin, &end));
        if (!hit) return at < len ? rest(e, text + at, len - at) : KR_OK;
        if (begin > at) TRY(rest(e, text + at, begin - at));
        TRY(e->special(e->arg, hit->id));
        at = end;
        e->start = false;
    }
}

static kr_status split_up(void *self, const char *text, size_t len)
{
    struct encoder *e = self;
    kr_status st =
        steps_run(&e->t->splits, &e->splits, text, len, e->start, e->emit, e->arg);

    e->start = false;
    return st;
}

static kr_status cut_normal(void *self, const char *text, size_t len)
{
    struct encoder *e = self;

    return cut(e, &e->t->normal, text, len, split_up);
}

static kr_status normalize(void *self, const char *text, size_t len)
{
    struct encoder *e = self;

    return steps_run(&e->t->normalizer, &e->normalizer, text, len, e->start, cut_normal,
                     e);
}

static kr_status run(struct encoder *e, const char *text, size_t len, unsigned flags,
                     steps_fn emit, kr_status (*special)(void *, int32_t), void *arg)
{
    e->specials = flags & ENCODE_SPECIALS;
    e->start = true;
    e->emit = emit;
    e->special = special;
    e->arg = arg;
    return cut(e, &e->t->raw, text, len, normalize);
}

struct encoding {
    struct encoder *e;
    struct ids *out;
};

static kr_status put_piece(void *arg, const char *piece, size_t len)
{
    struct encoding *c = arg;

    return bpe_encode(c->e->t->bpe, &c->e->bpe, piece, len, c->out);
}

static kr_status put_special(void *arg, int32_t id)
{
    struct encoding *c = arg;

    return ids_add(c->out, &id, 1);
}

kr_status encoder_add(struct encoder *e, const char *text, size_t len, unsigned flags,
                      struct ids *out)
{
    const struct tokenizer *t = e->t;
    struct encoding c = { e, out };
    bool wrap = flags & ENCODE_TEMPLATE;

    if (wrap) TRY(ids_add(out, t->before.at, t->before.count));
    TRY(run(e, text, len, flags, put_piece, put_special, &c));
    return wrap ? ids_add(out, t->after.at, t->after.count) : KR_OK;
}

static kr_status no_special(void *arg, int32_t id)
{
    (void)arg;
    (void)id;
    return KR_OK;
}

kr_status encoder_split(struct encoder *e, const char *text, size_t len, unsigned flags,
                        kr_status (*fn)(void *, const char *, size_t), void *arg)
{
    return run(e, text, len, flags, fn, no_special, arg);
}

/* ---- decoding --------------------------------------------------------------------------- */

static void strip(const struct tokenizer *t, struct mem_text *out, size_t from)
{
    size_t n = 0;

    while (n < t->strip_start && from + n < out->len &&
           out->at[from + n] == t->strip_char)
        n++;
    if (n == 0) return;
    memmove(out->at + from, out->at + from + n, out->len - from - n);
    out->len -= n;
    out->at[out->len] = '\0';
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *id, size_t count,
                      bool specials, bool start, struct mem_text *out)
{
    size_t from = out->len;

    for (size_t i = 0; i < count; i++) {
        const struct token_text *k;

        if (id[i] < 0 || id[i] >= t->size) continue;
        k = &t->list[id[i]];
        if (k->known && (specials || !k->special))
            mem_append(out, t->texts.at + k->at, k->len);
    }
    if (start) strip(t, out, from);
}
