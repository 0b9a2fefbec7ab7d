/*
 * journal.h - what the supervisor of a run has seen and done, one JSON object a line.
 *
 * RUN/supervisor.jsonl is only appended to, and each line is on the disk before what it
 * announces is done, so a supervisor that is killed and started again knows which run it
 * has and which generation is the newest.  A line cut off by a crash is skipped.  Its lock
 * (flock) keeps a second supervisor out.
 *
 *   {"time": 1790000000.5, "event": "start", "generation": 3, "ranks": 8, ...}
 *
 *   event     members beside time (seconds since 1970, for people)
 *   launch    run (its id), ranks_wanted, host, pid
 *   node      node, state (up, lost, bad, swapped), why
 *   start     generation, ranks, nodes, rung, why
 *   running   generation, step: the first one done; recovery_s since the fault
 *   adopted   generation: found running by a supervisor that was started again
 *   fault     generation, kind, node, rank, step, detect_s, why
 *   slow      node, rank, why
 *   regroup   why: ranks are asked to save, to start again on other nodes
 *   stop      why
 *   end       code, step, why
 */
#ifndef SCHED_JOURNAL_H
#define SCHED_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"

enum { JOURNAL_RUN_ID = 20, JOURNAL_LINE = 256 };

/* What the lines that are there tell. */
struct journal_past {
    char run[JOURNAL_RUN_ID]; /* empty: a new run */
    int64_t generation;       /* newest that was started; 0: none */
    int32_t ranks;            /* of that generation */
    int64_t step;             /* furthest step that was told; -1: none */
    int64_t faults;
    bool is_over;    /* the last thing said was `end` */
    int32_t code;    /* with which exit code */
    double end_time; /* of the last line, since 1970 */
    char last_fault[JOURNAL_LINE];
};

/* Read only: for `status` of a run that nobody supervises.  KR_ERR_IO: no such file. */
kr_status journal_look(const char *run, struct journal_past *out);

struct journal; /* opaque */

/* KR_ERR_BUSY: another supervisor of this machine has it. */
kr_status journal_open(struct journal **out, const char *run, struct journal_past *past);
void journal_close(struct journal *j); /* NULL is fine */

/* An event: begin, add members with json.h to the text, end.  A line that cannot be
 * written is a warning: training goes on without a log. */
struct mem_text *journal_begin(struct journal *j, const char *event);
void journal_end(struct journal *j);

#endif
