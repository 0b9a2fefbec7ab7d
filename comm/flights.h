/*
 * flights.h - collectives that a stream still has to do, and since when.  For comm/ itself.
 *
 * The thread that enqueues departs and lands; another one looks.  A flight's time runs from
 * when the stream has come to it: before, it waits for this rank's own computation.
 */
#ifndef COMM_FLIGHTS_H
#define COMM_FLIGHTS_H

#include <pthread.h>

#include "kernels/device.h"

enum { FLIGHTS = 256 }; /* under way at a time; more wait */

struct flight {
    uint64_t number;
    const char *name;
    struct kern_event *begun, *over;
    double since; /* seconds; 0: the stream has not come to it, as far as is known */
};

struct flights {
    struct kern_queue *q;
    pthread_mutex_t lock;
    pthread_cond_t room;
    bool closed; /* nobody looks any more */
    int64_t departed, landed, done;
    struct flight ring[FLIGHTS];
};

kr_status flights_open(struct flights *f, struct kern_queue *q);
void flights_close(struct flights *f); /* after q is empty */

/* [queued] Before and after what a collective enqueues.  KR_ERR_COMM: the ring is full, and
 * closed meanwhile. */
kr_status flights_depart(struct flights *f, uint64_t number, const char *name);
kr_status flights_land(struct flights *f);

/* Any thread.  The oldest one, if it is over: true, and it is forgotten. */
bool flights_take(struct flights *f, struct flight *out);

/* Any thread.  The oldest one, and for how long the stream has been at it (0: not yet);
 * false: there is none. */
bool flights_oldest(struct flights *f, struct flight *out, double *seconds);

/* Any thread.  Nobody will look: do not wait for room. */
void flights_give_up(struct flights *f);

#endif
