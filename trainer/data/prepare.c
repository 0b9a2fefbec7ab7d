/*
 * prepare.c - rounds of: read blocks, encode them on all cores, write them in order.
 *
 * A round takes a few blocks per core.  Reading and writing are not overlapped with the
 * encoding: both run at the speed of memory or disk, and threads that are started once a
 * round cost far less than a block.
 */
#include "trainer/data/prepare.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/options.h"
#include "scheduler/exitcode.h"
#include "trainer/data/documents.h"
#include "trainer/data/parallel.h"
#include "trainer/data/token_writer.h"
#include "trainer/data/tokenizer.h"

enum { BLOCKS_A_CORE = 4, MOST_THREADS = 1024 };

struct args {
    char tokenizer[FS_PATH], output[FS_PATH], key[256], end[256];
    bool no_end, template, specials, force;
    int64_t threads;
};

/* clang-format off */
#define A struct args
static const struct cfg_field prepare_options[] = {
    CFG_TEXT(A, tokenizer, "tokenizer", "", "byte (257 ids: bytes and an end), or the path of a tokenizer.json with a BPE model"),
    CFG_TEXT(A, output, "output", "", "PREFIX of the files to write (also: -o)"),
    CFG_TEXT(A, key, "key", "text", "member of a JSON line that holds the text"),
    CFG_TEXT(A, end, "end", "", "token behind each document; empty: <|endoftext|>, </s> or the like"),
    CFG_FLAG(A, no_end, "no-end", "false", "no token behind a document"),
    CFG_FLAG(A, template, "template", "false", "put around each document what the tokenizer's post_processor says"),
    CFG_FLAG(A, specials, "specials", "false", "special tokens written in the text count as such"),
    CFG_INT (A, threads, "threads", "0", 0, MOST_THREADS, "cores to use; 0: all"),
    CFG_FLAG(A, force, "force", "false", "replace existing files"),
    { .name = NULL },
};
#undef A
/* clang-format on */

/* A block on its way from text to tokens. */
struct job {
    struct block block;
    struct ids ids;
    size_t *ends; /* documents end behind so many ids */
    size_t end_count, end_room;
    struct mem_text error;
};

struct work {
    const struct args *args;
    const struct options *options;
    struct tokenizer *tokenizer;
    int32_t end; /* token behind each document; -1: none */
    struct encoder **encoders;
    int threads;
    struct job *jobs;
    struct documents *in;
    struct token_writer *out;
    double started, told;
    int64_t bytes, all_bytes;
    bool terminal;
};

static void help(FILE *out)
{
    fputs(
        "usage: kilorank prepare FILE... --tokenizer byte|tokenizer.json -o PREFIX\n"
        "                        [--key text] [--no-end] [--force] ...\n\n"
        "Turn text into PREFIX.bin and PREFIX.idx (Megatron's format) for data.train "
        "and\n"
        "data.valid, on all cores.  FILE is plain text, one document each, or *.jsonl, "
        "one\n"
        "JSON object with member --key a line; - is text from standard input.\n\n"
        "  kilorank prepare corpus/*.jsonl --tokenizer byte -o data/corpus\n\nOptions:\n",
        out);
    cfg_help(prepare_options, out);
}

static kr_status check_args(const struct args *a, const struct options *o)
{
    if (!o->path) return KR_FAIL(KR_ERR_ARG, "prepare: no FILE to read");
    if (!a->output[0]) return KR_FAIL(KR_ERR_ARG, "prepare: -o PREFIX is missing");
    if (a->tokenizer[0]) return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "prepare: --tokenizer is missing: want byte or the path "
                               "of a tokenizer.json");
}

/* ---- signals ---------------------------------------------------------------------------- */

static volatile sig_atomic_t ended_by;

static void on_signal(int number) { ended_by = number; }

/* What is half written goes away before the command ends; a second signal ends it at once. */
static void watch_signals(void)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction old,
        new = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &new, NULL);
}

/* End as whoever sent the signal expects it. */
static void end_by_signal(void)
{
    if (!ended_by) return;
    (void)signal(ended_by, SIG_DFL);
    (void)raise(ended_by);
}

/* ---- one block -------------------------------------------------------------------------- */

struct encoding {
    struct work *w;
    struct job *job;
    struct encoder *encoder;
};

static kr_status put_end(struct encoding *c)
{
    struct job *j = c->job;

    if (c->w->end >= 0) TRY(ids_add(&j->ids, &c->w->end, 1));
    TRY(mem_grow(&j->ends, &j->end_room, j->end_count + 1, sizeof *j->ends, "documents"));
    j->ends[j->end_count++] = j->ids.count;
    return KR_OK;
}

static kr_status put_text(void *arg, const char *text, size_t len, bool ends)
{
    struct encoding *c = arg;
    const struct args *a = c->w->args;
    unsigned flags =
        (a->specials ? ENCODE_SPECIALS : 0u) | (a->template ? ENCODE_TEMPLATE : 0u);

    TRY(encoder_add(c->encoder, text, len, flags, &c->job->ids));
    return ends ? put_end(c) : KR_OK;
}

static kr_status encode_block(void *arg, int worker, int64_t item)
{
    struct work *w = arg;
    struct job *j = &w->jobs[item];
    struct encoding c = { w, j, w->encoders[worker] };

    return documents_each(&j->block, w->args->key, put_text, &c, &j->error);
}

static kr_status write_block(struct work *w, const struct job *j)
{
    size_t at = 0;

    for (size_t i = 0; i < j->end_count; i++) {
        TRY(token_writer_add(w->out, j->ids.at + at, j->ends[i] - at));
        TRY(token_writer_end(w->out));
        at = j->ends[i];
    }
    return token_writer_add(w->out, j->ids.at + at, j->ids.count - at);
}

/* ---- rounds ----------------------------------------------------------------------------- */

static void tell(struct work *w, bool last)
{
    double now = clock_now(), mb = (double)w->bytes / 1e6,
           rate = mb / (now - w->started + 1e-9);

    if (!last && now - w->told < (w->terminal ? 0.2 : 2)) return;
    w->told = now;
    fprintf(stderr, "%s%" PRId64 " documents, %.1f MB, %" PRId64 " tokens, %.1f MB/s",
            w->terminal ? "\r\033[K" : "", token_writer_documents(w->out), mb,
            token_writer_tokens(w->out), rate);
    if (!last && w->all_bytes > 0)
        fprintf(stderr, ", %.0f%%, %.0f s to go",
                100.0 * (double)w->bytes / (double)w->all_bytes,
                ((double)w->all_bytes / 1e6 - mb) / rate);
    fputs(w->terminal && !last ? "" : "\n", stderr);
}

static kr_status read_round(struct work *w, int64_t *count)
{
    bool more = true;

    *count = 0;
    while (more && *count < w->threads * BLOCKS_A_CORE) {
        struct job *j = &w->jobs[*count];

        TRY(documents_next(w->in, &j->block, &more));
        if (!more) break;
        j->ids.count = j->end_count = j->error.len = 0;
        w->bytes += (int64_t)j->block.raw.len;
        ++*count;
    }
    return KR_OK;
}

static kr_status run_round(struct work *w, int64_t count)
{
    kr_status st = parallel_run(w->threads, count, encode_block, w);

    for (int64_t i = 0; i < count; i++) {
        if (w->jobs[i].error.len) return KR_FAIL(KR_ERR_ARG, "%s", w->jobs[i].error.at);
        if (st == KR_OK) TRY(write_block(w, &w->jobs[i]));
    }
    return st;
}

static kr_status run_all(struct work *w)
{
    int64_t count;

    w->started = w->told = clock_now();
    do {
        TRY(read_round(w, &count));
        TRY(run_round(w, count));
        if (ended_by) return KR_FAIL(KR_ERR_IO, "prepare: interrupted");
        tell(w, false);
    } while (count > 0);
    TRY(token_writer_finish(w->out));
    tell(w, true);
    return KR_OK;
}

/* ---- life ------------------------------------------------------------------------------- */

static kr_status choose_end(struct work *w)
{
    const struct args *a = w->args;

    w->end = -1;
    if (a->no_end) return KR_OK;
    w->end =
        a->end[0] ? tokenizer_find(w->tokenizer, a->end) : tokenizer_end(w->tokenizer);
    if (w->end >= 0) return KR_OK;
    return KR_FAIL(KR_ERR_ARG,
                   "prepare: %s has no token %s; name one with --end, or take "
                   "--no-end",
                   a->tokenizer, a->end[0] ? a->end : "that usually ends a document");
}

static kr_status open_work(struct work *w)
{
    const struct args *a = w->args;
    size_t threads = a->threads ? (size_t)a->threads : (size_t)parallel_cores();

    w->threads = (int)threads;
    w->terminal = isatty(STDERR_FILENO);
    TRY(tokenizer_open(&w->tokenizer, a->tokenizer));
    TRY(choose_end(w));
    TRY(mem_alloc(&w->encoders, threads, sizeof *w->encoders, "encoders"));
    for (size_t i = 0; i < threads; i++)
        TRY(encoder_open(&w->encoders[i], w->tokenizer));
    TRY(mem_alloc(&w->jobs, threads * BLOCKS_A_CORE, sizeof *w->jobs, "blocks"));
    TRY(documents_open(&w->in, w->options->words, w->options->word_count,
                       tokenizer_cut(w->tokenizer)));
    w->all_bytes = documents_bytes(w->in);
    return token_writer_open(&w->out, a->output, tokenizer_size(w->tokenizer), a->force);
}

static void close_work(struct work *w)
{
    for (int i = 0; w->encoders && i < w->threads; i++)
        encoder_close(w->encoders[i]);
    for (int i = 0; w->jobs && i < w->threads * BLOCKS_A_CORE; i++) {
        mem_text_free(&w->jobs[i].block.raw);
        mem_text_free(&w->jobs[i].error);
        ids_free(&w->jobs[i].ids);
        mem_free(w->jobs[i].ends);
    }
    mem_free(w->encoders);
    mem_free(w->jobs);
    documents_close(w->in);
    token_writer_close(w->out);
    tokenizer_close(w->tokenizer);
}

int prepare_main(int argc, char **argv)
{
    struct args a;
    struct options o;
    struct work w = { .args = &a, .options = &o };
    kr_status st;

    if (options_read_words(argc, argv, prepare_options, &a, NULL, &o) != KR_OK)
        return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    watch_signals();
    st = check_args(&a, &o);
    if (st == KR_OK) st = open_work(&w);
    if (st == KR_OK) st = run_all(&w);
    close_work(&w);
    end_by_signal();
    return st == KR_OK        ? EXIT_DONE
           : st == KR_ERR_ARG ? EXIT_USAGE
           : st == KR_ERR_IO  ? EXIT_IO
                              : EXIT_FAILED;
}
