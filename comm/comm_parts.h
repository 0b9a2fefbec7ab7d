/*
 * comm_parts.h - what a group is made of.  For the comm*.c files only.
 *
 * Where collectives on device memory go, and how:
 *   a host device       link, in host calls on the background queue
 *   one rank on a GPU   nowhere: they are copies on its stream
 *   GPUs, dist.comm = mpi   link, in host calls on the stream, between copies to the host
 *                       and back (comm_staged.c)
 *   GPUs otherwise      gpu, which enqueues them on the stream itself (comm_nccl.c)
 */
#ifndef COMM_PARTS_H
#define COMM_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "comm/backend.h"
#include "comm/comm_fault.h"
#include "kernels/kernels.h"

enum { HOST_MAX = 1 << 30 }; /* bytes of a host collective */

enum comm_wish { COMM_AUTO, COMM_STAGED, COMM_NCCL };

struct comm {
    struct comm_link *link;     /* host memory */
    struct comm_link *gpu;      /* device memory; NULL: link serves that too */
    enum comm_wish wish;        /* of dist.comm */
    struct kern_device *device; /* NULL before comm_bind */
    struct kern_queue *queue; /* of collectives on device memory; NULL before comm_bind */
    struct kern_device *host; /* NCCL only: for `talk` */
    struct kern_queue
        *talk; /* of collectives on host memory; NULL: the caller's thread */
    struct comm_stage *stage; /* host copies; NULL: none are made */
    struct comm_fault fault;
    uint64_t number; /* of the newest collective; the same on all ranks */
    atomic_bool dead;
    _Atomic uint64_t bytes;  /* sent in queued collectives */
    struct comm_watch watch; /* enter == NULL: nobody */
    pthread_mutex_t telling; /* two threads may end collectives at once */
    uint64_t entered, left;  /* newest that the watch was told */
};

/* One queued collective, with the operands of most of them. */
struct work {
    struct comm *c;
    uint64_t number;
    const char *name;
    kr_status (*run)(struct comm_link *l, const struct work *w);
    void *all, *own;
    int64_t count; /* elements of a chunk, or bytes */
    enum kern_dtype type;
    int32_t root;
};

/* The canonical reduction also takes its nodes along. */
struct tree_work {
    struct work work; /* first */
    int64_t leaves;
    struct comm_rounding rounding;
    int count;
    struct tree_node nodes[TREE_DEPTH];
    void *at[TREE_DEPTH];
};

/* Begin collective `number` on l, for error lines.  KR_ERR_COMM: the group is dead. */
kr_status comm_enter(struct comm *c, struct comm_link *l, uint64_t number,
                     const char *name);

/* To whoever watches.  On a GPU a collective is entered when it is enqueued, and left when
 * the stream has passed it. */
void comm_tell_enter(struct comm *c, const struct comm_link *l);
void comm_tell_leave(struct comm *c, uint64_t number, const char *name);

/* Of a struct comm_listener; self is the group. */
void comm_gpu_over(void *self, uint64_t number, const char *name);
void comm_gpu_died(void *self);

/* A queued collective whose operands the host can read: a host call, `arg` is its struct
 * work. */
kr_status comm_work_run(void *arg);

/* ---- comm_staged.c: device memory over a link that knows host memory only ------------- */

kr_status comm_stage_open(struct comm_stage **out, struct kern_queue *q);
void comm_stage_close(struct comm_stage *s);

/* A piece of device memory that a collective reads, writes or both. */
struct comm_operand {
    void **at; /* in the struct work: on the device, then on the host */
    int64_t bytes;
    bool is_in, is_out;
};
enum { COMM_OPERANDS = TREE_DEPTH + 1 };

/* [queued] Operands to the host, the collective there, what it has written back.  `w`, of
 * `bytes`, is the struct work that the operands lie in; it is the caller's again. */
kr_status comm_stage_work(struct comm_stage *s, struct work *w, size_t bytes,
                          const struct comm_operand *operands, int count);

#endif
