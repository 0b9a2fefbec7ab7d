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

/* Library order: the owner adds ranks rank - 1, rank - 2, ... to its own; each rank sends
 * (size - 1) * chunk elements, in one hop. */
kr_status comm_reduce_direct(struct comm_link *l, void *all, void *own, int64_t chunk,
                             enum kern_dtype type);

/* Canonical order, both paths of comm_reduce_tree. */
kr_status comm_reduce_canonical(struct comm_link *l, const struct comm_tree *t);

/* Is every rank's run of leaves one node, and size a power of two?  Then the fast path. */
bool comm_reduce_is_cube(int64_t leaves, int32_t size);

/* comm_all_to_all; `bytes` of a chunk. */
kr_status comm_exchange_direct(struct comm_link *l, const void *all, void *got,
                               int64_t bytes);

#endif
