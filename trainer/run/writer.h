/*
 * writer.h - let a model go on with tokens, one at a time.
 *
 * What attention reads of the tokens so far is kept, so a new token costs one row; calls
 * that begin with the same tokens (the turns of a chat) reuse what is there.  Beyond the
 * context each token is made from the last `context` ones.  Choices are a function of
 * (seed, number of the token) and the logits, so the same call gives the same tokens.
 */
#ifndef TRAIN_WRITER_H
#define TRAIN_WRITER_H

#include "trainer/data/ids.h"
#include "trainer/run/sample.h"
#include "trainer/run/trainer.h"

struct writer; /* opaque; t must outlive it */

struct writer_how {
    int64_t tokens; /* to make at most */
    int64_t seed;
    struct sample_how sample;
    /* Is this token the end (and then not part of the answer)?  NULL: none is. */
    bool (*ends)(void *arg, int32_t id);
    void (*told)(void *arg, int32_t id); /* each token as it is made; may be NULL */
    void *arg;
};

/* [local] cache: keep what attention reads; without it every token costs all rows. */
kr_status writer_open(struct writer **out, struct trainer *t, bool cache);
void writer_close(struct writer *w); /* NULL is fine */

/* [local] Append tokens to ids, which holds at least one.  KR_ERR_NUMERIC: the logits are
 * not finite. */
kr_status writer_go_on(struct writer *w, struct ids *ids, const struct writer_how *how);

#endif
