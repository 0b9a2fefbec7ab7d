/*
 * keep.h - snapshots of a run in node memory: when, and what ranks tell each other of them;
 * and whether what all ranks hold alike is alike.
 *
 * At each snapshot every rank's device makes a checksum of its replica (shard_checksum); it
 * is told in the next step's exchange, so nobody waits for it.  Ranks that differ from the majority hold a wrong bit, so
 * the snapshot of that step is forgotten.  Before a save to disk the checksums are compared
 * at once: what is committed was alike on all ranks.
 */
#ifndef TRAIN_KEEP_H
#define TRAIN_KEEP_H

#include "trainer/run/interval.h"
#include "trainer/run/resume.h"

struct keep {
    struct snapshot *snapshot; /* NULL: snapshot.every = 0 */
    struct interval interval;
    struct trainer *t;
    int64_t told;   /* newest snapshot that is whole on all ranks, -1: none */
    double stall;   /* seconds that training waited for the last one */
    double stalled; /* for all of them */
    int64_t taken;
    bool looking;         /* a checksum of replicas is on its way to the next exchange, */
    int64_t replica_step; /* of this step */
};

/* Which ranks hold something else than the others. */
struct keep_verdict {
    int64_t step;    /* whose state it was; -1: all are alike */
    int32_t suspect; /* the first of the minority; -1: no majority, all are suspect */
    int32_t count;   /* ranks in the minority */
    bool mine;       /* this rank is one of them */
};

/* [collective] k->t and the state must outlive it. */
kr_status keep_open(struct keep *k, struct trainer *t, const struct state *state,
                    const char *run, int64_t generation);

/* [collective] Begin, or begin again: the run goes on from `from`. */
kr_status keep_start(struct keep *k, const struct resumed *from);

/* [collective] forget: the run has ended, its state is on disk. */
void keep_close(struct keep *k, bool forget);

/* [local] Fill in what this rank tells in the next exchange. */
void keep_words(const struct keep *k, struct step_words *words);

/* [collective] After the exchange, with what all ranks told: move a snapshot on, judge the
 * replicas. */
kr_status keep_step(struct keep *k, const struct step_words *words,
                    struct keep_verdict *verdict);

/* [collective] So many steps are done: take a snapshot if one is due. */
kr_status keep_take(struct keep *k, int64_t done);

/* [collective] Compare replicas now. */
kr_status keep_compare(struct keep *k, int64_t done, struct keep_verdict *verdict);

#endif
