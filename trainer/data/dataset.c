/* dataset.c - windows of tokens, or rows of examples. */
#include "trainer/data/dataset.h"

#include <inttypes.h>
#include <string.h>

#include "base/rng.h"
#include "trainer/data/order.h"

struct dataset {
    struct dataset_config c;
    struct tokens *tokens; /* one of the two */
    struct examples *examples;
    struct tokenizer *tokenizer;
};

static bool is_jsonl(const char *path)
{
    size_t n = strlen(path);

    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

static kr_status open_tokens(struct dataset *d)
{
    const struct dataset_config *c = &d->c;

    TRY(tokens_open(&d->tokens, c->path, c->part, c->held_out, c->vocab));
    if (tokens_count(d->tokens) > c->context) return KR_OK;
    return KR_FAIL(KR_ERR_ARG,
                   "%s%s: %" PRId64 " tokens are too few for one sequence of "
                   "model.context = %" PRId64 " and its last label",
                   c->part == TOKENS_HELD_OUT ? "held out part of " : "", c->path,
                   tokens_count(d->tokens), c->context);
}

static kr_status open_examples(struct dataset *d)
{
    const struct dataset_config *c = &d->c;
    const char *name = c->tokenizer[0]                 ? c->tokenizer
                       : c->vocab == TOKENS_BYTE_VOCAB ? "byte"
                                                       : NULL;
    struct examples_config e = { .path = c->path,
                                 .part = c->part,
                                 .held_out = c->held_out,
                                 .template = c->template,
                                 .context = c->context };

    if (!name)
        return KR_FAIL(KR_ERR_ARG, "%s: to read examples name data.tokenizer", c->path);
    TRY(tokenizer_open(&d->tokenizer, name));
    if (tokenizer_size(d->tokenizer) > c->vocab)
        return KR_FAIL(KR_ERR_ARG,
                       "data.tokenizer = %s: %" PRId64
                       " ids are more than model.vocab = %" PRId64,
                       name, tokenizer_size(d->tokenizer), c->vocab);
    e.tokenizer = d->tokenizer;
    return examples_open(&d->examples, &e);
}

kr_status dataset_open(struct dataset **out, const struct dataset_config *c)
{
    struct dataset *d = NULL;
    kr_status st;

    TRY(mem_alloc(&d, 1, sizeof *d, "data"));
    d->c = *c;
    st = is_jsonl(c->path) ? open_examples(d) : open_tokens(d);
    if (st == KR_OK)
        *out = d;
    else
        dataset_close(d);
    return st;
}

void dataset_close(struct dataset *d)
{
    if (!d) return;
    tokens_close(d->tokens);
    examples_close(d->examples);
    tokenizer_close(d->tokenizer);
    mem_free(d);
}

const char *dataset_describe(const struct dataset *d)
{
    return d->tokens ? tokens_describe(d->tokens) : examples_describe(d->examples);
}

bool dataset_has_starts(const struct dataset *d) { return d->examples != NULL; }

int64_t dataset_epoch(const struct dataset *d)
{
    return d->tokens ? order_epoch(tokens_count(d->tokens), d->c.context)
                     : examples_rows(d->examples);
}

int64_t dataset_windows(const struct dataset *d)
{
    return d->tokens ? (tokens_count(d->tokens) - 1) / d->c.context
                     : examples_rows(d->examples);
}

static kr_status read_tokens(const struct dataset *d, int64_t first,
                             const struct dataset_row *row, int64_t *labels)
{
    int64_t seq = d->c.context;

    TRY(tokens_read(d->tokens, first, seq, row->token));
    TRY(tokens_read(d->tokens, first + 1, seq, row->label));
    *labels = seq;
    return KR_OK;
}

static kr_status read_examples(const struct dataset *d, int64_t i,
                               const struct dataset_row *row, int64_t *labels)
{
    int64_t n = 0;

    examples_row(d->examples, i, d->c.ignore, row->token, row->label, row->start);
    for (int64_t k = 0; k < d->c.context; k++)
        n += row->label[k] != d->c.ignore;
    *labels = n;
    return KR_OK;
}

kr_status dataset_sample(const struct dataset *d, uint64_t seed, int64_t n,
                         const struct dataset_row *row, int64_t *labels)
{
    int64_t rows = dataset_epoch(d);

    if (d->tokens)
        return read_tokens(d, order_first(seed, tokens_count(d->tokens), d->c.context, n),
                           row, labels);
    return read_examples(d,
                         (int64_t)rng_permute(seed, RNG_ORDER, (uint32_t)(n / rows),
                                              (uint64_t)rows, (uint64_t)(n % rows)),
                         row, labels);
}

kr_status dataset_window(const struct dataset *d, int64_t i,
                         const struct dataset_row *row, int64_t *labels)
{
    return d->tokens ? read_tokens(d, i * d->c.context, row, labels)
                     : read_examples(d, i, row, labels);
}
