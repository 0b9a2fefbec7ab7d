/*
 * launch.cuh - how the entries of the table start kernels.
 *
 *     return launch(stream, "add", add_kernel<float>, blocks, THREADS, 0, y, a, b);
 *
 * Grids with nothing in them are no launch.  Dynamic shared memory has one name in all
 * kernels, `shared_bytes`, declared with DYNAMIC_SHARED.
 */
#ifndef KERN_CUDA_LAUNCH_CUH
#define KERN_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include "kernels/cuda/ops.h"

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED extern __shared__ __align__(128) unsigned char shared_bytes[]
#endif

enum { SHARED_USUAL = 48 << 10 }; /* bytes that a block gets without asking */

template <typename... P, typename... A>
static kr_status launch(void *stream, const char *operation, void (*kernel)(P...),
                        dim3 grid, int threads, size_t shared, A... args)
{
    cudaLaunchConfig_t config = {};

    TRY(cuda_ready(stream));
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return KR_OK;
    if (shared > SHARED_USUAL)
        (void)cudaFuncSetAttribute((const void *)kernel,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)shared);
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = shared;
    config.stream = cuda_handle(stream);
    (void)cudaLaunchKernelEx(&config, kernel, P(args)...);
    return cuda_ran(stream, operation);
}

/* Pieces of `each` that n is cut into; a dimension of a grid (2^31 - 1 at most). */
static inline __host__ __device__ int64_t pieces(int64_t n, int64_t each)
{
    return (n + each - 1) / each;
}

/* A view on the device, of a known type. */
template <typename T> struct view {
    T *at;
    int64_t rows, cols, ld;

    __host__ __device__ T *row(int64_t i) const { return at + i * ld; }
};

template <typename T> static inline view<T> view_of(struct kern_mat m)
{
    return view<T>{ (T *)m.at, m.rows, m.cols, m.ld };
}

/* A view without gaps is one long row. */
static inline struct kern_mat flat(struct kern_mat m)
{
    if (m.ld != m.cols && m.rows != 1) return m;
    m.cols *= m.rows;
    m.ld = m.cols;
    m.rows = 1;
    return m;
}

/* Can every row of m be read `bytes` at a time? */
static inline bool is_aligned(struct kern_mat m, size_t bytes)
{
    size_t step = (size_t)m.ld * kern_dtype_bytes(m.type);

    return ((uintptr_t)m.at | (m.rows > 1 ? step : 0)) % bytes == 0;
}

#endif
