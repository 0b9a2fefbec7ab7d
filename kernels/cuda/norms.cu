/*
 * norms.cu - LayerNorm and RMSNorm.
 *
 * A block owns a row in the forward and for dx; it walks over the row again for each sum,
 * from the cache.  dw and db are sums over all rows (columns.cuh) and come first, because
 * dx may be dy.
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

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    norm_kernel(bool centred, cells<T> y, view<float> stats, cells<T> x, cells<T> w,
                cells<T> b, double eps)
{
    __shared__ float room[THREADS / WARP];
    const int64_t i = blockIdx.x;
    const float m = centred ? mean_of(x, i, room) : 0;
    const float r = (float)(1 / sqrt((double)spread(x, i, m, room) + eps));

    if (threadIdx.x == 0) {
        stats.row(0)[i] = m;
        stats.row(1)[i] = r;
    }
    EACH_PART (c, x.m.cols) {
        float v[CELL], gain[CELL], shift[CELL] = {};

        x.load(v, i, c);
        w.load(gain, 0, c);
        if (b.m.at) b.load(shift, 0, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] = (v[k] - m) * r * gain[k] + shift[k];
        y.store(i, c, v);
    }
}

template <typename T>
static kr_status norm_fwd(void *stream, bool centred, struct kern_mat y,
                          struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                          struct kern_mat b, double eps)
{
    return launch(stream, "norm_fwd", norm_kernel<T>, dim3((unsigned)x.rows), THREADS, 0,
                  centred, cells_of<T>(y), view_of<float>(stats), cells_of<T>(x),
                  cells_of<T>(w), cells_of<T>(b), eps);
}

kr_status cuda_norm_fwd(void *stream, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps)
{
    return BY_TYPE(x.type, norm_fwd, stream, kind == KERN_LAYERNORM, y, stats, x, w, b,
                   eps);
}

/* ---- backward ------------------------------------------------------------------------- */

/* dx [+]= r (g - mean(g) - xh mean(g xh)), with mean(g) only where centred */
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
static kr_status norm_bwd(void *stream, bool centred, struct kern_mat dx, bool add_dx,
                          struct kern_mat dw, struct kern_mat db, bool add_dw,
                          struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                          struct kern_mat stats)
{
    const weight_terms<T> terms = { cells_of<T>(dy), cells_of<T>(x),
                                    view_of<float>(stats) };
    float *const outs[2] = { (float *)dw.at, (float *)db.at };

    if (dw.at)
        TRY(column_sums<2>(stream, "norm_bwd", terms, x.rows, x.cols, outs, add_dw));
    return launch(stream, "norm_bwd", input_kernel<T>, dim3((unsigned)x.rows), THREADS, 0,
                  centred, cells_of<T>(dx), add_dx, cells_of<T>(dy), cells_of<T>(x),
                  cells_of<T>(w), view_of<float>(stats));
}

kr_status cuda_norm_bwd(void *stream, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats)
{
    return BY_TYPE(x.type, norm_bwd, stream, kind == KERN_LAYERNORM, dx, add_dx, dw, db,
                   add_dw, dy, x, w, stats);
}
