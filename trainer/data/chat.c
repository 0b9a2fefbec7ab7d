/* chat.c - the table of templates, and one renderer for all of them. */
#include "trainer/data/chat.h"

#include <string.h>

/* {end} is the tokenizer's end of a document, {begin} what stands before a text. */
struct marks {
    const char *open, *close; /* around the text; close is learned with it */
    const char *after;        /* behind close, never learned */
};

struct chat_template {
    const char *name;
    const char *proof; /* a token that only tokenizers of this template have; "": none */
    const char *begin;
    struct marks roles[CHAT_ROLES]; /* system, user, assistant, tool */
    const char *user_after_system;  /* open of a user's turn there, if it is another */
    const char *stops[3];           /* tokens that end an answer, besides {end} */
    bool next_ends; /* the special token that opens the next turn ends an answer */
};

/* clang-format off */
static const struct chat_template templates[] = {
    { .name = "plain", .proof = "", .begin = "{begin}",
      .roles = { { "", "", "\n" }, { "", "", "" }, { "", "{end}", "" }, { "", "", "\n" } } },
    { .name = "alpaca", .proof = "", .begin = "{begin}",
      .roles = { { "", "", "\n\n" },
                 { "### Instruction:\n", "", "\n\n" },
                 { "### Response:\n", "{end}", "" },
                 { "### Input:\n", "", "\n\n" } } },
    { .name = "chatml", .proof = "<|im_start|>", .begin = "",
      .roles = { { "<|im_start|>system\n", "<|im_end|>", "\n" },
                 { "<|im_start|>user\n", "<|im_end|>", "\n" },
                 { "<|im_start|>assistant\n", "<|im_end|>", "\n" },
                 { "<|im_start|>tool\n", "<|im_end|>", "\n" } },
      .stops = { "<|im_end|>" } },
    { .name = "llama2", .proof = "", .begin = "",
      .roles = { { "<s>[INST] <<SYS>>\n", "\n<</SYS>>\n\n", "" },
                 { "<s>[INST] ", " [/INST]", "" },
                 { " ", " </s>", "" },
                 { "<s>[INST] ", " [/INST]", "" } },
      .user_after_system = "", .stops = { "</s>" } },
    { .name = "llama3", .proof = "<|start_header_id|>", .begin = "<|begin_of_text|>",
      .roles = { { "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", "" },
                 { "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", "" },
                 { "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", "" },
                 { "<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>", "" } },
      .stops = { "<|eot_id|>", "<|eom_id|>" } },
    { .name = "chatglm3", .proof = "sop", .begin = "[gMASK]sop",
      .roles = { { "<|system|>\n", "", "" }, { "<|user|>\n", "", "" },
                 { "<|assistant|>\n", "", "" }, { "<|observation|>\n", "", "" } },
      .stops = { "<|user|>", "<|observation|>" }, .next_ends = true },
    { .name = "glm4", .proof = "<sop>", .begin = "[gMASK]<sop>",
      .roles = { { "<|system|>\n", "", "" }, { "<|user|>\n", "", "" },
                 { "<|assistant|>\n", "", "" }, { "<|observation|>\n", "", "" } },
      .stops = { "<|user|>", "<|observation|>" }, .next_ends = true },
};
/* clang-format on */
enum { TEMPLATES = sizeof templates / sizeof *templates };

const char *chat_name(const struct chat_template *c) { return c->name; }

static bool proven(const struct chat_template *c, const struct tokenizer *t)
{
    return c->proof[0] && tokenizer_find(t, c->proof) >= 0;
}

static const struct chat_template *pick(int choice, const struct tokenizer *t)
{
    const struct chat_template *c = &templates[choice > 0 ? choice - 1 : 0];

    for (int i = 0; choice == 0 && i < TEMPLATES; i++)
        if (proven(&templates[i], t)) c = &templates[i];
    return c;
}

const struct chat_template *chat_usable(int choice, const struct tokenizer *t)
{
    const struct chat_template *c = pick(choice, t);
    bool lacks_proof = c->proof[0] && !proven(c, t);

    return lacks_proof || (!c->stops[0] && tokenizer_end(t) < 0) ? NULL : c;
}

kr_status chat_choose(const struct chat_template **out, int choice,
                      const struct tokenizer *t)
{
    const struct chat_template *c = pick(choice, t);

    *out = chat_usable(choice, t);
    if (*out) return KR_OK;
    if (c->proof[0] && !proven(c, t))
        return KR_FAIL(KR_ERR_ARG, "chat template %s: the tokenizer has no token %s",
                       c->name, c->proof);
    return KR_FAIL(KR_ERR_ARG,
                   "chat template %s: the tokenizer has no token that ends a document",
                   c->name);
}

bool chat_role(const char *name, enum chat_role *out)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } names[] = {
        { "system", CHAT_SYSTEM }, { "user", CHAT_USER },
        { "human", CHAT_USER },    { "assistant", CHAT_ASSISTANT },
        { "gpt", CHAT_ASSISTANT }, { "function_call", CHAT_ASSISTANT },
        { "tool", CHAT_TOOL },     { "observation", CHAT_TOOL },
        { "function", CHAT_TOOL }, { "ipython", CHAT_TOOL },
    };

    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].name, name) != 0) continue;
        *out = names[i].role;
        return true;
    }
    return false;
}

bool chat_stops(const struct chat_template *c, const struct tokenizer *t, int32_t id)
{
    if (id == tokenizer_end(t)) return true;
    for (int i = 0; i < 3 && c->stops[i]; i++)
        if (id == tokenizer_find(t, c->stops[i])) return true;
    return false;
}

kr_status chat_stop_ids(const struct chat_template *c, const struct tokenizer *t,
                        struct ids *out)
{
    int32_t id = tokenizer_end(t);

    if (id >= 0) TRY(ids_add(out, &id, 1));
    for (int i = 0; i < 3 && c->stops[i]; i++) {
        id = tokenizer_find(t, c->stops[i]);
        if (id >= 0 && id != tokenizer_end(t)) TRY(ids_add(out, &id, 1));
    }
    return KR_OK;
}

/* ---- rendering -------------------------------------------------------------------------- */

struct page {
    const struct tokenizer *t;
    struct encoder *e;
    struct ids *ids;
    struct mem_text *learn;           /* of ids; or NULL */
    struct mem_text text, text_learn; /* since the last special token; a byte each */
    bool end_next; /* an answer waits for the special token that ends it */
};

static kr_status put_id(struct page *p, int32_t id, bool learn)
{
    char flag = learn;

    if (p->learn) mem_append(p->learn, &flag, 1);
    return ids_add(p->ids, &id, 1);
}

static void put_text(struct page *p, const char *text, size_t len, bool learn)
{
    mem_append(&p->text, text, len);
    for (size_t i = 0; i < len; i++)
        mem_append(&p->text_learn, &(char){ learn }, 1);
}

/* Encode the text that has gathered.  A token is learned if its last byte is.  Some
 * vocabularies put a space in front: then the first token begins before the text. */
static kr_status flush(struct page *p)
{
    struct ids run = { 0 };
    size_t sum = 0, at = 0, shift;
    kr_status st = KR_OK;

    if (p->text.len == 0) return KR_OK;
    st = encoder_add(p->e, p->text.at, p->text.len, ENCODE_PLAIN, &run);
    for (size_t i = 0; i < run.count; i++)
        sum += tokenizer_id_bytes(p->t, run.at[i]);
    shift = sum > p->text.len ? sum - p->text.len : 0;
    for (size_t i = 0; i < run.count && st == KR_OK; i++) {
        size_t last;

        at += tokenizer_id_bytes(p->t, run.at[i]);
        last = at > shift + 1 ? at - shift - 1 : 0;
        if (last >= p->text.len) last = p->text.len - 1;
        st = put_id(p, run.at[i], p->text_learn.at[last]);
    }
    p->text.len = p->text_learn.len = 0;
    ids_free(&run);
    return st;
}

static kr_status put_special(struct page *p, int32_t id, bool learn)
{
    TRY(flush(p));
    learn |= p->end_next;
    p->end_next = false;
    return put_id(p, id, learn);
}

static kr_status put_begin(struct page *p)
{
    struct ids begin = { 0 };
    kr_status st = tokenizer_begin(p->t, &begin);

    for (size_t i = 0; i < begin.count && st == KR_OK; i++)
        st = put_special(p, begin.at[i], false);
    ids_free(&begin);
    return st;
}

/* A mark: special tokens as such, the rest as text. */
static kr_status put_mark(struct page *p, const char *mark, bool learn)
{
    size_t len = strlen(mark), begin, end;
    int32_t id;

    if (strcmp(mark, "{begin}") == 0) return put_begin(p);
    if (strcmp(mark, "{end}") == 0) return put_special(p, tokenizer_end(p->t), learn);
    while ((id = tokenizer_special(p->t, mark, len, &begin, &end)) >= 0) {
        put_text(p, mark, begin, learn);
        TRY(put_special(p, id, learn));
        mark += end;
        len -= end;
    }
    put_text(p, mark, len, learn);
    return KR_OK;
}

static kr_status put_turn(struct page *p, const struct chat_template *c,
                          const struct chat_turn *turn, bool after_system)
{
    const struct marks *m = &c->roles[turn->role];
    bool other = after_system && turn->role == CHAT_USER && c->user_after_system;

    TRY(put_mark(p, other ? c->user_after_system : m->open, false));
    put_text(p, turn->text, strlen(turn->text), turn->learn);
    p->end_next = c->next_ends && turn->learn;
    TRY(put_mark(p, m->close, turn->learn));
    return put_mark(p, m->after, false);
}

static kr_status render(struct page *p, const struct chat_template *c,
                        const struct chat_turn *turns, int count, bool answer)
{
    TRY(put_mark(p, c->begin, false));
    for (int i = 0; i < count; i++)
        TRY(put_turn(p, c, &turns[i], i > 0 && turns[i - 1].role == CHAT_SYSTEM));
    if (answer) TRY(put_mark(p, c->roles[CHAT_ASSISTANT].open, false));
    if (p->end_next) TRY(put_mark(p, c->stops[0], true));
    return flush(p);
}

kr_status chat_render(const struct chat_template *c, const struct tokenizer *t,
                      struct encoder *e, const struct chat_turn *turns, int count,
                      bool answer, struct ids *ids, struct mem_text *learn)
{
    struct page p = { .t = t, .e = e, .ids = ids, .learn = learn };
    kr_status st = render(&p, c, turns, count, answer);
    bool failed = p.text.failed || p.text_learn.failed || (learn && learn->failed);

    mem_text_free(&p.text);
    mem_text_free(&p.text_learn);
    return st == KR_OK && failed ? KR_FAIL(KR_ERR_MEM, "no memory for a conversation")
                                 : st;
}

/* ---- Jinja ------------------------------------------------------------------------------ */

/* The text that a mark stands for. */
static void put_words(struct mem_text *out, const struct tokenizer *t, const char *mark)
{
    struct ids ids = { 0 };
    int32_t end = tokenizer_end(t);

    if (strcmp(mark, "{begin}") == 0) {
        out->failed |= tokenizer_begin(t, &ids) != KR_OK;
        tokenizer_decode(t, ids.at, ids.count, true, false, out);
        ids_free(&ids);
    } else if (strcmp(mark, "{end}") == 0) {
        tokenizer_decode(t, &end, 1, true, false, out);
    } else {
        mem_printf(out, "%s", mark);
    }
}

/* Marks as one literal. */
static void put_literal(struct mem_text *out, const struct tokenizer *t,
                        const char *first, const char *second)
{
    struct mem_text words = { 0 };

    put_words(&words, t, first);
    put_words(&words, t, second);
    mem_printf(out, "'");
    for (size_t i = 0; i < words.len; i++)
        if (words.at[i] == '\n')
            mem_printf(out, "\\n");
        else
            mem_printf(out, "%s%c", strchr("'\\", words.at[i]) ? "\\" : "", words.at[i]);
    mem_printf(out, "'");
    out->failed |= words.failed;
    mem_text_free(&words);
}

static void put_branch(struct mem_text *out, const struct tokenizer *t, const char *when,
                       const char *open, const struct marks *m)
{
    mem_printf(out, "{%% %s %%}{{ ", when);
    put_literal(out, t, open, "");
    mem_printf(out, " + turn['content'] + ");
    put_literal(out, t, m->close, m->after);
    mem_printf(out, " }}");
}

void chat_jinja(const struct chat_template *c, const struct tokenizer *t,
                struct mem_text *out)
{
    static const char *const when[] = { "if turn['role'] == 'system'",
                                        "elif turn['role'] == 'user'",
                                        "elif turn['role'] == 'assistant'", "else" };
    static const char after_system[] =
        "elif turn['role'] == 'user' and not loop.first and "
        "messages[loop.index0 - 1]['role'] == 'system'";

    mem_printf(out, "{{ ");
    put_literal(out, t, c->begin, "");
    mem_printf(out, " }}{%% for turn in messages %%}");
    for (int r = 0; r < CHAT_ROLES; r++) {
        if (r == CHAT_USER && c->user_after_system)
            put_branch(out, t, after_system, c->user_after_system, &c->roles[r]);
        put_branch(out, t, when[r], c->roles[r].open, &c->roles[r]);
    }
    mem_printf(out, "{%% endif %%}{%% endfor %%}{%% if add_generation_prompt %%}{{ ");
    put_literal(out, t, c->roles[CHAT_ASSISTANT].open, "");
    mem_printf(out, " }}{%% endif %%}");
}
