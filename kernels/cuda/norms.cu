/*
 * norms.cu - LayerNorm and RMSNorm.
 *
 * In the forward a block owns a row, which it keeps in registers; one that is too long for
 * that it walks over again for each sum, from the cache.
 * In the backward a block owns a run of rows, one after the other: it keeps a few of them
 * in registers, and its part of dw and db beside them.
 */
#include "kernels/cuda/columns.cuh"

enum { THREADS = 128, STEP = THREADS * CELL /* columns that a block takes at a time */ };

/* The loop of a block over its row. */
#define EACH_PART(c, cols) \
    for (int64_t c = (int64_t)threadIdx.x * CELL; c < (cols); c += STEP)

/* Columns of a cell that exist. */
static __device__ __forceinline__ int here(int64_t c, int64_t cols)
{
    return cols - c < CELL ? (int)(cols - c) : CELL;
}

template <typename T>
static __device__ float mean_of(const cells<T> &x, int64_t i, float *room)
{
    float sum = 0;

    EACH_PART (c, x.m.cols) {
        float v[CELL];

        x.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            sum += v[k];
    }
    return block_sum<THREADS>(sum, room) / (float)x.m.cols;
}

/* mean of (x - m)^2 */
template <typename T>
static __device__ float spread(const cells<T> &x, int64_t i, float m, float *room)
{
    float sum = 0;

    EACH_PART (c, x.m.cols) {
        float v[CELL];

        x.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (k < here(c, x.m.cols)) sum += (v[k] - m) * (v[k] - m);
    }
    return block_sum<THREADS>(sum, room) / (float)x.m.cols;
}

/* y, from what a thread has of x. */
template <typename T>
static __device__ __forceinline__ void put_part(const cells<T> &y, int64_t i, int64_t c,
                                                float v[CELL], float m, float r,
                                                const cells<T> &w, const cells<T> &b)
{
    float gain[CELL], shift[CELL] = {};

    w.load(gain, 0, c);
    if (b.m.at) b.load(shift, 0, c);
#pragma unroll
    for (int k = 0; k < CELL; k++)
        v[k] = (v[k] - m) * r * gain[k] + shift[k];
    y.store(i, c, v);
}

static __device__ __forceinline__ float put_stats(const view<float> &stats, int64_t i,
                                                  float m, float spread, double eps)
{
    const float r = (float)(1 / sqrt((double)spread + eps));

    if (threadIdx.x == 0) {
        stats.row(0)[i] = m;
        stats.row(1)[i] = r;
    }
    return r;
}

/* A thread keeps PARTS cells of the row. */
template <typename T, int PARTS>
static __global__ void __launch_bounds__(THREADS)
    norm_kernel(bool centred, cells<T> y, view<float> stats, cells<T> x, cells<T> w,
                cells<T> b, double eps)
{
    __shared__ float room[THREADS / WARP];
    const int64_t i = blockIdx.x, cols = x.m.cols, own = (int64_t)threadIdx.x * CELL;
    words<T> row[PARTS];
    float v[PARTS][CELL], sum = 0, m = 0, r;

#pragma unroll
    for (int p = 0; p < PARTS; p++)
        row[p] = x.fetch(i, own + p * STEP);
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        row[p].unpack(v[p]);
#pragma unroll
        for (int k = 0; k < CELL; k++) /* past the last column it is 0 */
            sum += v[p][k];
    }
    if (centred) m = block_sum<THREADS>(sum, room) / (float)cols;
    sum = 0;
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (k < here(own + p * STEP, cols)) sum += (v[p][k] - m) * (v[p][k] - m);
    r = put_stats(stats, i, m, block_sum<THREADS>(sum, room) / (float)cols, eps);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
        if (own + p * STEP < cols) put_part(y, i, own + p * STEP, v[p], m, r, w, b);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    long_norm_kernel(bool centred, cells<T> y, view<float> stats, cells<T> x, cells<T> w,
                     cells<T> b, double eps)
{
    __shared__ float room[THREADS / WARP];
    const int64_t i = blockIdx.x;
    const float m = centred ? mean_of(x, i, room) : 0;
    const float r = put_stats(stats, i, m, spread(x, i, m, room), eps);

    EACH_PART (c, x.m.cols) {
        float v[CELL];

        x.load(v, i, c);
        put_part(y, i, c, v, m, r, w, b);
    }
}

template <typename T>
static kr_status norm_fwd(void *stream, bool centred, struct kern_mat y,
                          struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                          struct kern_mat b, double eps)
{
    return launch(stream, "norm_fwd",
                  x.cols <= STEP       ? norm_kernel<T, 1>
                  : x.cols <= 2 * STEP ? norm_kernel<T, 2>
                  : x.cols <= 4 * STEP ? norm_kernel<T, 4>
                  : x.cols <= 8 * STEP ? norm_kernel<T, 8>
                                       : long_norm_kernel<T>,
                  dim3((unsigned)x.rows), THREADS, 0, centred, cells_of<T>(y),
                  view_of<float>(stats), cells_of<T>(x), cells_of<T>(w), cells_of<T>(b),
                  eps);
}

kr_status cuda_norm_fwd(void *stream, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps)
{
    return BY_TYPE(x.type, norm_fwd, stream, kind == KERN_LAYERNORM, y, stats, x, w, b,
                   eps);
}

/* ---- backward ------------------------------------------------------------------------- */

/* What a block of THREADS does at a time: ROWS rows, a thread PARTS cells of each, MOST
 * columns.  TOGETHER blocks fit on a multiprocessor; so many for each of a Hopper's 132 run,
 * and as many elsewhere, for that is the order of the sums. */
template <int A, int B, int C, int D> struct shares {
    enum {
        THREADS = A,
        PARTS = B,
        ROWS = C,
        TOGETHER = D,
        STEP = THREADS * CELL,
        MOST = PARTS * STEP,
        EARLY = PARTS == 1, /* there are registers for dx beside the rest */
        BLOCKS = 132 * TOGETHER
    };
};

/* What dx gets added, of the rows i .. i + ROWS; past the last row it reads that one. */
template <typename T, typename S>
static __device__ __forceinline__ void
load_rows(float d[S::ROWS][S::PARTS][CELL], const cells<T> &dx, int64_t i, int64_t end)
{
#pragma unroll
    for (int q = 0; q < S::ROWS; q++)
#pragma unroll
        for (int p = 0; p < S::PARTS; p++)
            dx.load(d[q][p], i + q < end ? i + q : end - 1,
                    (int64_t)threadIdx.x * CELL + p * S::STEP);
}

/* Sums over a block of N numbers of each thread. */
template <int THREADS, int N>
static __device__ __forceinline__ void sum_all(float x[N], float (*room)[N])
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;

#pragma unroll
    for (int n = 0; n < N; n++)
        x[n] = warp_sum(x[n]);
    __syncthreads();
    if (lane == 0) {
#pragma unroll
        for (int n = 0; n < N; n++)
            room[warp][n] = x[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++) {
        x[n] = 0;
#pragma unroll
        for (int w = 0; w < THREADS / WARP; w++)
            x[n] += room[w][n];
    }
}

/* All from one reading of dy and x: dx [+]= r (g - mean(g) - xh mean(g xh)), with mean(g)
 * only where centred, and this block's part of dw and db, to part (2, blocks, cols) unless
 * that is NULL.  dx may be dy. */
template <typename T, typename S>
static __global__ void __launch_bounds__(S::THREADS, S::TOGETHER)
    backward_kernel(bool centred, cells<T> dx, bool add, cells<T> dy, cells<T> x,
                    cells<T> w, view<float> stats, float *part)
{
    __shared__ float room[S::THREADS / WARP][2 * S::ROWS];
    const int64_t cols = x.m.cols, own = (int64_t)threadIdx.x * CELL;
    const int64_t each = pieces(x.m.rows, gridDim.x), first = blockIdx.x * each;
    const int64_t end = first + each < x.m.rows ? first + each : x.m.rows;
    float gain[S::PARTS][CELL], dw[S::PARTS][CELL] = {}, db[S::PARTS][CELL] = {};

#pragma unroll
    for (int p = 0; p < S::PARTS; p++)
        w.load(gain[p], 0, own + p * S::STEP);
    for (int64_t i = first; i < end; i += S::ROWS) {
        float g[S::ROWS][S::PARTS][CELL], v[S::ROWS][S::PARTS][CELL];
        float m[S::ROWS], r[S::ROWS], mean[2 * S::ROWS];
        float d[S::ROWS][S::PARTS][CELL] = {};

#pragma unroll
        for (int q = 0; q < S::ROWS;
             q++) { /* past the last row, that one weighs nothing */
            const int64_t row = i + q < end ? i + q : end - 1;

            m[q] = stats.row(0)[row];
            r[q] = stats.row(1)[row];
#pragma unroll
            for (int p = 0; p < S::PARTS; p++) {
                dy.load(g[q][p], row, own + p * S::STEP);
                x.load(v[q][p], row, own + p * S::STEP);
            }
        }
        if (S::EARLY && add) load_rows<T, S>(d, dx, i, end);
#pragma unroll
        for (int q = 0; q < S::ROWS; q++) {
            mean[2 * q] = mean[2 * q + 1] = 0;
#pragma unroll
            for (int p = 0; p < S::PARTS; p++)
#pragma unroll
                for (int k = 0; k < CELL; k++) { /* past the last column g is 0 */
                    const float dy_k = i + q < end ? g[q][p][k] : 0.0f;

                    v[q][p][k] = (v[q][p][k] - m[q]) * r[q];
                    dw[p][k] += dy_k * v[q][p][k];
                    db[p][k] += dy_k;
                    g[q][p][k] = dy_k * gain[p][k];
                    mean[2 * q] += g[q][p][k];
                    mean[2 * q + 1] += g[q][p][k] * v[q][p][k];
                }
        }
        sum_all<S::THREADS, 2 * S::ROWS>(mean, room);
#pragma unroll
        for (int q = 0; q < S::ROWS; q++) {
            const float mean_g = centred ? mean[2 * q] / (float)cols : 0.0f;
            const float mean_gx = mean[2 * q + 1] / (float)cols;

#pragma unroll
            for (int p = 0; p < S::PARTS; p++) {
                const int64_t c = own + p * S::STEP;

                if (i + q >= end || c >= cols) continue;
                if (!S::EARLY && add) dx.load(d[q][p], i + q, c);
#pragma unroll
                for (int k = 0; k < CELL; k++)
                    d[q][p][k] += r[q] * (g[q][p][k] - mean_g - v[q][p][k] * mean_gx);
                dx.store(i + q, c, d[q][p]);
            }
        }
    }
#pragma unroll
    for (int p = 0; p < S::PARTS; p++)
#pragma unroll
        for (int k = 0; k < CELL; k++) {
            const int64_t c = own + p * S::STEP + k;

            if (c >= cols || !part) continue;
            part[blockIdx.x * cols + c] = dw[p][k];
            part[(gridDim.x + blockIdx.x) * cols + c] = db[p][k];
        }
}

/* Is there anybody for dw or db? */
static bool wants(const column_outs<2> &sums) { return sums.at[0] || sums.at[1]; }

template <typename S> static int64_t blocks_of(int64_t rows)
{
    const int64_t most = pieces(rows, S::ROWS);

    return most < S::BLOCKS ? most : S::BLOCKS;
}

template <typename T, typename S>
static kr_status one_pass(void *stream, bool centred, struct kern_mat dx, bool add_dx,
                          const column_outs<2> &sums, struct kern_mat dy,
                          struct kern_mat x, struct kern_mat w, struct kern_mat stats)
{
    const int64_t blocks = blocks_of<S>(x.rows);
    float *part = NULL;

    if (wants(sums)) TRY(cuda_scratch(stream, &part, column_scratch(2, blocks, x.cols)));
    TRY(launch(stream, "norm_bwd", backward_kernel<T, S>, dim3((unsigned)blocks),
               S::THREADS, 0, centred, cells_of<T>(dx), add_dx, cells_of<T>(dy),
               cells_of<T>(x), cells_of<T>(w), view_of<float>(stats), part));
    if (!wants(sums)) return KR_OK;
    return column_join<2>(stream, "norm_bwd", part, blocks, x.cols, sums);
}

/* The same of rows that are longer: twice over dy and x.
 * dx [+]= r (g - mean(g) - xh mean(g xh)), with mean(g) only where centred */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    input_kernel(bool centred, cells<T> dx, bool add, cells<T> dy, cells<T> x, cells<T> w,
                 view<float> stats)
{
    __shared__ float room[THREADS / WARP];
    const int64_t i = blockIdx.x, cols = x.m.cols;
    const float m = stats.row(0)[i], r = stats.row(1)[i];
    float mean_g = 0, mean_gx = 0;

    EACH_PART (c, cols) {
        float g[CELL], v[CELL], gain[CELL];

        dy.load(g, i, c);
        x.load(v, i, c);
        w.load(gain, 0, c);
#pragma unroll
        for (int k = 0; k < CELL; k++) { /* past the end g is 0 */
            g[k] *= gain[k];
            mean_g += g[k];
            mean_gx += g[k] * ((v[k] - m) * r);
        }
    }
    mean_g = block_sum<THREADS>(mean_g, room) / (float)cols;
    mean_gx = block_sum<THREADS>(mean_gx, room) / (float)cols;
    if (!centred) mean_g = 0;
    EACH_PART (c, cols) {
        float g[CELL], v[CELL], gain[CELL], d[CELL] = {};

        dy.load(g, i, c);
        x.load(v, i, c);
        w.load(gain, 0, c);
        if (add) dx.load(d, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            d[k] += r * (g[k] * gain[k] - mean_g - (v[k] - m) * r * mean_gx);
        dx.store(i, c, d);
    }
}

/* What dw and db sum: dy xh and dy. */
template <typename T> struct weight_terms {
    cells<T> dy, x;
    view<float> stats;

    __device__ __forceinline__ void operator()(float v[2][CELL], int64_t i,
                                               int64_t c) const
    {
        const float m = stats.row(0)[i], r = stats.row(1)[i];

        dy.load(v[1], i, c);
        x.load(v[0], i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[0][k] = v[1][k] * ((v[0][k] - m) * r);
    }
};

template <typename T>
static kr_status two_passes(void *stream, bool centred, struct kern_mat dx, bool add_dx,
                            const column_outs<2> &sums, struct kern_mat dy,
                            struct kern_mat x, struct kern_mat w, struct kern_mat stats)
{
    const weight_terms<T> terms = { cells_of<T>(dy), cells_of<T>(x),
                                    view_of<float>(stats) };

    if (wants(sums)) TRY(column_sums<2>(stream, "norm_bwd", terms, x.rows, x.cols, sums));
    return launch(stream, "norm_bwd", input_kernel<T>, dim3((unsigned)x.rows), THREADS, 0,
                  centred, cells_of<T>(dx), add_dx, cells_of<T>(dy), cells_of<T>(x),
                  cells_of<T>(w), view_of<float>(stats));
}

typedef shares<128, 1, 2, 3> slim;
typedef shares<256, 1, 1, 3> middle;
typedef shares<256, 2, 1, 2> broad;
typedef shares<512, 2, 1, 1> broadest;

size_t cuda_norm_bwd_scratch(int64_t rows, int64_t cols)
{
    return column_scratch(2,
                          cols <= slim::MOST       ? blocks_of<slim>(rows)
                          : cols <= middle::MOST   ? blocks_of<middle>(rows)
                          : cols <= broad::MOST    ? blocks_of<broad>(rows)
                          : cols <= broadest::MOST ? blocks_of<broadest>(rows)
                                                   : column_slices(rows),
                          cols);
}

template <typename T>
static kr_status norm_bwd(void *stream, bool centred, struct kern_mat dx, bool add_dx,
                          struct kern_mat dw, struct kern_mat db, bool add_dw,
                          struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                          struct kern_mat stats)
{
    const column_outs<2> sums = { { (float *)dw.at, (float *)db.at }, add_dw };

#define ONE_PASS(S)        \
    if (x.cols <= S::MOST) \
    return one_pass<T, S>(stream, centred, dx, add_dx, sums, dy, x, w, stats)
    ONE_PASS(slim);
    ONE_PASS(middle);
    ONE_PASS(broad);
    ONE_PASS(broadest);
#undef ONE_PASS
    return two_passes<T>(stream, centred, dx, add_dx, sums, dy, x, w, stats);
}

kr_status cuda_norm_bwd(void *stream, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats)
{
    return BY_TYPE(x.type, norm_bwd, stream, kind == KERN_LAYERNORM, dx, add_dx, dw, db,
                   add_dw, dy, x, w, stats);
}
