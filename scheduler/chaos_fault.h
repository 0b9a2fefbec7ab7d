/*
 * chaos_fault.h - the faults that `kilorank chaos` knows, and whom they strike.
 *
 * Pure.  Each fault is a line for the shell of the node it strikes, but for two: the
 * supervisor is a child of chaos, and a whole node is taken by a command of the user's.
 */
#ifndef SCHED_CHAOS_FAULT_H
#define SCHED_CHAOS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* clang-format off */
/*    fault              name          line for the shell; $p: a rank, $a: its agent  meaning */
#define CHAOS_FAULT_MAP(X)                                                                    \
    X(CHAOS_RANK,        "rank",       "kill -KILL $p",                "a rank is killed")    \
    X(CHAOS_HANG,        "hang",       "kill -STOP $p",                "a rank stands still") \
    X(CHAOS_LAUNCHER,    "launcher",   "kill -KILL $(ps -o ppid= -p $p)",                     \
                                               "mpirun, or its daemon on a node, is killed")  \
    X(CHAOS_AGENT,       "agent",      "kill -KILL $a",                "an agent is killed")  \
    X(CHAOS_SUPERVISOR,  "supervisor", NULL, "the supervisor is killed and started again")    \
    X(CHAOS_NODE,        "node",       NULL, "a node goes away and comes back: --node-fault")
/* clang-format on */

enum chaos_fault {
#define X(name, text, line, meaning) name,
    CHAOS_FAULT_MAP(X)
#undef X
        CHAOS_FAULTS
};

const char *chaos_fault_name(enum chaos_fault f);
const char *chaos_fault_meaning(enum chaos_fault f);

/* "rank,hang" as one bit for each.  KR_ERR_ARG: unknown, or none. */
kr_status chaos_fault_parse(const char *list, uint32_t *out);

enum { CHAOS_NODE_NAME = 64, CHAOS_LINE = 128 };

struct chaos_target {
    char node[CHAOS_NODE_NAME];
    int64_t pid, agent_pid; /* agent_pid 0: not known */
    int64_t step;           /* of the run */
};

/* A rank, or all nodes' one, chosen by `random` from what `kilorank status --json` said;
 * false: the run does no steps now. */
bool chaos_fault_target(const char *status, uint64_t random, struct chaos_target *out);

/* The line for the shell of the target's node; false: this fault has none. */
bool chaos_fault_line(enum chaos_fault f, const struct chaos_target *t,
                      char out[CHAOS_LINE]);

#endif
