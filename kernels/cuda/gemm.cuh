/*
 * gemm.cuh - one matrix product, and who can run it.
 *
 *   c (M, N) = onto + op(a) op(b) + bias;  ta: a is (K, M), tb: b is (N, K)
 */
#ifndef KERN_CUDA_GEMM_CUH
#define KERN_CUDA_GEMM_CUH

#include "kernels/cuda/launch.cuh"

struct product {
    struct kern_mat c, a, b, bias; /* bias (1, N) or none */
    struct kern_mat onto;          /* as c; c itself, another or none */
    bool ta, tb;

    int64_t inner() const { return ta ? a.rows : a.cols; }
};

kr_status gemm_bf16(void *stream, const product &p); /* a, b bf16; c bf16 or fp32 */
kr_status gemm_f32(void *stream, const product &p);  /* all fp32 */

/* Where block number `id` works: tiles in bands of BAND rows, so that the tiles that run
 * at one time share their operands in the cache. */
enum { BAND = 8 };
static inline __host__ __device__ void tile_of(int64_t id, int64_t down, int64_t across,
                                               int64_t *y, int64_t *x)
{
    const int64_t band = id / (BAND * across), first = band * BAND;
    const int64_t height = down - first < BAND ? down - first : BAND;
    const int64_t rest = id - first * across;

    *y = first + rest % height;
    *x = rest / height;
}

#endif
