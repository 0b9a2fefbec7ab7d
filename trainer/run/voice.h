/*
 * voice.h - a model that is spoken to: its tokenizer, its chat template, its writer.
 *
 * Prompts are text or conversations; answers come back as text, also piece by piece while
 * they are made.  What is shown is always whole characters.
 */
#ifndef TRAIN_VOICE_H
#define TRAIN_VOICE_H

#include <stdio.h>

#include "trainer/data/record.h"
#include "trainer/run/load.h"
#include "trainer/run/writer.h"

struct voice {
    struct loaded *l;
    struct tokenizer *tokenizer; /* NULL: the model speaks in ids */
    struct encoder *encoder;
    const struct chat_template *template;
    struct writer *writer;
    struct ids ids;         /* the prompt, then what was made of it */
    struct mem_text answer; /* of the last call */
    bool chat;              /* the last prompt was a conversation */
    /* while an answer is made */
    FILE *out; /* NULL: not shown */
    struct mem_text pending;
    bool begun;
};

/* [local] l must outlive it. */
kr_status voice_open(struct voice *v, struct loaded *l, bool cache);
void voice_close(struct voice *v);

/* [local] Set the prompt.  Text is begun as in training; of a model without a tokenizer it
 * is ids with spaces between.  KR_ERR_ARG: it has no token. */
kr_status voice_text(struct voice *v, const char *text);
kr_status voice_turns(struct voice *v, const struct chat_turn *turns, int count);
kr_status voice_record(struct voice *v, const struct record *r); /* whichever it is */

/* [local] Go on with the prompt, shown on `out` as it comes if that is not NULL; the whole
 * is in v->answer.  how: tokens, seed, sample. */
kr_status voice_answer(struct voice *v, struct writer_how how, FILE *out);

#endif
