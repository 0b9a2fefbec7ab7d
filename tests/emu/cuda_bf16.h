/* cuda_bf16.h - bfloat16 for the emulated GPU. */
#ifndef EMU_CUDA_BF16_H
#define EMU_CUDA_BF16_H

#include "base/bf16.h"
#include "cuda_runtime.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
struct __attribute__((aligned(4))) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 x) { return bf16_value(x.bits); }
static inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    return __nv_bfloat16{ bf16_round(x) };
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{ __float2bfloat16_rn(x), __float2bfloat16_rn(y) };
}

#endif
