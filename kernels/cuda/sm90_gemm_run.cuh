/*
 * sm90_gemm_run.cuh - from a product to the launch of one kernel: which tiles (gemm_choose),
 * what the copy engine must know.  Each kind of product is a file, so that they compile
 * side by side.
 */
#ifndef KERN_CUDA_SM90_GEMM_RUN_CUH
#define KERN_CUDA_SM90_GEMM_RUN_CUH

#include "kernels/cuda/sm90.h"
#include "kernels/cuda/sm90_gemm.cuh"
#include "kernels/cuda/sm90_launch.cuh"

/* Forward, gradient of the data, gradient of the weights. */
kr_status sm90_gemm_nt(void *stream, const product &p);
kr_status sm90_gemm_nn(void *stream, const product &p);
kr_status sm90_gemm_tn(void *stream, const product &p);

template <class S> static struct gemm_args gemm_args_of(const product &p, int32_t split)
{
    struct gemm_args g = {};

    g.m = (int32_t)p.c.rows;
    g.n = (int32_t)p.c.cols;
    g.k = (int32_t)p.inner();
    g.split = split;
    g.c = S::out == GEMM_F32 ? p.c.at : p.onto.at;
    g.ldc = S::out == GEMM_F32 ? p.c.ld : p.onto.ld;
    g.add = p.onto.at != NULL;
    g.bias = (const bf16 *)p.bias.at;
    return g;
}

/* before: what an activation was made of, or none. */
template <class S>
static kr_status gemm_launch(void *stream, const product &p, struct kern_mat before,
                             int32_t split)
{
    const struct gemm_args g = gemm_args_of<S>(p, split);
    const int32_t jobs = job_count<S>(g), sms = cuda_sms(stream) / S::pair;
    CUtensorMap a, b, c = {}, u = {};

    TRY(tensor_map_encode(&a, gemm_box_a<S>(p.a)));
    TRY(tensor_map_encode(&b, gemm_box_b<S>(p.b)));
    if (S::out != GEMM_F32) TRY(tensor_map_encode(&c, gemm_box_c(p.c)));
    if (before.at) TRY(tensor_map_encode(&u, gemm_box_c(before)));
    if constexpr (S::out == GEMM_F32 && S::tile_n == 128)
        if (split > 1)
            return launch_clusters<gemm_split_kernel<S>>(stream, "matmul", jobs * split,
                                                         split, GEMM_THREADS,
                                                         S::shared_bytes, a, b, g);
    return launch_clusters<gemm_kernel<S>>(stream, "matmul",
                                           (jobs < sms ? jobs : sms) * S::pair, S::pair,
                                           GEMM_THREADS, S::shared_bytes, a, b, c, u, g);
}

template <bool TA, bool TB, enum gemm_out OUT>
static kr_status gemm_run(void *stream, const product &p, struct kern_mat before)
{
    const int64_t n = OUT == GEMM_SWIGLU ? before.cols : p.c.cols;
    const struct gemm_plan plan =
        gemm_choose((int32_t)p.c.rows, (int32_t)n, (int32_t)p.inner(), cuda_sms(stream),
                    OUT == GEMM_F32);

    /* gate and up of a tile are its halves, of 128 columns each */
    if constexpr (OUT != GEMM_SWIGLU)
        if (plan.tile_n == 128)
            return gemm_launch<gemm_shape<128, 1, TA, TB, OUT>>(stream, p, before,
                                                                plan.split);
    if (plan.pair == 2)
        return gemm_launch<gemm_shape<256, 2, TA, TB, OUT>>(stream, p, before, 1);
    return gemm_launch<gemm_shape<256, 1, TA, TB, OUT>>(stream, p, before, 1);
}

#endif
