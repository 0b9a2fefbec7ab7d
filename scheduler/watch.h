/*
 * watch.h - judges from beats: fine, dead, silent, stuck, slow.
 *
 * Pure: time is an argument (monotonic seconds of the supervisor), so tests run hours in
 * milliseconds.  Nothing is judged by wall time, and nothing by silence alone where there
 * is more to know:
 *
 *   died    a rank's process is gone and left no exit code
 *   silent  a node's agent has not been heard for `silence` seconds
 *   stuck   no rank has changed step, phase or collective for as long as the phase allows:
 *           WATCH_HANG_STEPS steps as measured plus some seconds, more where ranks load,
 *           save or evaluate, and before the first step; a process that is stopped has
 *           no more time than that
 *   slow    a rank computes over a tenth longer than the median, and by over a twentieth
 *           of a step, for WATCH_SLOW_STEPS steps and WATCH_SLOW_BEATS beats; a beat with
 *           a step that was not slow takes WATCH_SLOW_GRACE back
 *
 * If the watcher itself was starved, everything seems silent: the time it lost is given
 * back (watch_forgive).
 */
#ifndef SCHED_WATCH_H
#define SCHED_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "scheduler/wire.h"

enum {
    WATCH_HANG_STEPS = 2,
    WATCH_START_SECONDS = 60, /* for all ranks to show, and a tenth for each */
    WATCH_SLOW_STEPS = 50,
    WATCH_SLOW_BEATS = 8,
    WATCH_SLOW_GRACE = 4,
    WATCH_STEPS = 16, /* step times remembered */
    WATCH_WHY = 256,
};

enum watch_kind { WATCH_FINE, WATCH_DIED, WATCH_SILENT, WATCH_STUCK, WATCH_SLOW };

struct watch_verdict {
    enum watch_kind kind;
    int32_t node, rank; /* -1: cannot be told */
    double seconds;     /* from the event, as far as it is known, to now */
    char why[WATCH_WHY];
};

struct watch_rank {
    struct wire_rank last;
    double moved; /* time of its last change */
    int32_t node; /* index; -1: it has not been heard of */
    int64_t slow_from;
    int32_t slow_beats;
    bool has_stepped, is_slow;
};

struct watch {
    double silence; /* seconds, see above */
    double *heard;  /* per node; < 0: nothing is expected from it */
    int32_t nodes;
    struct watch_rank *ranks;
    int32_t size, seen; /* ranks; those heard of in this generation */
    int64_t generation;
    double began;
    double
        step_seconds[WATCH_STEPS]; /* of the newest steps, also of generations before */
    int64_t steps_timed;
    int64_t step;     /* done by all ranks heard of; -1 */
    int64_t furthest; /* done by any in this generation; -1 */
    double loss;
    struct watch_verdict said; /* the fault of this generation; only the first counts */
    double *sorting;           /* room for medians */
};

kr_status watch_open(struct watch *w, int32_t nodes, int32_t ranks, double silence);
void watch_close(struct watch *w);

/* A new generation of `ranks` ranks, at most those of watch_open; 0: none runs. */
void watch_begin(struct watch *w, int64_t generation, int32_t ranks, double now);

/* The node's agent is there (again), or is not expected any more. */
void watch_node(struct watch *w, int32_t node, bool is_there, double now);

/* A beat of a node.  Of an older generation: proves that the node lives, no more. */
void watch_beat(struct watch *w, int32_t node, const struct wire_beat *beat, double now);

/* This process stood still for so many seconds. */
void watch_forgive(struct watch *w, double seconds);

/* The next thing to say, if any: each dead, stuck or silent thing once, a slow rank each
 * time it becomes slow.  Ask until WATCH_FINE. */
void watch_judge(struct watch *w, double now, struct watch_verdict *out);

/* Median and largest seconds of the newest steps; 0: none measured. */
double watch_step_median(const struct watch *w);
double watch_step_longest(const struct watch *w);

/* Seconds that may pass without a change before it is called a hang. */
double watch_patience(const struct watch *w);

const char *watch_kind_text(enum watch_kind kind);

#endif
