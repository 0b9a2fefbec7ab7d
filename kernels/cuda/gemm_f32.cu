/*
 * gemm_f32.cu - matrix products in true fp32, for the device "cuda32".
 *
 * A block of 256 threads makes a 128 x 128 tile of c, a thread 8 x 8 of it, from slices of
 * 16 along the inner dimension, in one order.  Tensor cores would round the operands.
 */
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/num.cuh"

enum { TILE = 128, SLICE = 16, THREADS = 256, PAD = 4, SIDE = TILE + PAD };

/* Rows of the slice are k: tile[k][m or n].  IS_ALONG: the matrix is stored along k. */
template <bool IS_ALONG>
static __device__ __forceinline__ void
fetch(float tile[SLICE][SIDE], const view<float> &o, int64_t first, int64_t step)
{
#pragma unroll
    for (int n = 0; n < TILE * SLICE / THREADS; n++) {
        const int q = n * THREADS + threadIdx.x;
        const int k = IS_ALONG ? q % SLICE : q / TILE,
                  m = IS_ALONG ? q / SLICE : q % TILE;
        const int64_t i = IS_ALONG ? first + m : step * SLICE + k;
        const int64_t j = IS_ALONG ? step * SLICE + k : first + m;

        tile[k][m] = i < o.rows && j < o.cols ? o.row(i)[j] : 0.0f;
    }
}

/* Row or column number n (0 to 7) of the 8 that a thread has, which is number t of 16. */
static __host__ __device__ __forceinline__ int mine(int t, int n)
{
    return n / 4 * (TILE / 2) + t * 4 + n % 4;
}

static __device__ __forceinline__ void
multiply_slice(float sum[8][8], float a[SLICE][SIDE], float b[SLICE][SIDE], int y, int x)
{
#pragma unroll
    for (int k = 0; k < SLICE; k++) {
        float left[8], right[8];

#pragma unroll
        for (int n = 0; n < 8; n += 4) {
            pack<float>::load(left + n, &a[k][mine(y, n)]);
            pack<float>::load(right + n, &b[k][mine(x, n)]);
        }
#pragma unroll
        for (int m = 0; m < 8; m++)
#pragma unroll
            for (int n = 0; n < 8; n++)
                sum[m][n] = fmaf(left[m], right[n], sum[m][n]);
    }
}

template <bool TA, bool TB>
static __global__ void __launch_bounds__(THREADS)
    gemm_kernel(view<float> c, view<float> a, view<float> b, const float *bias,
                view<float> onto, int64_t inner)
{
    __shared__ __align__(16) float left[SLICE][SIDE], right[SLICE][SIDE];
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    float sum[8][8] = {};
    int64_t y, x;

    tile_of(blockIdx.x, pieces(c.rows, TILE), pieces(c.cols, TILE), &y, &x);
    for (int64_t s = 0; s < pieces(inner, SLICE); s++) {
        fetch<!TA>(left, a, y * TILE, s);
        fetch<TB>(right, b, x * TILE, s);
        __syncthreads();
        multiply_slice(sum, left, right, ty, tx);
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 8; m++)
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const int64_t i = y * TILE + mine(ty, m), j = x * TILE + mine(tx, n);

            if (i >= c.rows || j >= c.cols) continue;
            if (bias) sum[m][n] += bias[j];
            c.row(i)[j] = onto.at ? onto.row(i)[j] + sum[m][n] : sum[m][n];
        }
}

template <bool TA, bool TB> static kr_status run(void *stream, const product &p)
{
    const int64_t tiles = pieces(p.c.rows, TILE) * pieces(p.c.cols, TILE);

    return launch(stream, "matmul", gemm_kernel<TA, TB>, dim3((unsigned)tiles), THREADS,
                  0, view_of<float>(p.c), view_of<float>(p.a), view_of<float>(p.b),
                  (const float *)p.bias.at, view_of<float>(p.onto), p.inner());
}

kr_status gemm_f32(void *stream, const product &p)
{
    if (p.ta) return p.tb ? run<true, true>(stream, p) : run<true, false>(stream, p);
    return p.tb ? run<false, true>(stream, p) : run<false, false>(stream, p);
}
