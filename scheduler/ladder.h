/*
 * ladder.h - what to do after a fault.
 *
 * Pure: a view of what is there goes in, a move comes out, with the reason in words.
 *
 *   first    nothing has run yet
 *   again    the same nodes; the ranks take the newest whole snapshot in memory
 *   spare    spares take the places of lost nodes
 *   fewer    the nodes that are left, same global batch: with canonical sums the same bits
 *   wait     too few nodes are up, but some may come (back): until `seconds` are over
 *   requeue  inside a batch system: end with EXIT_REQUEUE, the next allocation goes on
 *   end      with exit_code
 *
 * Which state is read, memory or the newest checkpoint that passes every check, the ranks
 * decide by themselves at each start: what is newest and whole.
 *
 * An attempt that brings no new step counts; `attempts_max` of them end the run, since a
 * run that dies at the same step again and again needs a person.  A lost node is not the
 * run's fault and does not count; there are only so many.
 */
#ifndef SCHED_LADDER_H
#define SCHED_LADDER_H

#include <stdbool.h>
#include <stdint.h>

enum { LADDER_WHY = 192 };

/* clang-format off */
#define LADDER_RUNG_MAP(X)        \
    X(LADDER_FIRST,   "first")    \
    X(LADDER_AGAIN,   "again")    \
    X(LADDER_SPARE,   "spare")    \
    X(LADDER_FEWER,   "fewer")    \
    X(LADDER_WAIT,    "wait")     \
    X(LADDER_REQUEUE, "requeue")  \
    X(LADDER_END,     "end")
/* clang-format on */

enum ladder_rung {
#define X(name, text) name,
    LADDER_RUNG_MAP(X)
#undef X
};

struct ladder_view {
    int32_t exit_code; /* of the ranks; -1: they left none (a signal, a hang) */
    bool node_lost;    /* the fault is the loss of a node, or of its agent */
    int32_t attempts;  /* without a new step, this fault included */
    int32_t attempts_max;
    int32_t missing;  /* nodes with ranks that are not up now */
    int32_t spares;   /* nodes that are up and have no ranks */
    int32_t ranks;    /* of the generation that failed; 0: none has run */
    int32_t slots_up; /* ranks that the nodes which are up could take */
    int32_t ranks_wanted, ranks_min;
    double waited;    /* seconds since too few nodes were up */
    double wait_max;  /* for nodes that may come back */
    bool may_requeue; /* inside an allocation of a batch system */
    uint64_t jitter;  /* random bits */
};

struct ladder_move {
    enum ladder_rung rung;
    int32_t exit_code; /* END and REQUEUE */
    double seconds;    /* before it is done; WAIT: at most so long */
    char why[LADDER_WHY];
};

void ladder_next(const struct ladder_view *v, struct ladder_move *out);

/* Does this exit code say that starting again is of no use? */
bool ladder_is_final(int32_t exit_code);

const char *ladder_rung_text(enum ladder_rung rung);
/* What exit_code means; "" for one that is none of ours. */
const char *ladder_code_text(int32_t exit_code);

#endif
