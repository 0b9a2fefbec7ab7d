/*
 * reduce.h - sums over ranks, built from messages.  For comm/ itself.
 *
 * Both cut chunks into segments and keep a few under way, so that a segment is added
 * while it is still in the cache and the next ones arrive meanwhile.  KERN_F32, KERN_F64; the canonical
 * one also KERN_BF16.
 * KR_ERR_COMM; KR_ERR_MEM: no scratch memory (the peers then run into their limit).
 */
#ifndef COMM_REDUCE_H
#define COMM_REDUCE_H

#include "comm/backend.h"
#include "kernels/kernels.h"

/* Library order: the owner adds ranks rank - 1, rank - 2, ... to its own; each rank sends
 * (size - 1) * chunk elements, in one hop. */
kr_status comm_reduce_direct(struct comm_link *l, void *all, void *own, int64_t chunk,
                             enum kern_dtype type);

/* Canonical order, both paths of comm_reduce_tree. */
kr_status comm_reduce_canonical(struct comm_link *l, const struct comm_tree *t);

/* The same on the streams of a link that is_later; its wait ends a group of messages.
 * COMM_SEGMENT: comm_link.segment of NCCL's. */
enum { COMM_SEGMENT = 64 << 20 };
kr_status comm_reduce_gpu(struct comm_link *l, const struct comm_tree *t);

/* [local] The second of them.  Close it when both are empty; what was never opened is fine. */
kr_status comm_adder_open(struct comm_adder *a, struct kern_device *d);
void comm_adder_close(struct comm_adder *a);

/* Is every rank's run of leaves one node, and size a power of two?  Then the fast path. */
bool comm_reduce_is_cube(int64_t leaves, int32_t size);

/* ---- what the canonical ones share ---------------------------------------------------- */

/* A node of the whole tree, whose it is, and where this rank has its chunk of it. */
struct comm_part {
    struct tree_node node;
    int32_t rank;
    void *at;
};

/* Of all ranks, ascending; list is the caller's (mem_free). */
struct comm_parts {
    struct comm_part *list;
    int64_t count;
};
kr_status comm_reduce_parts(struct comm_parts *out, int64_t leaves, int32_t size);
int64_t comm_reduce_count(int64_t leaves, int32_t size); /* how many there will be */

/* Add the parts, `len` elements from number `first` of the whole array, in tree order into
 * the first of them.  add: left += right. */
kr_status comm_reduce_join(const struct comm_tree *t, const struct comm_parts *parts,
                           int64_t first, int64_t len,
                           kr_status (*add)(void *self, void *left, const void *right,
                                            int64_t len, const struct kern_round *r),
                           void *self);

/* Rounding of elements from number `first` on of the sum whose right operand begins with
 * leaf `boundary`. */
struct kern_round comm_reduce_round(const struct comm_tree *t, int64_t boundary,
                                    int64_t first);

/* comm_all_to_all; `bytes` of a chunk. */
kr_status comm_exchange_direct(struct comm_link *l, const void *all, void *got,
                               int64_t bytes);

#endif
