/*
 * columns.cuh - sums over all rows, column by column, in an order fixed by the shape.
 *
 * Rows are cut into slices.  In the first kernel a block sums one slice of 256 columns:
 * its warps take the rows of the slice in turn, and their sums are added in the order of
 * the warps.  The second kernel adds the slices in order.  The number of slices depends on
 * the number of rows alone.
 *
 * What is summed is up to a functor: K numbers per element, from (row, column).
 */
#ifndef KERN_CUDA_COLUMNS_CUH
#define KERN_CUDA_COLUMNS_CUH

#include "kernels/cuda/cells.cuh"

enum {
    COLUMN_WARPS = 8,
    COLUMN_STRIPE = WARP * CELL,
    COLUMN_SLICE = 64,
    COLUMN_MOST = 128
};

/* Slices of so many rows, and the rows of one. */
static inline __host__ __device__ int64_t column_slices(int64_t rows)
{
    int64_t n = pieces(rows, COLUMN_SLICE);

    return n < 1 ? 1 : n < COLUMN_MOST ? n : COLUMN_MOST;
}

/* part (K, slices, cols) */
template <int K, typename F>
__global__ void __launch_bounds__(COLUMN_WARPS *WARP)
    column_parts(F f, int64_t rows, int64_t cols, float *part)
{
    __shared__ float room[COLUMN_WARPS][COLUMN_STRIPE];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int64_t slices = gridDim.y, slice = blockIdx.y, each = pieces(rows, slices);
    const int64_t first = (int64_t)blockIdx.x * COLUMN_STRIPE, c = first + lane * CELL;
    const int64_t end = (slice + 1) * each < rows ? (slice + 1) * each : rows;
    float sum[K][CELL] = {};

    for (int64_t i = slice * each + warp; i < end && c < cols; i += COLUMN_WARPS) {
        float v[K][CELL];

        f(v, i, c);
#pragma unroll
        for (int n = 0; n < K; n++)
#pragma unroll
            for (int k = 0; k < CELL; k++)
                sum[n][k] += v[n][k];
    }
#pragma unroll
    for (int n = 0; n < K; n++) {
        const int64_t mine = first + threadIdx.x;
        float all = 0;

        __syncthreads();
#pragma unroll
        for (int k = 0; k < CELL; k++)
            room[warp][lane * CELL + k] = sum[n][k];
        __syncthreads();
        for (int w = 0; w < COLUMN_WARPS; w++)
            all += room[w][threadIdx.x];
        if (mine < cols) part[(n * slices + slice) * cols + mine] = all;
    }
}

static_assert(COLUMN_STRIPE == COLUMN_WARPS * WARP, "a thread finishes one column");

/* out (cols) [+]= the slices of part (slices, cols), in order. */
static __global__ void column_join(const float *part, int64_t slices, int64_t cols,
                                   float *out, bool add)
{
    const int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;

    if (c >= cols) return;
    for (int64_t s = 0; s < slices; s++)
        sum += part[s * cols + c];
    out[c] = add ? out[c] + sum : sum;
}

/* outs[n] (cols) [+]= sums of the n-th number; an out may be NULL. */
template <int K, typename F>
static kr_status column_sums(void *stream, const char *operation, F f, int64_t rows,
                             int64_t cols, float *const outs[K], bool add)
{
    const int64_t slices = column_slices(rows);
    float *part;

    TRY(cuda_scratch(stream, &part, sizeof *part * (size_t)(K * slices * cols)));
    TRY(launch(stream, operation, column_parts<K, F>,
               dim3((unsigned)pieces(cols, COLUMN_STRIPE), (unsigned)slices),
               COLUMN_WARPS * WARP, 0, f, rows, cols, part));
    for (int n = 0; n < K; n++)
        if (outs[n])
            TRY(launch(stream, operation, column_join, dim3((unsigned)pieces(cols, 256)),
                       256, 0, part + n * slices * cols, slices, cols, outs[n], add));
    return KR_OK;
}

#endif
