/*
 * backend.h - what a back end provides.  For comm/ itself; callers use comm.h.
 *
 * A back end knows messages and a few whole-group calls on memory that the host can
 * read; the reductions of reduce.h are built from its messages.  Every entry blocks, is
 * entered by one thread at a time, in the same order on all ranks, and returns within
 * `limit` seconds after the last peer went silent: KR_ERR_COMM and a line that names
 * the collective and, where it is known, the peers.
 *
 * The link between GPUs (is_later) stands beside one of these, and has the calls on device
 * memory only: they are enqueued on its stream, in the order of the caller's thread.  What
 * fails or takes longer than `limit` there is told to a listener.
 */
#ifndef COMM_BACKEND_H
#define COMM_BACKEND_H

#include "comm/comm.h"

/* is_later: a second queue, where what has arrived is added up while more arrives.  The
 * scratch memory of a link has two halves; events say which is full, and which is free. */
struct comm_adder {
    struct kern_queue *queue;
    struct kern_event *full[2], *free[2];
};

/* What both sides of a back end share; the first member of its own state. */
struct comm_link {
    const struct comm_ops *ops;
    int32_t rank, size, local_rank, local_size;
    int32_t gpu_rank; /* among the ranks of this node that see the same GPUs */
    char node[256];   /* name of this node */
    int32_t nodes;
    int32_t *node_of; /* (size) node of each rank; NULL: all on one */
    int threads;      /* cores this rank should use */
    char describe[160];
    double limit; /* seconds */

    /* Set by comm.c before each collective, for error lines. */
    const char *name;
    uint64_t number;

    double sent;   /* bytes, since the link was opened */
    void *scratch; /* of reductions; device memory where it is_later */
    size_t scratch_bytes;
    struct kern_queue *queue; /* is_later: where to enqueue */
    struct comm_adder adder;  /* is_later */
    int64_t segment; /* is_later: bytes of a reduction that are under way, about */
};

/* One message; at most INT_MAX bytes.  Between two ranks they arrive in the order in which
 * they were started. */
struct comm_message {
    void *at;
    int64_t bytes;
    void *request; /* the back end's; NULL: not under way */
    int32_t peer;
    bool is_out;
};

/* One canonical reduction, the arguments of comm_reduce_tree. */
struct comm_tree {
    int64_t leaves;
    const struct tree_node *nodes;
    void *const *at;
    int count;
    void *own;
    int64_t chunk;
    enum kern_dtype type;
    struct comm_rounding rounding; /* KERN_BF16 */
};

struct comm_ops {
    const char *name;
    bool is_later; /* calls return before they are done, a listener hears when they are */
    kr_status (*open)(struct comm_link **out, double limit); /* the caller sets ops */
    void (*close)(struct comm_link *l, bool alive);          /* dead: only frees memory */
    void (*abort)(struct comm_link *l, int exit_code);       /* does not return */

    kr_status (*agree)(struct comm_link *l, int32_t *worst); /* in and out: the minimum */
    kr_status (*broadcast)(struct comm_link *l, void *at, int64_t bytes, int32_t root);
    /* all + r * bytes = own of rank r; own may be its place in all */
    kr_status (*all_gather)(struct comm_link *l, const void *own, void *all,
                            int64_t bytes);
    kr_status (*reduce_scatter)(struct comm_link *l, void *all, void *own, int64_t chunk,
                                enum kern_dtype type);
    /* opt: all (size, chunk) becomes the sum over ranks */
    kr_status (*all_reduce)(struct comm_link *l, void *all, int64_t chunk,
                            enum kern_dtype type);
    kr_status (*reduce_tree)(struct comm_link *l, const struct comm_tree *t);
    /* got + r * bytes = all + rank * bytes of rank r */
    kr_status (*all_to_all)(struct comm_link *l, const void *all, void *got,
                            int64_t bytes);

    /* opt on a group of one */
    kr_status (*start)(struct comm_link *l, struct comm_message *m);
    kr_status (*wait)(struct comm_link *l, struct comm_message *m, int64_t count);

    /* is_later only: around what a collective enqueues */
    kr_status (*depart)(struct comm_link *l);
    kr_status (*land)(struct comm_link *l);

    /* is_later only: memory that many collectives will use; it is no error if there is
     * nothing to gain from knowing it */
    void (*enlist)(struct comm_link *l, void *at, int64_t bytes);
    void (*delist)(struct comm_link *l, void *at);
};

extern const struct comm_ops comm_self_ops, comm_mpi_ops;

/* Who hears of collectives of a link that is_later, on a thread of that link. */
struct comm_listener {
    void (*over)(void *self, uint64_t number, const char *name);
    void (*died)(void *self); /* before the link is torn down; the line is written */
    void *self;
};

/* [collective] NCCL between the GPUs of the ranks of `host`, on the stream of q.  The same
 * status on all ranks; KR_ERR_DEVICE: the library is missing, too old or not built in. */
kr_status comm_nccl_open(struct comm_link **out, struct comm_link *host,
                         struct kern_queue *q, const struct comm_listener *listener);

#endif
