/*
 * chaos_record.h - what a run under faults wrote down, in numbers.
 *
 * Pure: texts go in.  From the supervisor's journal: when a fault was seen and when the run
 * went on.  From log.jsonl: how many steps were done, how many of them again, and how much
 * of the time they took.
 *
 * ETTR, the effective training time ratio, is the time of the steps that count, each as
 * long as its last doing took, over the time from the start of the first step to the end
 * of the last.  Saves, faults, restarts and steps done again are what is missing to 1.
 */
#ifndef SCHED_CHAOS_RECORD_H
#define SCHED_CHAOS_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Time (since 1970) of the first line with this event that is later than `after`; false:
 * there is none. */
bool chaos_event(const char *journal, const char *event, double after, double *time);

struct chaos_steps {
    int64_t last;           /* step; 0: none was done */
    int64_t again;          /* steps done more than once, each time counted */
    double useful, elapsed; /* seconds; ETTR is their ratio */
};

/* The last lines of a log may be cut; what is no step is passed over. */
kr_status chaos_steps(const char *log, struct chaos_steps *out);

/* Smallest, median (the lower of two) and largest of n > 0 values, which get sorted. */
struct chaos_spread {
    double least, median, most;
};
struct chaos_spread chaos_spread(double *values, int32_t n);

#endif
