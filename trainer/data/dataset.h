/*
 * dataset.h - rows of tokens and labels, whatever they come from.
 *
 * Two kinds: a row of tokens cut into windows (tokens.h, order.h), and labelled examples
 * packed into rows (examples.h; paths that end in .jsonl).  Which row is sample number n is
 * a pure function of (seed, n).
 */
#ifndef TRAIN_DATASET_H
#define TRAIN_DATASET_H

#include "trainer/data/examples.h"

struct dataset; /* opaque */

struct dataset_config {
    const char *path;
    enum tokens_part part;
    double held_out;
    int64_t vocab, context;
    const char *tokenizer; /* for examples; "": none was named */
    int template;          /* of CHAT_CHOICES */
    int32_t ignore;        /* label of a place without one */
};

/* KR_ERR_ARG: as tokens_open and examples_open, or too few tokens for one sequence. */
kr_status dataset_open(struct dataset **out, const struct dataset_config *c);
void dataset_close(struct dataset *d); /* NULL is fine */

const char *dataset_describe(const struct dataset *d);
bool dataset_has_starts(const struct dataset *d); /* rows hold several documents */

int64_t dataset_epoch(const struct dataset *d);   /* samples in a pass over the data */
int64_t dataset_windows(const struct dataset *d); /* rows of an evaluation */

/* Room for one row on the host; start is written if there are starts, counted from the
 * row's first place.  *labels: places that have one. */
struct dataset_row {
    int32_t *token, *label, *start;
};
kr_status dataset_sample(const struct dataset *d, uint64_t seed, int64_t n,
                         const struct dataset_row *row, int64_t *labels);
kr_status dataset_window(const struct dataset *d, int64_t i,
                         const struct dataset_row *row, int64_t *labels);

#endif
