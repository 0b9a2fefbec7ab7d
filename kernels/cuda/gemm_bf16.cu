/*
 * gemm_bf16.cu - matrix products of bf16 with fp32 sums, for sm_80 and newer.
 *
 * A block of 8 warps makes a 128 x 128 tile of c, a warp 64 x 32 of it, from slices of 32
 * along the inner dimension that come through a ring of 4 stages (cp.async).  Where tiles
 * are few and the inner dimension is long (gradients of small weights), several blocks make
 * parts of one tile, which are then added in order.  How many depends on the shape alone, so
 * the bits do too.
 */
#include "kernels/cuda/cells.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/tile.cuh"

enum {
    ROWS = 128,
    COLS = 128,
    SLICE = 32,
    STAGES = 4,
    THREADS = 256,
    WARP_ROWS = 64,
    WARP_COLS = 32,
    OPERAND_BYTES = ROWS * SLICE * 2,
    STAGE_BYTES = 2 * OPERAND_BYTES,
    ALONG = SLICE / CHUNK, /* chunks of a row of a tile stored along k */
    ACROSS = ROWS / CHUNK  /* ... across k */
};
static_assert(ROWS == COLS, "both operands have tiles of one size");

struct operand {
    view<bf16> m;
    bool aligned;
};

/* Slice `step` of an operand whose tile begins at row or column `first`. */
template <bool IS_ALONG>
static __device__ __forceinline__ void fetch(unsigned char *tile, const operand &o,
                                             int64_t first, int64_t step)
{
#pragma unroll
    for (int n = 0; n < OPERAND_BYTES / CHUNK_BYTES / THREADS; n++) {
        const int q = n * THREADS + threadIdx.x;
        const int row = IS_ALONG ? q / ALONG : q / ACROSS;
        const int chunk = IS_ALONG ? q % ALONG : q % ACROSS;
        const int64_t i = (IS_ALONG ? first : step * SLICE) + row;
        const int64_t j = (IS_ALONG ? step * SLICE : first) + chunk * CHUNK;
        const int count = i < o.m.rows ? at_most(o.m.cols - j, CHUNK) : 0;

        bring(tile +
                  (IS_ALONG ? tile_at<ALONG>(row, chunk) : tile_at<ACROSS>(row, chunk)),
              o.m.row(i) + j, o.m.at, count, o.aligned);
    }
}

/* One slice: 2 steps of 16 along k, 4 x 4 products each. */
template <bool TA, bool TB>
static __device__ __forceinline__ void
multiply_slice(float sum[4][4][4], const unsigned char *stage, int row, int col)
{
    const unsigned char *a = stage, *b = stage + OPERAND_BYTES;
    const int lane = threadIdx.x % WARP;

#pragma unroll
    for (int k = 0; k < SLICE; k += 16) {
        unsigned left[4][4], right[2][4];

#pragma unroll
        for (int m = 0; m < 4; m++)
            if (TA)
                read_tile_turned<ACROSS>(left[m], a, k, (row + 16 * m) / CHUNK,
                                         a_across(lane));
            else
                read_tile<ALONG>(left[m], a, row + 16 * m, k / CHUNK, a_along(lane));
#pragma unroll
        for (int n = 0; n < 2; n++)
            if (TB)
                read_tile<ALONG>(right[n], b, col + 16 * n, k / CHUNK, b_along(lane));
            else
                read_tile_turned<ACROSS>(right[n], b, k, (col + 16 * n) / CHUNK,
                                         b_across(lane));
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
                multiply(sum[m][n], left[m], right[n / 2] + n % 2 * 2);
    }
}

/* Who does what: blocks of one part of all tiles come one after the other. */
struct sharing {
    int64_t tiles, parts, steps; /* steps: slices of a part */
};

/* What becomes of two neighbours of a row. */
template <typename C> struct finish {
    view<C> c, onto;  /* onto may have no matrix, or that of c */
    const bf16 *bias; /* or NULL */
    bool paired;      /* two may be written at a time */

    __device__ __forceinline__ void operator()(int64_t i, int64_t j, float x,
                                               float y) const
    {
        C *at = c.row(i) + j;
        const C *to = onto.row(i) + j;

        if (i >= c.rows || j >= c.cols) return;
        if (bias) x += wide(bias[j]);
        if (onto.at) x += wide(to[0]);
        if (j + 1 < c.cols) {
            if (bias) y += wide(bias[j + 1]);
            if (onto.at) y += wide(to[1]);
            if (paired) return store(at, x, y);
            at[1] = narrow<C>(y);
        }
        at[0] = narrow<C>(x);
    }
    static __device__ __forceinline__ void store(float *at, float x, float y)
    {
        *(float2 *)at = make_float2(x, y);
    }
    static __device__ __forceinline__ void store(bf16 *at, float x, float y)
    {
        *(__nv_bfloat162 *)at = __floats2bfloat162_rn(x, y);
    }
};

template <bool TA, bool TB, typename C>
static __global__ void __launch_bounds__(THREADS, 2)
    gemm_kernel(operand a, operand b, finish<C> out, int64_t inner, sharing s)
{
    DYNAMIC_SHARED;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int row = warp / 4 * WARP_ROWS, col = warp % 4 * WARP_COLS;
    const int64_t part = blockIdx.x / s.tiles, first = part * s.steps;
    const int64_t all = pieces(inner, SLICE),
                  end = first + s.steps < all ? first + s.steps : all;
    float sum[4][4][4] = {};
    int64_t y, x;

    tile_of(blockIdx.x % s.tiles, pieces(out.c.rows, ROWS), pieces(out.c.cols, COLS), &y,
            &x);
    out.c.at += part * out.c.rows * out.c.ld; /* parts lie one after the other */
#define FETCH(step)                                                           \
    do {                                                                      \
        unsigned char *stage_ = shared_bytes + (step) % STAGES * STAGE_BYTES; \
        if ((step) < end) {                                                   \
            fetch<!TA>(stage_, a, y * ROWS, (step));                          \
            fetch<TB>(stage_ + OPERAND_BYTES, b, x * COLS, (step));           \
        }                                                                     \
        copy_commit();                                                        \
    } while (0)

    for (int64_t k = first; k < first + STAGES - 1; k++)
        FETCH(k);
    for (int64_t k = first; k < end; k++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); /* slice k is here, and slice k - 1 has been read by all */
        FETCH(k + STAGES - 1);
        multiply_slice<TA, TB>(sum, shared_bytes + k % STAGES * STAGE_BYTES, row, col);
    }
#undef FETCH
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const int64_t i = y * ROWS + row + 16 * m + lane / 4;
            const int64_t j = x * COLS + col + 8 * n + lane % 4 * 2;

            out(i, j, sum[m][n][0], sum[m][n][1]);
            out(i + 8, j, sum[m][n][2], sum[m][n][3]);
        }
}

static operand operand_of(struct kern_mat m)
{
    return operand{ view_of<bf16>(m), is_aligned(m, CHUNK_BYTES) };
}

/* Parts of at least PART along the inner dimension, as long as blocks do not fill a large
 * GPU: two for each of 132 multiprocessors. */
enum { PART = 1024, FULL = 264 };

static sharing share(int64_t rows, int64_t cols, int64_t inner)
{
    const int64_t steps = pieces(inner, SLICE);
    sharing s = { pieces(rows, ROWS) * pieces(cols, COLS), 1, steps };

    if (s.tiles * 2 > FULL || inner < 2 * PART) return s;
    s.parts = FULL / s.tiles < inner / PART ? FULL / s.tiles : inner / PART;
    s.steps = pieces(steps, s.parts);
    s.parts = pieces(steps, s.steps);
    return s;
}

size_t gemm_bf16_scratch(int64_t rows, int64_t cols, int64_t inner)
{
    const int64_t parts = rows && cols ? share(rows, cols, inner).parts : 1;

    return parts > 1 ? sizeof(float) * (size_t)(parts * rows * cell_row(cols)) : 0;
}

/* c = the parts in order, the bias, and onto */
template <typename C>
static __global__ void __launch_bounds__(CELL_THREADS)
    join_kernel(cells<C> c, cells<float> part, int64_t parts, cells<bf16> bias,
                cells<C> onto)
{
    EACH_CELL (i, j, c.m.rows, c.m.cols) {
        float v[CELL] = {}, w[CELL];

        for (int64_t p = 0; p < parts; p++) {
            part.load(w, p * c.m.rows + i, j);
#pragma unroll
            for (int k = 0; k < CELL; k++)
                v[k] += w[k];
        }
        if (bias.m.at) bias.load(w, 0, j);
#pragma unroll
        for (int k = 0; k < CELL && bias.m.at; k++)
            v[k] += w[k];
        if (onto.m.at) onto.load(w, i, j);
#pragma unroll
        for (int k = 0; k < CELL && onto.m.at; k++)
            v[k] += w[k];
        c.store(i, j, v);
    }
}

template <bool TA, bool TB, typename C>
static kr_status multiply_all(void *stream, const product &p, const finish<C> &out,
                              const sharing &s)
{
    return launch(stream, "matmul", gemm_kernel<TA, TB, C>,
                  dim3((unsigned)(s.tiles * s.parts)), THREADS, STAGES * STAGE_BYTES,
                  operand_of(p.a), operand_of(p.b), out, p.inner(), s);
}

template <bool TA, bool TB, typename C>
static kr_status run_parts(void *stream, const product &p, const sharing &s)
{
    const int64_t ld = cell_row(p.c.cols);
    struct kern_mat part = kern_mat(NULL, s.parts * p.c.rows, ld, KERN_F32);

    TRY(cuda_scratch(stream, &part.at, gemm_bf16_scratch(p.c.rows, p.c.cols, p.inner())));
    part.cols = p.c.cols;
    TRY((multiply_all<TA, TB, float>(
        stream, p, { { (float *)part.at, p.c.rows, p.c.cols, ld }, {}, NULL, true }, s)));
    return launch(stream, "matmul", join_kernel<C>, cell_grid(p.c.rows, p.c.cols),
                  CELL_THREADS, 0, cells_of<C>(p.c), cells_of<float>(part), s.parts,
                  cells_of<bf16>(p.bias), cells_of<C>(p.onto));
}

template <bool TA, bool TB, typename C>
static kr_status run(void *stream, const product &p)
{
    const sharing s = share(p.c.rows, p.c.cols, p.inner());

    if (s.parts > 1) return run_parts<TA, TB, C>(stream, p, s);
    return multiply_all<TA, TB, C>(stream, p,
                                   { view_of<C>(p.c), view_of<C>(p.onto),
                                     (const bf16 *)p.bias.at,
                                     is_aligned(p.c, 2 * sizeof(C)) },
                                   s);
}

template <typename C> static kr_status by_layout(void *stream, const product &p)
{
    if (p.ta)
        return p.tb ? run<true, true, C>(stream, p) : run<true, false, C>(stream, p);
    return p.tb ? run<false, true, C>(stream, p) : run<false, false, C>(stream, p);
}

kr_status gemm_bf16(void *stream, const product &p)
{
    return BY_TYPE(p.c.type, by_layout, stream, p);
}
