/*
 * num.cuh - numbers of kernels: storage types, packs of them, sums of a block.
 *
 * Arithmetic is fp32 (sums of sums in double); T is how a number is stored, float or
 * bf16.  Rounding to bf16 is to nearest even, except where rounding by chance is said.
 */
#ifndef KERN_CUDA_NUM_CUH
#define KERN_CUDA_NUM_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/kernels.h"

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float wide(float x) { return x; }
static __device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* 16 bytes of T.  Stores to global memory are of one kind, because nvcc takes plain ones of
 * 16 bytes to pieces of 4 where narrow ones stand beside them (scripts/gpu-gates counts). */
template <typename T> struct pack;
template <> struct pack<float> {
    enum { N = 4 };
    static __device__ __forceinline__ void load(float out[4], const float *at)
    {
        float4 v = *(const float4 *)at;

        out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
    }
    static __device__ __forceinline__ void store(float *at, const float in[4])
    {
        __stcg((float4 *)at, make_float4(in[0], in[1], in[2], in[3]));
    }
};
template <> struct pack<bf16> {
    enum { N = 8 };
    static __device__ __forceinline__ unsigned two(float a, float b)
    {
        __nv_bfloat162 v = __floats2bfloat162_rn(a, b);

        return *(unsigned *)&v;
    }
    static __device__ __forceinline__ void store(bf16 *at, const float in[8])
    {
        __stcg((uint4 *)at, make_uint4(two(in[0], in[1]), two(in[2], in[3]),
                                       two(in[4], in[5]), two(in[6], in[7])));
    }
};

/* ---- over a warp, over a block -------------------------------------------------------- */

enum { WARP = 32 };
#define ALL_LANES 0xffffffffu

/* The same tree on every lane, so all lanes get the same bits. */
template <typename F> static __device__ __forceinline__ F warp_sum(F x)
{
#pragma unroll
    for (int far = WARP / 2; far > 0; far /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, far);
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int far = WARP / 2; far > 0; far /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, far));
    return x;
}

/* Sum over a block of THREADS, the same bits in all threads.  `room`: shared memory of one
 * F per warp; may be used again at once. */
template <int THREADS, typename F>
static __device__ __forceinline__ F block_sum(F x, F *room)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    F all = 0;

    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) room[warp] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < THREADS / WARP; w++)
        all += room[w];
    return all;
}

template <int THREADS>
static __device__ __forceinline__ float block_max(float x, float *room)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float all = -INFINITY;

    x = warp_max(x);
    __syncthreads();
    if (lane == 0) room[warp] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < THREADS / WARP; w++)
        all = fmaxf(all, room[w]);
    return all;
}

/* Call f<T>(args) with the storage type of a matrix: float or bf16. */
#define BY_TYPE(type, f, ...) \
    ((type) == KERN_BF16 ? f<bf16>(__VA_ARGS__) : f<float>(__VA_ARGS__))

#endif
