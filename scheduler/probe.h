/*
 * probe.h - how fast is the link from this node to another one?
 *
 * An agent answers the probes of others on a port of its own, at the address by which it
 * reaches the supervisor; only who proves the run's token is answered.  A probe takes a few
 * round trips, then as many bytes as come back in PROBE_SECONDS, at most PROBE_BYTES: cheap
 * enough to be repeated while others train.
 */
#ifndef SCHED_PROBE_H
#define SCHED_PROBE_H

#include "scheduler/link.h"

enum { PROBE_TRIPS = 8, PROBE_BLOCK = 64 << 10, PROBE_FLYING = 4, PROBE_BYTES = 4 << 20 };

struct probe {
    struct door door;
    bool has_listened;
    struct link *link; /* to the node that is measured; NULL: none */
    double began, flood_began, sent_at;
    double round_trip, rate; /* so far; 0: nothing came back */
    int32_t trips;
    int64_t back; /* bytes of the flood that came back */
    void (*done)(void *owner, double round_trip, double rate);
    void *owner;
};

/* Answer at this side's address of the link.  Returns the port, 0: none. */
int probe_listen(struct probe *p, uv_loop_t *loop, const struct link *up);

/* Measure; `done` is called once, at most two seconds later if probe_tick is called
 * often.  One at a time: a second one replaces the first. */
void probe_start(struct probe *p, uv_loop_t *loop, const char *host, int port,
                 const struct wire_token *token, void (*done)(void *, double, double),
                 void *owner);
void probe_tick(struct probe *p, double now);

#endif
