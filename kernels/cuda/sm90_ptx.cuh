/*
 * sm90_ptx.cuh - the Hopper instructions that C++ has no words for, one small function each.
 *
 * Addresses of shared memory are 32-bit numbers (uint32_t) everywhere in these kernels: that is
 * what the copy engine, the barriers and the descriptors take.
 *
 * tests/sm90/machine.h has the same functions for a machine in software; a kernel that uses
 * only these runs there as it stands.
 */
#ifndef KERN_CUDA_SM90_PTX_CUH
#define KERN_CUDA_SM90_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

#include "kernels/cuda/sm90_layout.h"

#define DEVICE          __device__ __forceinline__
#define DEVICE_MEMBER   __device__ __forceinline__
#define KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
#define TENSOR_MAP      const __grid_constant__ CUtensorMap

typedef __nv_bfloat16 bf16;

/* ---- who am I ------------------------------------------------------------------------- */

DEVICE int32_t thread_id() { return (int32_t)threadIdx.x; }
DEVICE int32_t block_id() { return (int32_t)blockIdx.x; }
DEVICE int32_t block_count() { return (int32_t)gridDim.x; }

/* The same in all lanes of a warp, and the compiler knows. */
DEVICE int32_t uniform(int32_t x) { return __shfl_sync(0xffffffffu, x, 0); }

DEVICE int32_t cluster_rank()
{
    uint32_t r;

    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return (int32_t)r;
}

/* ---- arithmetic ----------------------------------------------------------------------- */

DEVICE float exp2_fast(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float log2_fast(float x) { return __log2f(x); }
DEVICE float divide_fast(float a, float b) { return __fdividef(a, b); }

/* Two floats, rounded to nearest even; lo in the low half. */
DEVICE uint32_t pack(float lo, float hi)
{
    uint32_t r;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
DEVICE float unpack_lo(uint32_t pair) { return __uint_as_float(pair << 16); }
DEVICE float unpack_hi(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/* Over the four lanes that share a row of the accumulators. */
DEVICE float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
DEVICE float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
DEVICE float warp_sum(float x)
{
    for (int i = 16; i > 0; i /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

/* ---- shared memory -------------------------------------------------------------------- */

/* The dynamic shared memory of this CTA from its first multiple of PANEL_ALIGN on: ask
 * for PANEL_ALIGN bytes more.  The same number in all CTAs of a cluster. */
DEVICE uint32_t shared_start()
{
    extern __shared__ uint8_t shared_bytes[];

    return ((uint32_t)__cvta_generic_to_shared(shared_bytes) + PANEL_ALIGN - 1) &
           ~(uint32_t)(PANEL_ALIGN - 1);
}

DEVICE void store_shared(uint32_t at, float x)
{
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(x) : "memory");
}
DEVICE float2 load_shared2(uint32_t at)
{
    float2 x;

    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at));
    return x;
}
DEVICE void store_shared2(uint32_t at, float x, float y)
{
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(x), "f"(y) : "memory");
}
DEVICE void store_shared4(uint32_t at, float x, float y, float z, float w)
{
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at), "f"(x), "f"(y),
                 "f"(z), "f"(w)
                 : "memory");
}
DEVICE void store_shared_int(uint32_t at, int32_t x)
{
    asm volatile("st.shared.s32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
}
DEVICE int32_t load_shared_int(uint32_t at)
{
    int32_t x;

    asm volatile("ld.shared.s32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
    return x;
}

/* From the shared memory of CTA `rank` of the cluster, at the place that is `at` here. */
DEVICE float4 load_peer4(uint32_t at, int32_t rank)
{
    float4 x;
    uint32_t there;

    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(there)
                 : "r"(at), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "r"(there)
                 : "memory");
    return x;
}

/* Four 8 x 8 matrices of bf16; lane l gives the address of row l % 8 of matrix l / 8. */
DEVICE void stmatrix(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at),
        "r"(a), "r"(b), "r"(c), "r"(d)
        : "memory");
}

/* What this thread wrote to shared memory is seen by the copy engine and the tensor cores
 * (after a barrier, also for those of others). */
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---- barriers ------------------------------------------------------------------------- */

/* Named barrier of `threads` threads; id 0 is __syncthreads'. */
DEVICE void bar_sync(int32_t id, int32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void bar_arrive(int32_t id, int32_t threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void cta_sync() { __syncthreads(); }
DEVICE void warp_sync() { __syncwarp(); }
DEVICE void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::
                     : "memory");
}

DEVICE void mbar_init(uint32_t bar, int32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}
/* After all mbar_init, before the cluster or CTA barrier that shows them to others. */
DEVICE void mbar_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void mbar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* Arrive, and announce `bytes` that copies will bring. */
DEVICE void mbar_expect(uint32_t bar, int32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar),
                 "r"(bytes)
                 : "memory");
}
/* Arrive at the same barrier of CTA `rank` of the cluster. */
DEVICE void mbar_arrive_at(uint32_t bar, int32_t rank)
{
    asm volatile("{\n\t"
                 ".reg .b32 there;\n\t"
                 "mapa.shared::cluster.u32 there, %0, %1;\n\t"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n\t"
                 "}" ::"r"(bar),
                 "r"(rank)
                 : "memory");
}
DEVICE bool mbar_try(uint32_t bar, uint32_t parity)
{
    uint32_t done;

    asm volatile("{\n\t"
                 ".reg .pred p;\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t"
                 "}"
                 : "=r"(done)
                 : "r"(bar), "r"(parity)
                 : "memory");
    return done != 0;
}
/* Until the phase of this parity is over.  A loop, so ptxas moves nothing across. */
DEVICE void mbar_wait(uint32_t bar, uint32_t parity)
{
    while (!mbar_try(bar, parity)) {
    }
}

/* ---- copies --------------------------------------------------------------------------- */

DEVICE void map_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* A box from (x, y) or (x, y, z), x fastest, to shared memory; its bytes count for bar. */
DEVICE void tma_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int32_t x,
                     int32_t y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::"
                 "complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(map), "r"(bar), "r"(x), "r"(y)
                 : "memory");
}
DEVICE void tma_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int32_t x,
                     int32_t y, int32_t z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::"
                 "complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
/* The same bytes, and the same barrier, in each CTA of the cluster whose bit is in mask. */
DEVICE void tma_load_multicast(uint32_t to, const CUtensorMap *map, uint32_t bar,
                               uint16_t mask, int32_t x, int32_t y)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::"
        "complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
        "l"(map), "r"(bar), "h"(mask), "r"(x), "r"(y)
        : "memory");
}
DEVICE void tma_store(const CUtensorMap *map, uint32_t from, int32_t x, int32_t y)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group "
                 "[%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(from), "r"(x), "r"(y)
                 : "memory");
}
DEVICE void tma_store(const CUtensorMap *map, uint32_t from, int32_t x, int32_t y,
                      int32_t z)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group "
                 "[%0, {%2, %3, %4}], [%1];" ::"l"(map),
                 "r"(from), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
DEVICE void tma_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/* Until all but the last N groups of stores of this thread have read their source. */
template <int N> DEVICE void tma_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

/* Bytes (multiples of 16) from shared to device memory, as a store of this thread: over what
 * is there, or added to it, fp32. */
DEVICE void bulk_store(float *to, uint32_t from, int32_t bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to),
                 "r"(from), "r"(bytes)
                 : "memory");
}
DEVICE void bulk_add(float *to, uint32_t from, int32_t bytes)
{
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 "
                 "[%0], [%1], %2;" ::"l"(to),
                 "r"(from), "r"(bytes)
                 : "memory");
}
/* Until all stores of this thread are in memory. */
DEVICE void tma_wait_all() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/* ---- between CTAs --------------------------------------------------------------------- */

/* One more; what it was before. */
DEVICE int32_t claim(int32_t *count)
{
    int32_t was;

    asm volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], 1;"
                 : "=r"(was)
                 : "l"(count)
                 : "memory");
    return was;
}
/* One more, after all that this thread's stores (waited for) have written. */
DEVICE void count_up(int32_t *count)
{
    asm volatile("fence.proxy.async.global;\n\t"
                 "red.release.gpu.global.add.s32 [%0], 1;" ::"l"(count)
                 : "memory");
}
/* Until it is `value`; copies of this thread that follow find what was written before.  One
 * fence at the end: an acquire a look would empty L1 each time. */
DEVICE void await_count(const int32_t *count, int32_t value)
{
    int32_t is;

    do
        asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];"
                     : "=r"(is)
                     : "l"(count)
                     : "memory");
    while (is != value);
    asm volatile("fence.acq_rel.gpu;\n\tfence.proxy.async.global;" ::: "memory");
}

/* ---- warpgroups ----------------------------------------------------------------------- */

template <int N> DEVICE void registers_less()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> DEVICE void registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> DEVICE void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The compiler must have these registers as they are here: before the fence that precedes
 * products into them, after the wait that ends them. */
template <int N> DEVICE void pin(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* Operand lists of 8 to 128 accumulators. */
#define ACC_8(d, i)                                                             \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), \
        "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define ACC_32(d, i) ACC_8(d, i), ACC_8(d, i + 8), ACC_8(d, i + 16), ACC_8(d, i + 24)
#define ACC_48(d)    ACC_32(d, 0), ACC_8(d, 32), ACC_8(d, 40)
#define ACC_64(d)    ACC_32(d, 0), ACC_32(d, 32)
#define ACC_128(d)   ACC_64(d), ACC_32(d, 64), ACC_32(d, 96)

#define NAMES_32                                                             \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_48                                                                        \
    NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
             "%46, %47"
#define NAMES_64                                                                        \
    NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
             "%62, %63"
#define NAMES_128                                                                       \
    NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, " \
             "%78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "   \
             "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, "   \
             "%105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, " \
             "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/* d (64, N) = or += a (64, 16) b (16, N), bf16 in, fp32 out; N / 2 accumulators a thread.
 * TA, TB: the operand is MN-major.  more: add to d. */
#define WGMMA_SS(ACCS, N, NAMES, LIST, A, B, MORE, TRANS_A, TRANS_B)                   \
    template <int TA, int TB>                                                          \
    DEVICE void wgmma(float(&d)[ACCS], uint64_t a, uint64_t b, bool more)              \
    {                                                                                  \
        asm volatile("{\n\t"                                                           \
                     ".reg .pred p;\n\t"                                               \
                     "setp.ne.b32 p, " MORE ", 0;\n\t"                                 \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" NAMES \
                     "}, " A ", " B ", p, 1, 1, " TRANS_A ", " TRANS_B ";\n\t"         \
                     "}"                                                               \
                     : LIST                                                            \
                     : "l"(a), "l"(b), "r"((int32_t)more), "n"(TA), "n"(TB));          \
    }
WGMMA_SS(32, "64", NAMES_32, ACC_32(d, 0), "%32", "%33", "%34", "%35", "%36")
WGMMA_SS(48, "96", NAMES_48, ACC_48(d), "%48", "%49", "%50", "%51", "%52")
WGMMA_SS(64, "128", NAMES_64, ACC_64(d), "%64", "%65", "%66", "%67", "%68")
WGMMA_SS(128, "256", NAMES_128, ACC_128(d), "%128", "%129", "%130", "%131", "%132")

/* The same with a in registers: a[0..3] as the accumulators of 16 columns, packed. */
#define WGMMA_RS(ACCS, N, NAMES, LIST, A, B, MORE, TRANS_B)                            \
    template <int TB>                                                                  \
    DEVICE void wgmma(float(&d)[ACCS], const uint32_t *a, uint64_t b, bool more)       \
    {                                                                                  \
        asm volatile("{\n\t"                                                           \
                     ".reg .pred p;\n\t"                                               \
                     "setp.ne.b32 p, " MORE ", 0;\n\t"                                 \
                     "wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 {" NAMES \
                     "}, {" A "}, " B ", p, 1, 1, " TRANS_B ";\n\t"                    \
                     "}"                                                               \
                     : LIST                                                            \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),             \
                       "r"((int32_t)more), "n"(TB));                                   \
    }
WGMMA_RS(32, "64", NAMES_32, ACC_32(d, 0), "%32, %33, %34, %35", "%36", "%37", "%38")
WGMMA_RS(64, "128", NAMES_64, ACC_64(d), "%64, %65, %66, %67", "%68", "%69", "%70")

#endif
