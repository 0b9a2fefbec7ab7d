/*
 * comm.h - collectives over a fixed group of ranks.
 *
 * Marks, one per function:
 *   [collective]  every rank of the group calls it, in the same order
 *   [local]       no communication; any rank, any time
 *   [queued]      enqueued on comm_queue(c): operands are device memory and stay
 *                 untouched until an event recorded there is reached
 *
 * Back ends: "self" (one rank, copies), "mpi" (host memory through MPI), "nccl" (mpi, and
 * NCCL for the memory of GPUs).  MPI is entered by one thread at a time, and all ranks see
 * one order: all traffic of a group runs on one background queue; with NCCL, that of host
 * memory on one, that of device memory on another.  Waits poll and nap (they do not burn
 * the core that computes) and are bounded by the limit given to comm_open.
 *
 * After KR_ERR_COMM the group is dead: only comm_close and comm_abort may be called.
 */
#ifndef COMM_COMM_H
#define COMM_COMM_H

#include "comm/tree.h"
#include "kernels/device.h"

struct comm; /* opaque; one per group */

struct comm_config {
    const char *backend; /* "auto": mpi when started by an MPI launcher, else self; nccl
                            between GPUs.  "mpi" on GPUs: through host memory */
    double limit;        /* seconds any one wait may take before KR_ERR_COMM */
    const char *fault;   /* "" or a fault for tests, see comm_fault.c:
                            "slow:MIB_PER_S", "delay:SECONDS", "fail:N", "kill:N:RANK",
                            "quit:N:RANK", "hang:N:RANK"; N counts queued
                            collectives from 1 */
};

/* [collective] Join the group (MPI_Init_thread).  Host collectives work at once; queued
 * ones after comm_bind.  Caller closes *out. */
kr_status comm_open(struct comm **out, const struct comm_config *config);

/* Who is told, on whichever thread is in the collective, that one begins and has ended;
 * its number is the same on all ranks.  A rank that fails in one never leaves it. */
struct comm_watch {
    void (*enter)(void *self, uint64_t number, const char *name);
    void (*leave)(void *self, uint64_t number, const char *name);
    void *self;
};

/* [local] From here on; before the first collective of another thread. */
void comm_watch(struct comm *c, const struct comm_watch *watch);

/* [collective] Open the background queue on d, and what joins devices of its kind, which
 * is that of all ranks.  Once, before the first queued collective.  KR_ERR_DEVICE: NCCL is
 * missing or too old. */
kr_status comm_bind(struct comm *c, struct kern_device *d);

/* [local] Drain and close the queue, so that the device can be closed. */
void comm_unbind(struct comm *c);

/* [collective], but on a dead group it only frees memory.  NULL is fine. */
void comm_close(struct comm *c);

/* [local] End every rank of the group with this exit code; does not return. */
_Noreturn void comm_abort(struct comm *c, int exit_code);

/* [local] */
int32_t comm_rank(const struct comm *c);
int32_t comm_size(const struct comm *c);
int32_t comm_local_rank(const struct comm *c); /* among the ranks of this node */
int32_t comm_local_size(const struct comm *c);
/* Among the ranks of this node that have the same CUDA_VISIBLE_DEVICES: the number of this
 * rank's GPU among those that it sees, whether a launcher shows each rank all or its own. */
int32_t comm_gpu_rank(const struct comm *c);
int32_t comm_nodes(const struct comm *c);              /* nodes of the group */
int32_t comm_node(const struct comm *c, int32_t rank); /* 0 .. nodes - 1, by first rank */
const char *comm_node_name(const struct comm *c); /* of this rank; KILORANK_NODE first */
int comm_threads(const struct comm *c);           /* cores this rank should use, >= 1 */
const char *comm_describe(const struct comm *c);  /* "mpi: 4 ranks on 2 nodes" */
struct kern_queue *comm_queue(struct comm *c);    /* NULL before comm_bind */

/* --- host memory, small, blocking -------------------------------------------------- */

/* [collective] Everyone leaves with the worst (lowest) status any rank brought, KR_OK
 * if all did.  Call it where a local failure must stop the whole group. */
kr_status comm_agree(struct comm *c, kr_status mine);

/* [collective] Bytes of rank 0 to everyone; same count everywhere. */
kr_status comm_share(struct comm *c, void *at, size_t bytes);

/* [collective] Text of rank 0 to everyone; on ranks > 0 *text is allocated (mem_free),
 * on rank 0 it is the caller's own. */
kr_status comm_share_text(struct comm *c, char **text);

/* [collective] all[r * bytes ...] = mine of rank r, on every rank. */
kr_status comm_all_gather_bytes(struct comm *c, const void *mine, size_t bytes,
                                void *all);

/* [collective] Texts of all ranks to rank 0, in rank order: there *all is one block of
 * NUL-terminated texts (mem_free), NULL elsewhere. */
kr_status comm_gather_texts(struct comm *c, const char *mine, char **all);

/* One message to or from another rank, of host memory. */
struct comm_packet {
    void *at;
    int64_t bytes; /* at most COMM_PACKET_MAX; 0: no message */
    int32_t peer;
    bool is_out;
};
enum { COMM_PACKET_MAX = 1 << 30 };

/* [collective] [queued] Messages between ranks, each with its other end in the peer's
 * list; those between two ranks in the same order in both.  list (or NULL: nothing for
 * this rank) and memory stay the caller's and untouched until comm_swap_wait. */
kr_status comm_swap(struct comm *c, const struct comm_packet *list, int64_t count);

/* [queued] The swaps, and all else on host memory, that come after this begin when e of the
 * device has been reached: of memory that it still copies to.  Nobody waits here. */
kr_status comm_swap_after(struct comm *c, struct kern_event *e);

/* [local] Wait until all swaps are over; the first error of the queue they are on. */
kr_status comm_swap_wait(struct comm *c);

/* --- device memory, queued ------------------------------------------------------- */

/*
 * [collective] [queued] Library order: sum over ranks, each keeps its chunk.
 *   all (size, chunk) this rank's addends, one row per receiving rank; may be scratch
 *   own (chunk)       the sum; may be all + rank * chunk
 */
kr_status comm_reduce_scatter(struct comm *c, void *all, void *own, int64_t chunk,
                              enum kern_dtype type);

/* [collective] [queued] Library order: all (size, chunk) becomes the sum over ranks. */
kr_status comm_all_reduce(struct comm *c, void *all, int64_t chunk, enum kern_dtype type);

/*
 * [collective] [queued] Canonical order (tree.h): the same bits on any number of ranks.
 *   nodes[k], at[k]   the k-th node this rank has, an array of size * chunk elements;
 *                     ascending, together exactly its part_leaves; overwritten (scratch)
 *   own (chunk)       the root's sum of this rank's chunk; may be at[0] + rank * chunk
 * When size is a power of two and every rank has one node of one size: log2(size)
 * exchanges with rank xor 1, 2, 4, ... halving the data each time.  Else each rank sends
 * each other rank its chunk of every node, and the owner joins them.
 */
kr_status comm_reduce_tree(struct comm *c, int64_t leaves, const struct tree_node *nodes,
                           void *const *at, int count, void *own, int64_t chunk,
                           enum kern_dtype type);

/* Sums of bf16 are formed in fp32 and rounded by chance (struct kern_round): that of two
 * nodes, of which the right one begins with leaf b, with (key, first_leaf + b), elements
 * numbered as in the whole array. */
struct comm_rounding {
    uint64_t key;
    int64_t first_leaf;
};

/* [collective] [queued] comm_reduce_tree of bf16 arrays: the same bits on any number of
 * ranks. */
kr_status comm_reduce_tree_bf16(struct comm *c, int64_t leaves,
                                const struct tree_node *nodes, void *const *at, int count,
                                void *own, int64_t chunk, struct comm_rounding rounding);

/* [collective] [queued] got[r * chunk ...] = all[rank * chunk ...] of rank r.  got and all
 * (size, chunk) do not overlap. */
kr_status comm_all_to_all(struct comm *c, const void *all, void *got, int64_t chunk,
                          enum kern_dtype type);

/* [collective] [queued] all[r * chunk ...] = own of rank r; own may be its place in all. */
kr_status comm_all_gather(struct comm *c, const void *own, void *all, int64_t chunk,
                          enum kern_dtype type);

/* [collective] [queued] Everyone gets rank root's bytes. */
kr_status comm_broadcast(struct comm *c, void *at, int64_t bytes, int32_t root);

/* [local] This device memory will be used in many collectives, until it is unregistered or
 * the group unbound: NCCL lets other GPUs and the network reach it without a copy.  NULL is
 * fine. */
void comm_register(struct comm *c, void *at, int64_t bytes);
void comm_unregister(struct comm *c, void *at); /* before it is freed */

/* [local] Device memory that a group of `size` GPUs takes beside the operands, before there
 * is one: NCCL's own, about, and what comm_reduce_tree receives into. */
size_t comm_nccl_bytes(int32_t size);
size_t comm_tree_bytes(int64_t leaves, int32_t size, int64_t chunk, enum kern_dtype type);

/* [local] Bytes this rank has sent in queued collectives, since comm_open. */
double comm_sent(const struct comm *c);

#endif
