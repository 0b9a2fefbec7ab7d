/*
 * nodes.h - the machines of a run, and which ranks go where.
 *
 * Pure: no process, no connection, no clock of its own.
 *
 * A node is `up` while its agent is connected and well.  Ranks lie in blocks: the first
 * node in order of its place has ranks 0 .. slots - 1, the next one those after it.  A
 * spare takes the place of the node it replaces, so every other rank keeps its node and
 * the partner that holds its snapshots.
 */
#ifndef SCHED_NODES_H
#define SCHED_NODES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { NODES_NAME = 64, NODES_MAX = 4096, NODES_SLOTS_MAX = 256, NODES_FAULTS = 3 };

/* clang-format off */
#define NODE_STATE_MAP(X)                                                   \
    X(NODE_AWAY, "away")      /* no agent yet, or none any more */          \
    X(NODE_UP,   "up")                                                      \
    X(NODE_BAD,  "bad")       /* failed its check */                        \
    X(NODE_GONE, "gone")      /* to be left: no ranks any more */
/* clang-format on */

enum node_state {
#define X(name, text) name,
    NODE_STATE_MAP(X)
#undef X
};

struct node {
    char name[NODES_NAME];
    int32_t slots; /* ranks that may run here */
    enum node_state state;
    int32_t place;        /* among the nodes with ranks; -1: a spare */
    int32_t first, ranks; /* of this generation */
    int32_t faults;       /* in this run */
};

struct nodes {
    struct node *at;
    int32_t count;
};

/* Lines "NAME slots=N" as Open MPI has them ("max_slots=" and "#..." are passed over);
 * without slots= a line is one slot, and a name on several lines has their sum.
 * KR_ERR_ARG with the line's number; *out is then unchanged. */
kr_status nodes_parse(struct nodes *out, const char *text, const char *source);
kr_status nodes_add(struct nodes *n, const char *name, int32_t slots);
void nodes_free(struct nodes *n);

struct node *nodes_find(const struct nodes *n, const char *name); /* NULL: unknown */

/* Slots of all nodes that are up, and of all that are not gone. */
int32_t nodes_slots_up(const struct nodes *n);
int32_t nodes_slots(const struct nodes *n);

/* How many nodes have a place but are not up, and how many are up without a place. */
int32_t nodes_missing(const struct nodes *n);
int32_t nodes_spare(const struct nodes *n);

/* Choose nodes for `ranks` ranks among those that are up.  Nodes with a place keep it,
 * the places of missing ones are given to spares with the fewest faults, what is then
 * missing is left out and places close up; surplus nodes become spares.  Returns how
 * many ranks found a slot, at most `ranks`; 0: none.  */
int32_t nodes_place(struct nodes *n, int32_t ranks);

/* Give the node's place to a spare that has fewer faults, and make it a spare; false: there
 * is none.  nodes_place then moves the ranks. */
bool nodes_swap_out(struct nodes *n, int32_t node);

/* Indices of the nodes that have ranks, in order of place; returns how many. */
int32_t nodes_active(const struct nodes *n, int32_t *out);

/* Node of a rank, -1: none. */
int32_t nodes_of_rank(const struct nodes *n, int32_t rank);

const char *node_state_text(enum node_state state);

#endif
