/*
 * choices.h - multiple choice questions as tokens.
 *
 *   *.jsonl   {"ctx": "...", "endings": ["...", ...], "label": 2}          (HellaSwag)
 *             {"question": "...", "choices": [...], "answer": 2}           the same
 *   *.bin     llm.c's evaluation file: header of 256 int32 (20240522, 1, examples, longest
 *             example in bytes), then uint16 words
 *
 * Endings of JSON lines are encoded by themselves with a space in front, as the published
 * figures are made.
 */
#ifndef TRAIN_CHOICES_H
#define TRAIN_CHOICES_H

#include "trainer/data/tokenizer.h"

enum { CHOICES_MOST = 64 };

struct choice_question {
    int64_t context, context_len; /* first token and how many, in ids */
    int64_t ending[CHOICES_MOST], ending_len[CHOICES_MOST];
    int32_t count, label;
};

/* Zero-initialise. */
struct choices {
    struct ids ids;
    struct choice_question *list;
    int64_t count;
    size_t room;
};

/* t may be NULL for a .bin file.  Every id is below vocab.  KR_ERR_ARG with one line: what is
 * wrong, and in which line or example. */
kr_status choices_read(struct choices *c, const char *path, const struct tokenizer *t,
                       int64_t vocab);
void choices_free(struct choices *c);

#endif
