/*
 * columns.cuh - sums over all rows, column by column, in an order fixed by the shape.
 *
 * Rows are cut into slices.  In the first kernel a block sums one slice of 256 columns:
 * its warps take the rows of the slice in turn, and their sums are added in the order of
 * the warps.  The second kernel adds the slices in order, eight runs of them at a time.  The
 * number of slices depends on the number of rows alone.  Rows are read a few at a time before
 * the first is added: nvcc does not move a load over the branch of the one before.
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
    COLUMN_MOST = 128,
    COLUMN_BATCH = 4 /* rows that a warp reads at a time */
};

/* Slices of so many rows, and the rows of one. */
static inline __host__ __device__ int64_t column_slices(int64_t rows)
{
    int64_t n = pieces(rows, COLUMN_SLICE);

    return n < 1 ? 1 : n < COLUMN_MOST ? n : COLUMN_MOST;
}

/* Bytes of part (K, slices, cols). */
static inline size_t column_scratch(int k, int64_t slices, int64_t cols)
{
    return sizeof(float) * (size_t)(k * slices * cols);
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

    for (int64_t i = slice * each + warp; i < end && c < cols;
         i += COLUMN_BATCH * COLUMN_WARPS) {
        float v[COLUMN_BATCH][K][CELL];

#pragma unroll
        for (int q = 0; q < COLUMN_BATCH; q++) {
            const int64_t row = i + q * COLUMN_WARPS;

            f(v[q], row < end ? row : end - 1, c);
        }
#pragma unroll
        for (int q = 0; q < COLUMN_BATCH; q++)
#pragma unroll
            for (int n = 0; n < K; n++)
#pragma unroll
                for (int k = 0; k < CELL; k++)
                    if (i + q * COLUMN_WARPS < end) sum[n][k] += v[q][n][k];
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

/* Where K sums of columns go: outs[n] (cols) [+]= the n-th; NULL: nowhere. */
template <int K> struct column_outs {
    float *at[K];
    bool add;
};

enum { JOIN_COLS = WARP, JOIN_GROUPS = 8 };

/* The slices of part (K, slices, cols) in order: each warp of a block adds some of 32
 * columns, then their sums are added. */
template <int K>
static __global__ void __launch_bounds__(JOIN_GROUPS *JOIN_COLS)
    join_kernel(const float *part, int64_t slices, int64_t cols, column_outs<K> outs)
{
    __shared__ float room[JOIN_GROUPS][JOIN_COLS];
    const int group = threadIdx.x / JOIN_COLS, lane = threadIdx.x % JOIN_COLS;
    const int64_t c = (int64_t)blockIdx.x * JOIN_COLS + lane, n = blockIdx.y;
    const int64_t each = pieces(slices, JOIN_GROUPS), first = group * each;
    const int64_t end = first + each < slices ? first + each : slices;
    float sum = 0;

    if (!outs.at[n]) return;
#pragma unroll 8
    for (int64_t s = first; s < end; s++)
        sum += c < cols ? part[(n * slices + s) * cols + c] : 0.0f;
    room[group][lane] = sum;
    __syncthreads();
    if (group > 0 || c >= cols) return;
    sum = outs.add ? outs.at[n][c] : 0.0f;
    for (int g = 0; g < JOIN_GROUPS; g++)
        sum += room[g][lane];
    outs.at[n][c] = sum;
}

template <int K>
static kr_status column_join(void *stream, const char *operation, const float *part,
                             int64_t slices, int64_t cols, const column_outs<K> &outs)
{
    return launch(stream, operation, join_kernel<K>,
                  dim3((unsigned)pieces(cols, JOIN_COLS), K), JOIN_GROUPS * JOIN_COLS, 0,
                  part, slices, cols, outs);
}

template <int K, typename F>
static kr_status column_sums(void *stream, const char *operation, F f, int64_t rows,
                             int64_t cols, const column_outs<K> &outs)
{
    const int64_t slices = column_slices(rows);
    float *part;

    TRY(cuda_scratch(stream, &part, column_scratch(K, slices, cols)));
    TRY(launch(stream, operation, column_parts<K, F>,
               dim3((unsigned)pieces(cols, COLUMN_STRIPE), (unsigned)slices),
               COLUMN_WARPS * WARP, 0, f, rows, cols, part));
    return column_join<K>(stream, operation, part, slices, cols, outs);
}

#endif
