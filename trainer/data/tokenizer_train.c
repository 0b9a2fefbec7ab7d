/* tokenizer_train.c - count pieces on all cores, learn merges, write the file. */
#include "trainer/data/tokenizer_train.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "trainer/data/documents.h"
#include "trainer/data/parallel.h"
#include "trainer/data/steps.h"
#include "trainer/data/tokenizer_parts.h"
#include "trainer/data/tokenizer_write.h"

enum { BLOCKS_A_CORE = 4 };

struct counter { /* one a thread */
    const struct steps *steps;
    struct steps_work work;
    struct corpus corpus;
};

struct job {
    struct block block;
    struct mem_text error;
};

struct training {
    const struct tokenizer_plan *plan;
    const char *pattern;
    struct steps steps;
    int threads;
    struct counter *counters;
    struct job *jobs;
    struct documents *in;
    int64_t bytes;
    double started, told;
    bool terminal;
};

static const char *pattern_text(const char *name)
{
    return strcmp(name, "gpt2") == 0     ? pattern_gpt2
           : strcmp(name, "llama3") == 0 ? pattern_llama3
                                         : NULL;
}

/* ---- progress --------------------------------------------------------------------------- */

static bool quiet(struct training *t, bool last)
{
    double now = clock_now();

    if (!last && now - t->told < (t->terminal ? 0.2 : 2)) return true;
    t->told = now;
    if (t->terminal) fputs("\r\033[K", stderr);
    return false;
}

static void tell_reading(struct training *t, bool last)
{
    double mb = (double)t->bytes / 1e6;

    if (quiet(t, last)) return;
    fprintf(stderr, "read %.1f MB, %.1f MB/s%s", mb,
            mb / (clock_now() - t->started + 1e-9), t->terminal && !last ? "" : "\n");
}

static void tell_merges(void *arg, int64_t merges)
{
    struct training *t = arg;

    if (quiet(t, false)) return;
    fprintf(stderr, "%" PRId64 " merges of %" PRId64 "%s", merges,
            t->plan->vocab - 256 - t->plan->special_count, t->terminal ? "" : "\n");
}

/* ---- counting --------------------------------------------------------------------------- */

static kr_status count_piece(void *arg, const char *piece, size_t len)
{
    return corpus_add(arg, piece, len, 1);
}

static kr_status count_text(void *arg, const char *text, size_t len, bool ends)
{
    struct counter *c = arg;

    (void)ends;
    return steps_run(c->steps, &c->work, text, len, true, count_piece, &c->corpus);
}

static kr_status count_block(void *arg, int worker, int64_t item)
{
    struct training *t = arg;
    struct job *j = &t->jobs[item];

    return documents_each(&j->block, t->plan->key, count_text, &t->counters[worker],
                          &j->error);
}

static kr_status read_round(struct training *t, int64_t *count)
{
    bool more = true;

    *count = 0;
    while (more && *count < t->threads * BLOCKS_A_CORE) {
        TRY(documents_next(t->in, &t->jobs[*count].block, &more));
        if (!more) break;
        t->bytes += (int64_t)t->jobs[*count].block.raw.len;
        ++*count;
    }
    return KR_OK;
}

static kr_status count_all(struct training *t)
{
    int64_t count;

    do {
        kr_status st;

        TRY(read_round(t, &count));
        st = parallel_run(t->threads, count, count_block, t);
        for (int64_t i = 0; i < count; i++)
            if (t->jobs[i].error.len)
                return KR_FAIL(KR_ERR_ARG, "%s", t->jobs[i].error.at);
        TRY(st);
        tell_reading(t, false);
    } while (count > 0);
    tell_reading(t, true);
    for (int i = 1; i < t->threads; i++)
        TRY(corpus_join(&t->counters[0].corpus, &t->counters[i].corpus));
    return KR_OK;
}

/* ---- all of it -------------------------------------------------------------------------- */

/* Nothing is written that cannot be read: a special token may be what was learned, too. */
static kr_status put_readable(const char *path, const struct mem_text *text)
{
    struct tokenizer *t = NULL;
    char new[FS_PATH];
    kr_status st;

    TRY(fs_path(new, "%s.new", path));
    st = fs_replace(new, text->at, text->len);
    if (st == KR_OK) st = tokenizer_open(&t, new);
    if (st == KR_OK) st = fs_replace(path, text->at, text->len);
    tokenizer_close(t);
    (void)unlink(new);
    return st;
}

static kr_status write_file(const struct training *t, const struct bpe_merge *m,
                            int64_t merges)
{
    const struct tokenizer_plan *p = t->plan;
    struct mem_text out = { 0 };
    kr_status st =
        tokenizer_print(&out, t->pattern, m, merges, p->specials, p->special_count);

    if (st == KR_OK) st = put_readable(p->out, &out);
    mem_text_free(&out);
    return st;
}

static kr_status learn(struct training *t)
{
    const struct tokenizer_plan *p = t->plan;
    int64_t most = p->vocab - 256 - p->special_count, merges = 0;
    const struct corpus *c = &t->counters[0].corpus;
    struct bpe_merge *m = NULL;
    kr_status st;

    TRY(mem_alloc(&m, (size_t)most + 1, sizeof *m, "merges"));
    st = bpe_learn(c, most, m, &merges, tell_merges, t);
    if (st == KR_OK) st = write_file(t, m, merges);
    if (st == KR_OK)
        fprintf(stderr,
                "%s%s: %" PRId64 " ids, of %" PRId64 " different pieces, %.1f s\n",
                t->terminal ? "\r\033[K" : "", p->out, 256 + merges + p->special_count,
                c->pieces.count, clock_now() - t->started);
    mem_free(m);
    return st;
}

/* What can be said before the minutes that learning takes. */
static kr_status check_specials(const struct tokenizer_plan *p)
{
    for (int i = 0; i < p->special_count; i++) {
        if (strlen(p->specials[i]) < 2)
            return KR_FAIL(KR_ERR_ARG,
                           "tokenizer: --special \"%s\": want two bytes at least",
                           p->specials[i]);
        for (int k = 0; k < i; k++)
            if (strcmp(p->specials[i], p->specials[k]) == 0)
                return KR_FAIL(KR_ERR_ARG, "tokenizer: --special %s: is there twice",
                               p->specials[i]);
    }
    return KR_OK;
}

static kr_status open_training(struct training *t)
{
    const struct tokenizer_plan *p = t->plan;
    struct step split = { .kind = STEP_SPLIT, .how = SPLIT_ISOLATED };

    t->pattern = pattern_text(p->pattern);
    t->threads = p->threads ? p->threads : parallel_cores();
    t->terminal = isatty(STDERR_FILENO);
    t->started = t->told = clock_now();
    if (!t->pattern)
        return KR_FAIL(KR_ERR_ARG, "tokenizer: --pattern %s: want gpt2 or llama3",
                       p->pattern);
    if (p->vocab < 256 + p->special_count || p->vocab > TOKENIZER_MOST_IDS)
        return KR_FAIL(KR_ERR_ARG,
                       "tokenizer: --vocab %" PRId64
                       ": want at least %d (the bytes and the "
                       "special tokens) and at most %d",
                       p->vocab, 256 + p->special_count, TOKENIZER_MOST_IDS);
    TRY(check_specials(p));
    if (!p->replace && fs_exists(p->out))
        return KR_FAIL(KR_ERR_ARG, "%s: exists already; --force replaces it", p->out);
    TRY(pattern_open(&split.pattern, t->pattern, false));
    TRY(steps_add(&t->steps, split));
    TRY(mem_alloc(&t->counters, (size_t)t->threads, sizeof *t->counters, "counters"));
    for (int i = 0; i < t->threads; i++)
        t->counters[i].steps = &t->steps;
    TRY(mem_alloc(&t->jobs, (size_t)t->threads * BLOCKS_A_CORE, sizeof *t->jobs,
                  "blocks"));
    TRY(documents_open(&t->in, p->files, p->file_count, CUT_LINES));
    return fs_mkdirs_of(p->out); /* not after the minutes that learning takes */
}

static void close_training(struct training *t)
{
    for (int i = 0; t->counters && i < t->threads; i++) {
        steps_work_free(&t->counters[i].work);
        corpus_free(&t->counters[i].corpus);
    }
    for (int i = 0; t->jobs && i < t->threads * BLOCKS_A_CORE; i++) {
        mem_text_free(&t->jobs[i].block.raw);
        mem_text_free(&t->jobs[i].error);
    }
    mem_free(t->counters);
    mem_free(t->jobs);
    documents_close(t->in);
    steps_free(&t->steps);
}

kr_status tokenizer_train(const struct tokenizer_plan *p)
{
    struct training t = { .plan = p };
    kr_status st;

    TRY_OR(st, open_training(&t), done);
    TRY_OR(st, count_all(&t), done);
    st = learn(&t);
done:
    close_training(&t);
    return st;
}
