/* loop_parts.h - what loop.c and trouble.c share.  For them only. */
#ifndef TRAIN_LOOP_PARTS_H
#define TRAIN_LOOP_PARTS_H

#include "trainer/run/best.h"
#include "trainer/run/judge.h"
#include "trainer/run/keep.h"
#include "trainer/run/plan.h"
#include "trainer/run/report.h"
#include "trainer/run/stop.h"

struct loop {
    struct comm *comm;
    const struct settings *set;
    const char *run;
    struct plan plan;
    uint64_t available; /* bytes of memory to this rank, at the start */
    struct trainer trainer;
    struct state state;
    struct ckpt *ckpt;
    struct keep keep;
    struct best *best;     /* NULL: not asked for */
    struct report *report; /* rank 0 */
    struct pulse *pulse;
    struct step_words *words; /* (size) what all ranks told in the last step */
    enum ckpt_phase *phases;  /* (size) */
    bool *suspect;            /* (size) */
    char *settings_text;
    int64_t announced; /* newest checkpoint that was reported */

    int64_t step; /* done */
    double step_seconds;
    struct judge judge;
    int64_t nan_step, spike_step; /* that were gone back from */
    int nan_tries, skipped;       /* of nan_step; in a row */
    bool tied;                    /* replicas differed without a majority once */
};

static inline bool is_first(const struct loop *l) { return comm_rank(l->comm) == 0; }

/*
 * trouble.c: what becomes of a step that went wrong, the same on all ranks.  KR_OK: go on
 * from l->step.  KR_ERR_NUMERIC: policy says stop.  KR_ERR_DEVICE on ranks that are
 * suspect, KR_ERR_COMM on the others after a while that lets the suspects end the group:
 * start elsewhere.
 */

/* [collective] trainer_step(l->step) gave KR_ERR_NUMERIC with these numbers. */
kr_status trouble_not_finite(struct loop *l, struct step_words mine,
                             struct step_stats *stats);

/* [collective] The step that was just done may have been a spike. */
kr_status trouble_spike(struct loop *l, double loss);

/* [collective] Replicas are not alike. */
kr_status trouble_replicas(struct loop *l, const struct keep_verdict *verdict);

#endif
