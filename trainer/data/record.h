/*
 * record.h - a JSON object of a file of examples as a conversation.
 *
 *   {"prompt": "...", "completion": "..."}                 (or both lists of messages)
 *   {"messages": [{"role": "user", "content": "..."}, ...]}
 *   {"instruction": "...", "input": "...", "output": "...", "system": "...", "history": ...}
 *   {"conversations": [{"from": "human", "value": "..."}, ...]}
 *   {"text": "..."}                                        no conversation, but a text
 *
 * Answers are to be learned ("loss": false in a message takes that away); of a prompt that is
 * a list of messages none is.  The answer may be missing where one is to be made.
 */
#ifndef TRAIN_RECORD_H
#define TRAIN_RECORD_H

#include "trainer/data/chat.h"
#include "trainer/data/object.h"

enum { RECORD_TURNS = 4096 };

/* Zero-initialise.  Texts are those of the JSON object, which must stay. */
struct record {
    struct chat_turn turns[RECORD_TURNS];
    int count;
    const char *text;       /* of a text; then there are no turns */
    struct mem_text joined; /* texts that had to be put together */
    const char *why;        /* it could not be read: what is wrong */
};

bool record_read(struct record *r, const cJSON *object);
void record_free(struct record *r);

/* Take the last turn away if it is an answer, and return its text; else NULL. */
const char *record_answer(struct record *r);

#endif
