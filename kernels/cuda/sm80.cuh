/*
 * sm80.cuh - the instructions of sm_80 that have no other name in CUDA C++.
 *
 * tests/emu has the same functions for a machine without a GPU; keep the two alike.
 */
#ifndef KERN_CUDA_SM80_CUH
#define KERN_CUDA_SM80_CUH

#include <cuda_runtime.h>

/* Copy 16 bytes to shared memory, asynchronously: `bytes` of them from memory (0 to 16),
 * the rest zeros.  Both addresses are multiples of 16. */
static __device__ __forceinline__ void copy_async(void *shared, const void *from,
                                                  int bytes)
{
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
                 "r"(bytes)
                 : "memory");
}

/* The copies since the last commit are one group. */
static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Wait until at most PENDING of this thread's newest groups are under way. */
template <int PENDING> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING) : "memory");
}

/* Four 8 x 8 matrices of bf16: lanes 8i .. 8i + 7 give the addresses of the rows (16
 * bytes) of matrix i; r[i] gets elements (lane / 4, 2 (lane % 4) + {0, 1}) of it. */
static __device__ __forceinline__ void load_matrices(unsigned r[4], const void *shared)
{
    unsigned from = (unsigned)__cvta_generic_to_shared(shared);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/* The same of the transposed matrices. */
static __device__ __forceinline__ void load_matrices_turned(unsigned r[4],
                                                            const void *shared)
{
    unsigned from = (unsigned)__cvta_generic_to_shared(shared);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/* d (16, 8) += a (16, 16) b (16, 8), bf16 into fp32.  With g = lane / 4, t = lane % 4:
 *   a[0] (g, 2t..)  a[1] (g + 8, 2t..)  a[2] (g, 2t + 8..)  a[3] (g + 8, 2t + 8..)
 *   b[0] (2t.., g)  b[1] (2t + 8.., g)
 *   d[0..1] (g, 2t..)  d[2..3] (g + 8, 2t..) */
static __device__ __forceinline__ void multiply(float d[4], const unsigned a[4],
                                                const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
