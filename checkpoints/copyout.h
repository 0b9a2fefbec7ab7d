/*
 * copyout.h - a rank's pieces on their way out of device memory, while training goes on.
 *
 * A GPU copies on a queue of its own into pinned memory: it begins when the compute queue
 * has done what was enqueued before, and what would change the pieces must be held back
 * until they are out.  So training stands still for the launch of the copies at most.
 * Where the device's memory is the host's, the copy is made at once.
 *
 * One copy at a time.  Everything is for the thread that trains, but for copyout_wait.
 */
#ifndef CKPT_COPYOUT_H
#define CKPT_COPYOUT_H

#include <pthread.h>

#include "checkpoints/pieces.h"

struct copyout {
    struct kern_device *device; /* NULL: not open */
    struct kern_queue *side;    /* NULL: copies are made at once */
    struct kern_event *ready, *out;
    char *to; /* the memory that copies go to; NULL: none yet */
    size_t bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool under_way;   /* of these two, a thread may ask; */
    kr_status status; /* what became of the copy */
};

/* [local] For pieces behind q; nothing happens to one that is open. */
kr_status copyout_open(struct copyout *c, struct kern_queue *q);
void copyout_close(struct copyout *c); /* a zeroed one is fine */

/* [local] Memory for so many bytes; copyout_start takes it else.  Before copyout_open it is
 * ordinary memory. */
kr_status copyout_reserve(struct copyout *c, size_t bytes);

/* [local] Copy the pieces, one after the other, to c->to, as they are when q has done what
 * was enqueued so far.  At once, or under way when this returns. */
kr_status copyout_start(struct copyout *c, struct kern_queue *q,
                        const struct ckpt_state *s);

/* [queued] q goes on only when the pieces are out. */
kr_status copyout_hold(struct copyout *c, struct kern_queue *q);

/* [local] Wait until they are; the copy's error.  Before a thread that waits is joined. */
kr_status copyout_settle(struct copyout *c);

/* [local] The same for another thread. */
kr_status copyout_wait(struct copyout *c);

/* [local] Give the memory back, unless it is pinned: that takes long to get. */
void copyout_drop(struct copyout *c);

#endif
