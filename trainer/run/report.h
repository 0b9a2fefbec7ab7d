/*
 * report.h - what a run tells people and programs, on rank 0.
 *
 *   standard error      a progress line (rewritten in place on a terminal)
 *   RUN/log.jsonl       one JSON object per step; events are objects with "event"
 *   RUN/tensorboard/    event files
 *   run.prometheus      a file of the newest figures, with each progress line
 *
 * Writing never stops a run: a full disk is one warning.
 */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "trainer/run/trainer.h"

struct report; /* opaque */

struct report_step {
    int64_t step; /* done, from 1 */
    struct step_stats stats;
    double seconds;         /* of this step, wall */
    double exposed_seconds; /* of it the compute queue waited for communication */
};

/* rank 0 only; other ranks hold NULL, which every call takes. */
kr_status report_open(struct report **out, const struct settings *set, const char *run,
                      const struct model_shape *shape, int32_t ranks);
void report_close(struct report *r);

/* Newest step that the log of a run tells of; 0: none. */
int64_t report_reached(const char *run);

void report_step(struct report *r, const struct report_step *s);
void report_eval(struct report *r, int64_t step, double loss, int64_t tokens);

/* An event: {"event":"NAME","step":N,"text":"..."}; also a line on standard error. */
void report_event(struct report *r, const char *name, int64_t step, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
