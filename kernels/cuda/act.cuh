/*
 * act.cuh - activation functions of bf16: one text for all kernels.
 *
 * An activation that the epilogue of a product makes must have the bits of one that is made
 * again from what the product left, so each step rounds as it stands here, whatever stands
 * around it.  Include it after what brings the CUDA run time.  (1 + tanh z) / 2 is 1 / (1 + exp(-2 z)): one exponential each.
 */
#ifndef KERN_CUDA_ACT_CUH
#define KERN_CUDA_ACT_CUH

/* u / (1 + 2^x) */
static __device__ __forceinline__ float act_divided(float u, float x)
{
    return __fdividef(u, __fadd_rn(1.0f, exp2f(x)));
}

/* u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))) */
static __device__ __forceinline__ float act_gelu(float u)
{
    const float twice = -2.0f * 0.7978845608f * 1.4426950409f; /* in powers of two */

    return act_divided(
        u, __fmul_rn(twice, __fmaf_rn(__fmul_rn(0.044715f, __fmul_rn(u, u)), u, u)));
}

static __device__ __forceinline__ float act_swiglu(float gate, float up)
{
    return __fmul_rn(act_divided(gate, __fmul_rn(-1.4426950409f, gate)), up);
}

#endif
