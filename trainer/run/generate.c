/*
 * generate.c - `generate`: let a model go on with a text.
 *
 * One token at a time, each from a forward over the last `context` tokens.  Choices are a
 * function of (seed, number of the token) and the logits, so the same call gives the same
 * text.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "scheduler/exitcode.h"
#include "trainer/run/commands.h"
#include "trainer/run/load.h"
#include "trainer/run/options.h"
#include "trainer/run/sample.h"

struct generate_args {
    char prompt[1100];
    int64_t tokens, seed;
    struct sample_how how;
};

/* clang-format off */
#define G struct generate_args
static const struct cfg_field generate_options[] = {
    CFG_TEXT(G, prompt, "prompt", "", "text to go on with (bytes); for other vocabularies, token ids with spaces"),
    CFG_INT (G, tokens, "tokens", "200", 1, 1e6, "tokens to make at most; the end token ends it"),
    CFG_REAL(G, how.temperature, "temperature", "0.8", 0, 100, "0: always the likeliest token"),
    CFG_INT (G, how.top_k, "top-k", "0", 0, 1e9, "choose among the k likeliest; 0: all"),
    CFG_REAL(G, how.top_p, "top-p", "1", 0, 1, "choose among the likeliest that reach this probability"),
    CFG_INT (G, seed, "seed", "1", 0, 1e15, "same seed, same text"),
    { .name = NULL },
};
#undef G
/* clang-format on */

static void help(FILE *out)
{
    fprintf(
        out,
        "usage: kilorank generate DIR [--prompt TEXT] [--tokens N] ...\n\n"
        "Write a text that the newest valid checkpoint of run DIR, or checkpoint DIR,\n"
        "makes of the prompt.\n\n"
        "  kilorank generate runs/a --prompt 'This license' --temperature 0.7\n\n"
        "Options:\n");
    cfg_help(generate_options, out);
}

static bool speaks_bytes(const struct settings *s)
{
    return s->vocab == TOKENS_BYTE_VOCAB;
}

/* Bytes of the prompt, or ids.  At least one token: the end token starts a document. */
static kr_status read_prompt(const struct generate_args *a, const struct settings *s,
                             int32_t *out, int64_t *count)
{
    const char *p = a->prompt;
    char *end;

    *count = 0;
    if (speaks_bytes(s)) {
        out[(*count)++] = TOKENS_END;
        for (; *p; p++)
            out[(*count)++] = (uint8_t)*p;
        return KR_OK;
    }
    for (; *p; p = end + strspn(end, " ")) {
        long long id = strtoll(p, &end, 10);

        if (end == p || id < 0 || id >= s->vocab)
            return KR_FAIL(KR_ERR_ARG,
                           "generate: prompt: want token ids below %" PRId64
                           " with spaces between",
                           s->vocab);
        out[(*count)++] = (int32_t)id;
    }
    return *count ? KR_OK : KR_FAIL(KR_ERR_ARG, "generate: this model needs a --prompt");
}

static void put_token(const struct settings *s, int32_t id)
{
    if (speaks_bytes(s))
        fputc(id, stdout);
    else
        printf("%d ", id);
    fflush(stdout);
}

static double as_double(const void *raw, int64_t i, enum kern_dtype type)
{
    switch (type) {
    case KERN_F64: return ((const double *)raw)[i];
    case KERN_F32: return (double)((const float *)raw)[i];
    case KERN_BF16: return (double)bf16_value(((const uint16_t *)raw)[i]);
    }
    return 0;
}

/* Logits after the last of `count` tokens, to the host as doubles. */
static kr_status predict(struct trainer *t, const int32_t *token, int64_t count,
                         struct kern_mat logits, void *raw, double *out)
{
    int64_t n = count < t->set.context ? count : t->set.context;
    struct batch b = { .token = t->token, .sequences = 1, .seq = n };
    size_t elem = kern_dtype_bytes(logits.type);

    TRY(kern_upload(t->q, t->token, token + count - n, (size_t)n * sizeof *token));
    TRY(model_logits(t->model, shard_weights(t->shard), &b, logits));
    TRY(kern_download(t->q, raw, logits.at, (size_t)logits.cols * elem));
    TRY(kern_queue_sync(t->q));
    for (int64_t i = 0; i < logits.cols; i++)
        out[i] = as_double(raw, i, logits.type);
    return KR_OK;
}

static kr_status go_on(struct trainer *t, const struct generate_args *a, int32_t *token,
                       int64_t count)
{
    size_t vocab = (size_t)t->set.vocab,
           elem = kern_dtype_bytes(kern_device_type(t->device));
    double *logits = NULL;
    void *raw = NULL, *at = NULL;
    kr_status st;

    TRY_OR(st, mem_alloc(&logits, vocab, sizeof *logits, "logits"), done);
    TRY_OR(st, mem_alloc(&raw, vocab, elem, "logits"), done);
    TRY_OR(st, kern_alloc(t->device, &at, vocab * elem, "logits"), done);
    for (int64_t i = 0; i < a->tokens; i++) {
        struct kern_mat row = kern_mat(at, 1, t->set.vocab, kern_device_type(t->device));
        double u = rng_uniform((uint64_t)a->seed, RNG_SAMPLE, 0, (uint64_t)i);

        TRY_OR(st, predict(t, token, count, row, raw, logits), done);
        TRY_OR(st, sample_token(logits, t->set.vocab, &a->how, u, &token[count]), done);
        if (speaks_bytes(&t->set) && token[count] == TOKENS_END) break;
        put_token(&t->set, token[count++]);
    }
    putchar('\n');
done:
    kern_free(t->device, at);
    mem_free(logits);
    mem_free(raw);
    return st;
}

static kr_status generate(struct loaded *l, struct comm *c, const struct options *o,
                          const struct generate_args *a)
{
    int32_t *token = NULL;
    int64_t count;
    kr_status st;

    TRY(load_model(l, c, o->path, o->sets, o->set_count));
    TRY(mem_alloc(&token, sizeof a->prompt + (size_t)a->tokens + 1, sizeof *token,
                  "tokens"));
    st = read_prompt(a, &l->set, token, &count);
    if (st == KR_OK) {
        if (speaks_bytes(&l->set)) fputs(a->prompt, stdout);
        st = go_on(&l->trainer, a, token, count);
    }
    mem_free(token);
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
