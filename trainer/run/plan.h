/*
 * plan.h - the memory that a rank will hold, before it holds it.
 *
 * Weights, master weights, gradients and moments as shard_plan has them, activations and
 * logits as model_plan has them; `moving` is what lives for the moment of a unit (a
 * gradient on its way to its owners, gathered weights).  `scratch`: what the kernels of a
 * step keep (kern_device_scratch), `messages` what GPUs receive reductions into and NCCL's
 * own buffers, which are an estimate (comm_nccl_bytes).  `other`: the micro-batch, losses
 * and sums and, where the device's memory is the host's, the copies of a checkpoint and of
 * a snapshot that are being written.  Beside a GPU these copies are pinned host memory.
 * Snapshots themselves (node memory) take what there is, and are only told.
 */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H

#include "trainer/run/settings.h"
#include "trainer/run/shard.h"

struct plan {
    struct shard_bytes state;
    struct model_plan model;
    size_t scratch, messages, other;
    size_t nccl;        /* of messages */
    size_t pinned;      /* of the host */
    size_t node_memory; /* two buffers of a snapshot; with several nodes twice that */
};

size_t plan_sum(const struct plan *p);

/* [local] One rank of `ranks` that trains.  KR_ERR_ARG: this program has no such device. */
kr_status plan_make(struct plan *out, const struct settings *set, int32_t ranks);

/* Lines in the log: names and MiB, and the host's.  available: bytes of a rank; 0: not
 * known. */
void plan_tell(const struct plan *p, uint64_t available);

/* [collective] What the settings take and what this rank may take.  KR_ERR_ARG if that is
 * too little on any rank; rank 0 then tells the numbers and what to change. */
kr_status plan_check(struct plan *out, uint64_t *available, const struct settings *set,
                     struct comm *c);

#endif
