/*
 * generate.c - `generate`: let a model go on with a text, answer in a chat, or answer the
 * records of a file.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/options.h"
#include "scheduler/exitcode.h"
#include "trainer/run/commands.h"
#include "trainer/run/questions.h"
#include "trainer/run/voice.h"

struct generate_args {
    char prompt[1100], system[1100], in[SETTINGS_TEXT], out[SETTINGS_TEXT];
    int64_t tokens, seed;
    struct sample_how how;
    bool chat, cache;
};

/* clang-format off */
#define G struct generate_args
static const struct cfg_field generate_options[] = {
    CFG_TEXT(G, prompt, "prompt", "", "text to go on with; without a tokenizer, token ids with spaces"),
    CFG_FLAG(G, chat, "chat", "false", "answer in the model's chat template: --prompt, or each line of standard input"),
    CFG_TEXT(G, system, "system", "", "what a chat starts with, as the system"),
    CFG_TEXT(G, in, "in", "", "file of records (*.jsonl: prompt, messages, instruction or text) to answer"),
    CFG_TEXT(G, out, "out", "-", "where those go, each with \"generated\" added; -: standard output"),
    CFG_INT (G, tokens, "tokens", "200", 1, 1e6, "tokens to make at most; the end token ends it"),
    CFG_REAL(G, how.temperature, "temperature", "0.8", 0, 100, "0: always the likeliest token"),
    CFG_INT (G, how.top_k, "top-k", "0", 0, 1e9, "choose among the k likeliest; 0: all"),
    CFG_REAL(G, how.top_p, "top-p", "1", 0, 1, "choose among the likeliest that reach this probability"),
    CFG_INT (G, seed, "seed", "1", 0, 1e15, "same seed, same text"),
    CFG_FLAG(G, cache, "cache", "true", "keep keys and values; without, every token costs the whole text"),
    { .name = NULL },
};
#undef G
/* clang-format on */

static void help(FILE *out)
{
    fprintf(out, "usage: kilorank generate DIR [--prompt TEXT] [--chat] [--in FILE] "
                 "[--tokens N] ...\n\n"
                 "Write what the newest valid checkpoint of run DIR, or checkpoint DIR, "
                 "makes of a\n"
                 "prompt, token by token; talk with it; or let it answer a file.\n\n"
                 "  kilorank generate runs/a --prompt 'This license' --temperature 0.7\n"
                 "  kilorank generate runs/a --chat\n"
                 "  kilorank generate runs/a --in questions.jsonl --out answers.jsonl "
                 "--temperature 0\n\n"
                 "Options:\n");
    cfg_help(generate_options, out);
}

static struct writer_how how_of(const struct generate_args *a)
{
    return (struct writer_how){ .tokens = a->tokens, .seed = a->seed, .sample = a->how };
}

/* ---- one text --------------------------------------------------------------------------- */

static kr_status write_text(struct voice *v, const struct generate_args *a)
{
    TRY(voice_text(v, a->prompt));
    if (v->tokenizer) fputs(a->prompt, stdout);
    TRY(voice_answer(v, how_of(a), stdout));
    putchar('\n');
    return KR_OK;
}

/* ---- a chat ----------------------------------------------------------------------------- */

enum { CHAT_TURNS = 1024 };

struct chat {
    struct chat_turn turns[CHAT_TURNS];
    char *texts[CHAT_TURNS]; /* owned */
    int count, pinned;       /* pinned: the system's turn stays */
};

static void forget(struct chat *c, int at, int count)
{
    for (int i = at; i < at + count; i++)
        free(c->texts[i]);
    memmove(c->turns + at, c->turns + at + count,
            (size_t)(c->count - at - count) * sizeof *c->turns);
    memmove(c->texts + at, c->texts + at + count,
            (size_t)(c->count - at - count) * sizeof *c->texts);
    c->count -= count;
}

static kr_status say(struct chat *c, enum chat_role role, const char *text)
{
    char *copy = strdup(text);

    if (!copy) return KR_FAIL(KR_ERR_MEM, "no memory for a chat");
    if (c->count == CHAT_TURNS) forget(c, c->pinned, 2);
    c->texts[c->count] = copy;
    c->turns[c->count++] = (struct chat_turn){ role, copy, false };
    return KR_OK;
}

/* The oldest question and answer are forgotten while the talk is longer than the context. */
static kr_status answer(struct voice *v, struct chat *c, const struct generate_args *a)
{
    TRY(voice_turns(v, c->turns, c->count));
    while ((int64_t)v->ids.count >= v->l->set.context && c->count - c->pinned > 2) {
        forget(c, c->pinned, 2);
        TRY(voice_turns(v, c->turns, c->count));
    }
    TRY(voice_answer(v, how_of(a), stdout));
    putchar('\n');
    return say(c, CHAT_ASSISTANT, v->answer.at);
}

static kr_status talk(struct voice *v, struct chat *c, const struct generate_args *a)
{
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    kr_status st = KR_OK;

    if (a->system[0]) st = say(c, CHAT_SYSTEM, a->system);
    c->pinned = c->count;
    if (st == KR_OK && a->prompt[0]) {
        st = say(c, CHAT_USER, a->prompt);
        return st == KR_OK ? answer(v, c, a) : st;
    }
    while (st == KR_OK) {
        if (terminal) fputs("> ", stderr);
        if ((n = getline(&line, &room, stdin)) <= 0) break;
        if (line[n - 1] == '\n') line[n - 1] = '\0';
        if (line[0]) st = say(c, CHAT_USER, line);
        if (line[0] && st == KR_OK) st = answer(v, c, a);
    }
    free(line);
    return st;
}

static kr_status hold_chat(struct voice *v, const struct generate_args *a)
{
    struct chat *c = NULL;
    kr_status st;

    TRY(mem_alloc(&c, 1, sizeof *c, "chat"));
    st = talk(v, c, a);
    forget(c, 0, c->count);
    mem_free(c);
    return st;
}

/* ---- a file ----------------------------------------------------------------------------- */

static kr_status answer_file(struct voice *v, const struct generate_args *a)
{
    struct questions q = { 0 };
    struct mem_text out = { 0 };
    struct writer_how how = how_of(a);
    kr_status st;

    TRY_OR(st, questions_read(&q, a->in, false), done);
    for (int64_t i = 0; i < q.count && st == KR_OK; i++) {
        st = questions_answer(&q, i, v, how);
        if (st == KR_OK) questions_print(&q, i, &out);
        questions_tell(&q, i + 1);
    }
    if (st != KR_OK) goto done;
    if (strcmp(a->out, "-") == 0)
        fwrite(out.at, 1, out.len, stdout);
    else
        st = fs_replace(a->out, out.at, out.len);
done:
    questions_free(&q);
    mem_text_free(&out);
    return st;
}

/* ---- front ------------------------------------------------------------------------------ */

static kr_status generate(struct loaded *l, struct comm *c, const struct options *o,
                          const struct generate_args *a)
{
    struct voice v;
    kr_status st;

    TRY(load_model(l, c, o->path, o->sets, o->set_count));
    TRY(voice_open(&v, l, a->cache));
    st = a->in[0] ? answer_file(&v, a) : a->chat ? hold_chat(&v, a) : write_text(&v, a);
    voice_close(&v);
    return st;
}

int generate_command(int argc, char **argv)
{
    struct loaded l = { 0 };
    struct options o;
    struct generate_args a;
    struct settings set;
    struct comm *c = NULL;
    kr_status st;

    if (options_read(argc, argv, generate_options, &a, &o) != KR_OK) return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    if (!o.path) {
        (void)KR_FAIL(KR_ERR_ARG, "generate: DIR is missing");
        return EXIT_USAGE;
    }
    if (load_check_sets(o.sets, o.set_count, &set) != KR_OK) return EXIT_USAGE;
    strcpy(set.backend, "self"); /* one sequence needs one rank */
    st = start_comm(&c, &set);
    if (st != KR_OK) return exit_code_of(st);
    st = generate(&l, c, &o, &a);
    load_close(&l);
    return end_comm(c, st, true, exit_code_of(st));
}
