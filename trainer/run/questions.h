/*
 * questions.h - a file of records that a model answers, and whether it answers as they say.
 */
#ifndef TRAIN_QUESTIONS_H
#define TRAIN_QUESTIONS_H

#include "trainer/run/voice.h"

struct question {
    cJSON *object;        /* the record as it was */
    const char *expected; /* its own answer, NULL: it has none */
    char *generated;      /* what the model said */
};

/* Zero-initialise. */
struct questions {
    struct question *list;
    int64_t count;
    size_t room;
    struct record *record; /* scratch */
    double started, told;
    const char *path;
};

/* Records of a file of JSON lines.  answered: each must have an answer.  KR_ERR_ARG names
 * the line. */
kr_status questions_read(struct questions *q, const char *path, bool answered);
void questions_free(struct questions *q);

/* Let the model answer number i. */
kr_status questions_answer(struct questions *q, int64_t i, struct voice *v,
                           struct writer_how how);

/* Did it say exactly what is expected (white space around it aside)? */
bool questions_right(const struct questions *q, int64_t i);

/* Append the record with "generated" as a JSON line. */
void questions_print(const struct questions *q, int64_t i, struct mem_text *out);

/* A progress line on standard error after `done` answers. */
void questions_tell(struct questions *q, int64_t done);

#endif
