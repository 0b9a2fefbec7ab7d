/* cuda_runtime.h - CUDA C++ as the host's compiler understands it, for the emulated GPU. */
#ifndef EMU_CUDA_RUNTIME_H
#define EMU_CUDA_RUNTIME_H

#include <math.h>
#include <string.h>

#include <functional>

#include "cuda_runtime_api.h"

#define __host__
#define __device__
#define __global__
#define __shared__      static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n)   __attribute__((aligned(n)))
#define DYNAMIC_SHARED extern unsigned char shared_bytes[]

struct dim3 {
    unsigned x, y, z;

    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct __attribute__((aligned(8))) float2 {
    float x, y;
};
struct __attribute__((aligned(16))) float4 {
    float x, y, z, w;
};
struct __attribute__((aligned(16))) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return float2{ x, y }; }
static inline float4 make_float4(float x, float y, float z, float w)
{
    return float4{ x, y, z, w };
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return uint4{ x, y, z, w };
}

[[noreturn]] void emu_fail(const char *why);

/* Past the first cache. */
template <typename T> static inline void __stcg(T *at, T x)
{
    if ((uintptr_t)at % alignof(T)) emu_fail("a store that is not aligned");
    *at = x;
}

/* ---- threads -------------------------------------------------------------------------- */

struct emu_thread;
extern emu_thread *emu_now; /* the thread that runs */
extern dim3 emu_block, emu_block_dim, emu_grid;
dim3 emu_thread_index();
#define threadIdx emu_thread_index()
#define blockIdx  emu_block
#define blockDim  emu_block_dim
#define gridDim   emu_grid

void __syncthreads();

enum { EMU_WARP = 32, EMU_WORDS = 8 };

/* What every lane of the warp brought: all[lane].  Returns when the whole warp is here. */
struct emu_words {
    uint64_t at[EMU_WORDS];
};
const emu_words *emu_exchange(const emu_words *mine);
int emu_lane();

template <typename T> static inline T emu_from(T x, int lane)
{
    emu_words mine;

    static_assert(sizeof x <= 8, "a word");
    memcpy(mine.at, &x, sizeof x);
    memcpy(&x, emu_exchange(&mine)[lane].at, sizeof x);
    return x;
}
template <typename T> static inline T __shfl_sync(unsigned, T x, int lane)
{
    return emu_from(x, lane);
}
template <typename T> static inline T __shfl_xor_sync(unsigned, T x, int mask)
{
    return emu_from(x, emu_lane() ^ mask);
}

/* ---- launches ------------------------------------------------------------------------- */

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    union {
        struct {
            unsigned x, y, z;
        } clusterDim;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute what, int value);
cudaError_t emu_launch(const cudaLaunchConfig_t *c, const void *kernel,
                       const std::function<void()> &body);

template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *c,
                                             void (*kernel)(P...), A... args)
{
    return emu_launch(c, (const void *)kernel, [=] { kernel(args...); });
}

/* ---- numbers -------------------------------------------------------------------------- */

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __uint_as_float(unsigned u)
{
    float x;

    memcpy(&x, &u, sizeof x);
    return x;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned u;

    memcpy(&u, &x, sizeof u);
    return u;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

#endif
