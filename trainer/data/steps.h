/*
 * steps.h - what happens to text before its pieces are encoded.
 *
 * A row of steps, each applied to every piece that the one before made: put something in
 * front, replace, split.  Normalizers and pre-tokenizers of tokenizer.json both become
 * such rows.  Malformed bytes split like text that no pattern matches.
 */
#ifndef TRAIN_STEPS_H
#define TRAIN_STEPS_H

#include "trainer/data/pattern.h"

enum step_kind { STEP_PREPEND, STEP_REPLACE, STEP_SPLIT };

/* Of the matches of a pattern and the gaps between them: */
enum step_split {
    SPLIT_ISOLATED,    /* each is a piece */
    SPLIT_REMOVED,     /* gaps are pieces, matches vanish */
    SPLIT_KEPT,        /* the other way round */
    SPLIT_WITH_BEFORE, /* a match belongs to the gap before it */
    SPLIT_WITH_NEXT
};

struct step {
    enum step_kind kind;
    char *from, *to;         /* owned; PREPEND puts `to` in front */
    bool once;               /* PREPEND: not where the piece begins so already */
    bool start_only;         /* PREPEND: only at the start of the whole text */
    struct pattern *pattern; /* owned; SPLIT */
    enum step_split how;
};

struct steps {
    struct step *list;
    size_t count, room;
};

/* Takes over what s owns, also when it fails. */
kr_status steps_add(struct steps *l, struct step s);
void steps_free(struct steps *l);

/* Scratch of one thread for one row of steps.  Zero-initialise. */
struct steps_work {
    struct mem_text *texts; /* one a step */
    size_t room;
    struct pattern_work match;
};
void steps_work_free(struct steps_work *w);

typedef kr_status (*steps_fn)(void *arg, const char *piece, size_t len);

/* Run all steps over a text and give what comes out, in order, to `emit`; pieces are never
 * empty and valid during the call.  start: the text is the start of the whole. */
kr_status steps_run(const struct steps *l, struct steps_work *w, const char *text,
                    size_t len, bool start, steps_fn emit, void *arg);

#endif
