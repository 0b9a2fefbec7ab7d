/*
 * sm90_attention_run.cuh - what the launches of attention share: arguments, one kernel for
 * each head size, with and without ALiBi.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_RUN_CUH
#define KERN_CUDA_SM90_ATTENTION_RUN_CUH

#include "kernels/cuda/sm90.h"
#include "kernels/cuda/sm90_attention.cuh"
#include "kernels/cuda/sm90_launch.cuh"

/* All but the order of the tiles. */
static inline struct attention_args
attention_args_of(const struct kern_heads *h, struct kern_mat qkv, struct kern_mat lse)
{
    struct attention_args g = {};

    g.seq = (int32_t)h->seq;
    g.sequences = (int32_t)(qkv.rows / h->seq);
    g.heads = (int32_t)h->heads;
    g.kv_heads = (int32_t)h->kv_heads;
    g.scale = (float)h->scale;
    g.slopes = h->slopes;
    g.start = h->start;
    g.lse = (float *)lse.at;
    g.lse_ld = lse.ld;
    return g;
}

/* CTAs: one on each multiprocessor, none without a tile. */
static inline int32_t attention_blocks(void *stream, const struct attention_args &g)
{
    const int32_t tiles = g.order.blocks * g.order.lanes, sms = cuda_sms(stream);

    return tiles < sms ? tiles : sms;
}

#endif
