/*
 * sm90_attention_run.cuh - what the launches of attention share: arguments, one kernel for
 * each head size, with and without ALiBi.
 */
#ifndef KERN_CUDA_SM90_ATTENTION_RUN_CUH
#define KERN_CUDA_SM90_ATTENTION_RUN_CUH

#include "kernels/cuda/sm90.h"
#include "kernels/cuda/sm90_attention.cuh"
#include "kernels/cuda/sm90_launch.cuh"

/* The matrices of a backward, and its two passes. */
struct sm90_backward {
    struct kern_mat dqkv, delta, dout, qkv, lse;
    const struct kern_heads *h;
};
kr_status sm90_attention_keys(void *stream, const sm90_backward &b);
kr_status sm90_attention_queries(void *stream, const sm90_backward &b);

/* Tiles of `rows` rows of `heads` heads, `group` of which share keys and values. */
static inline struct attention_args attention_args_of(const struct kern_heads *h,
                                                      struct kern_mat qkv,
                                                      struct kern_mat lse, int32_t rows,
                                                      int64_t heads, int64_t group)
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
    g.order = attention_order(ceil_div(g.seq, rows), (int32_t)heads * g.sequences,
                              (int32_t)group, h->seq, (int32_t)h->head_dim);
    return g;
}

static inline struct attention_args backward_args_of(const sm90_backward &b, int32_t rows,
                                                     int64_t heads, int64_t group)
{
    struct attention_args g = attention_args_of(b.h, b.qkv, b.lse, rows, heads, group);

    g.delta = (const float *)b.delta.at;
    g.delta_ld = b.delta.ld;
    return g;
}

/* CTAs: one on each multiprocessor, none without a tile. */
static inline int32_t attention_blocks(void *stream, const struct attention_args &g)
{
    const int32_t tiles = g.order.blocks * g.order.lanes, sms = cuda_sms(stream);

    return tiles < sms ? tiles : sms;
}

#endif
