/*
 * attention_mma.cuh - steps of attention on tensor cores; a warp owns 16 rows of scores.
 *
 * Scores of a warp are fragments of multiply(): with g = lane / 4, t = lane % 4,
 * s[n][0..1] is row g, columns 8n + 2t + {0, 1}, and s[n][2..3] is row g + 8.  Read as the
 * left operand of the next product, s[2k] and s[2k + 1] are columns 16k .. 16k + 15.
 */
#ifndef KERN_CUDA_ATTENTION_MMA_CUH
#define KERN_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tile.cuh"

/* ROWS rows of a head of D channels, from row `first` of a sequence of `seq` rows; `from`:
 * the head in row 0 of the sequence.  Rows past the end become zeros. */
template <int ROWS, int D, int THREADS>
static __device__ __forceinline__ void fetch_rows(unsigned char *tile, const bf16 *from,
                                                  int64_t ld, int64_t first, int64_t seq)
{
    enum { CHUNKS = D / CHUNK };

    static_assert(ROWS * CHUNKS % THREADS == 0, "threads share the chunks evenly");
#pragma unroll 1 /* addresses kept in registers would crowd the sums out */
    for (int n = 0; n < ROWS * CHUNKS / THREADS; n++) {
        const int q = n * THREADS + threadIdx.x, row = q / CHUNKS, chunk = q % CHUNKS;

        bring(tile + tile_at<CHUNKS>(row, chunk),
              from + (first + row) * ld + chunk * CHUNK, from,
              first + row < seq ? CHUNK : 0, true);
    }
}

/* s (16, 8 N) = rows of `a` from `row`, times rows of `b`, both along D channels. */
template <int N, int D>
static __device__ __forceinline__ void scores(float s[N][4], const unsigned char *a,
                                              int row, const unsigned char *b)
{
    enum { CHUNKS = D / CHUNK };
    const int lane = threadIdx.x % WARP;

#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        unsigned left[4], right[4];

        read_tile<CHUNKS>(left, a, row, 2 * k, a_along(lane));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            read_tile<CHUNKS>(right, b, 8 * n, 2 * k, b_along(lane));
            multiply(s[n], left, right);
            multiply(s[n + 1], left, right + 2);
        }
    }
}

static __device__ __forceinline__ unsigned two(float a, float b)
{
    return pack<bf16>::two(a, b);
}

/* sum (16, D) += s (16, 8 N) b (8 N, D), b stored row by row. */
template <int N, int D>
static __device__ __forceinline__ void gather(float sum[D / 8][4], const float s[N][4],
                                              const unsigned char *b)
{
    enum { CHUNKS = D / CHUNK };
    const int lane = threadIdx.x % WARP;

#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        const unsigned left[4] = { two(s[2 * k][0], s[2 * k][1]),
                                   two(s[2 * k][2], s[2 * k][3]),
                                   two(s[2 * k + 1][0], s[2 * k + 1][1]),
                                   two(s[2 * k + 1][2], s[2 * k + 1][3]) };

#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned right[4];

            read_tile_turned<CHUNKS>(right, b, 16 * k, n, b_across(lane));
            multiply(sum[n], left, right);
            multiply(sum[n + 1], left, right + 2);
        }
    }
}

/* Rows `row` (its first two quarters) and `row` + 8 of sum, times what they are given, to
 * rows of a head at `to`; rows from `seq` on do not exist. */
template <int D>
static __device__ __forceinline__ void store_rows(bf16 *to, int64_t ld, int64_t row,
                                                  int64_t seq, const float sum[D / 8][4],
                                                  float upper, float lower)
{
    const int at = threadIdx.x % 4 * 2;

#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        if (row < seq)
            *(unsigned *)(to + row * ld + 8 * n + at) =
                two(sum[n][0] * upper, sum[n][1] * upper);
        if (row + 8 < seq)
            *(unsigned *)(to + (row + 8) * ld + 8 * n + at) =
                two(sum[n][2] * lower, sum[n][3] * lower);
    }
}

/* Over the four lanes that share a row. */
static __device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

static __device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

#endif
