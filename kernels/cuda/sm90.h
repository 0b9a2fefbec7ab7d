/*
 * sm90.h - the kernels that only a Hopper GPU (compute capability 9.0) runs, as the rest of
 * the back end sees them: what they take, and how to run them.
 *
 * `takes` looks at types, shapes and alignment alone, and at whether these kernels were
 * asked for (cuda_hopper).  What they do not take, the portable kernels compute.
 */
#ifndef KERN_CUDA_SM90_H
#define KERN_CUDA_SM90_H

#include "kernels/cuda/gemm.cuh"

/* a, b bf16 of any size, 16-byte aligned, rows a multiple of 8 elements apart.  c likewise
 * where it is bf16; where it is fp32 (a transposed, b not) its rows are 16-byte aligned. */
bool sm90_gemm_takes(void *stream, const product &p);
kr_status sm90_gemm(void *stream, const product &p); /* [queued] */

/* p as a forward whose c is what the activation makes of u, which is kept.  SwiGLU: no bias,
 * columns of c a multiple of 128. */
bool sm90_gemm_act_takes(void *stream, enum kern_act kind, const product &p,
                         struct kern_mat u);
kr_status sm90_gemm_act(void *stream, enum kern_act kind, const product &p,
                        struct kern_mat u); /* [queued] */

/* Heads of 64 or 128 channels in bf16 matrices as above. */
bool sm90_attention_takes(void *stream, struct kern_mat qkv, struct kern_mat out,
                          const struct kern_heads *h);

/* [queued] As the entry of the table. */
kr_status sm90_attention_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                             struct kern_mat qkv, const struct kern_heads *h);

/* The matrices of a backward; delta is computed. */
struct sm90_backward {
    struct kern_mat dqkv, delta, dout, qkv, lse;
    const struct kern_heads *h;
};
kr_status sm90_attention_bwd(void *stream, const sm90_backward &b); /* [queued] */

/* Bytes of cuda_scratch that it takes: fp32 sums of dQ of `rows` rows, and counters. */
size_t sm90_attention_scratch(int64_t rows, const struct kern_heads *h);

/* [queued] The end of a backward: sums of dQ (sm90_layout.h), rounded, into dqkv. */
kr_status sm90_attention_dq(void *stream, const sm90_backward &b, const float *sums);

#endif
