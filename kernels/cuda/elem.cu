/* elem.cu - fill, copy between types, add, scale, bias, sums over rows. */
#include "kernels/cuda/cells.cuh"
#include "kernels/cuda/columns.cuh"

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    fill_kernel(cells<T> y, float value)
{
    float v[CELL];

#pragma unroll
    for (int k = 0; k < CELL; k++)
        v[k] = value;
    EACH_CELL (i, c, y.m.rows, y.m.cols)
        y.store(i, c, v);
}

template <typename T> static kr_status fill(void *stream, struct kern_mat y, double value)
{
    return launch(stream, "fill", fill_kernel<T>, cell_grid(y.rows, y.cols), CELL_THREADS,
                  0, cells_of<T>(y), (float)value);
}

kr_status cuda_fill(void *stream, struct kern_mat y, double value)
{
    return BY_TYPE(y.type, fill, stream, flat(y), value);
}

template <typename Y, typename X>
static __global__ void __launch_bounds__(CELL_THREADS) copy_kernel(cells<Y> y, cells<X> x)
{
    EACH_CELL (i, c, y.m.rows, y.m.cols) {
        float v[CELL];

        x.load(v, i, c);
        y.store(i, c, v);
    }
}

template <typename Y, typename X>
static kr_status copy(void *stream, struct kern_mat y, struct kern_mat x)
{
    return launch(stream, "copy", copy_kernel<Y, X>, cell_grid(y.rows, y.cols),
                  CELL_THREADS, 0, cells_of<Y>(y), cells_of<X>(x));
}

/* Both or neither as one long row. */
static bool both_flat(struct kern_mat a, struct kern_mat b)
{
    return a.ld == a.cols && b.ld == b.cols;
}

kr_status cuda_copy(void *stream, struct kern_mat y, struct kern_mat x)
{
    if (both_flat(y, x)) y = flat(y), x = flat(x);
    if (y.type == KERN_BF16)
        return x.type == KERN_BF16 ? copy<bf16, bf16>(stream, y, x)
                                   : copy<bf16, float>(stream, y, x);
    return x.type == KERN_BF16 ? copy<float, bf16>(stream, y, x)
                               : copy<float, float>(stream, y, x);
}

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    add_kernel(cells<T> y, cells<T> a, cells<T> b)
{
    EACH_CELL (i, c, y.m.rows, y.m.cols) {
        float v[CELL], w[CELL];

        a.load(v, i, c);
        b.load(w, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] += w[k];
        y.store(i, c, v);
    }
}

template <typename T>
static kr_status add(void *stream, struct kern_mat y, struct kern_mat a,
                     struct kern_mat b)
{
    return launch(stream, "add", add_kernel<T>, cell_grid(y.rows, y.cols), CELL_THREADS,
                  0, cells_of<T>(y), cells_of<T>(a), cells_of<T>(b));
}

kr_status cuda_add(void *stream, struct kern_mat y, struct kern_mat a, struct kern_mat b)
{
    if (both_flat(y, a) && both_flat(y, b)) y = flat(y), a = flat(a), b = flat(b);
    return BY_TYPE(y.type, add, stream, y, a, b);
}

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    scale_kernel(cells<T> y, cells<T> x, float s)
{
    EACH_CELL (i, c, y.m.rows, y.m.cols) {
        float v[CELL];

        x.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] *= s;
        y.store(i, c, v);
    }
}

template <typename T>
static kr_status scale(void *stream, struct kern_mat y, struct kern_mat x, float s)
{
    return launch(stream, "scale", scale_kernel<T>, cell_grid(y.rows, y.cols),
                  CELL_THREADS, 0, cells_of<T>(y), cells_of<T>(x), s);
}

kr_status cuda_scale(void *stream, struct kern_mat y, struct kern_mat x, double s)
{
    if (both_flat(y, x)) y = flat(y), x = flat(x);
    return BY_TYPE(y.type, scale, stream, y, x, (float)s);
}

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS) bias_kernel(cells<T> y, cells<T> b)
{
    EACH_CELL (i, c, y.m.rows, y.m.cols) {
        float v[CELL], w[CELL];

        y.load(v, i, c);
        b.load(w, 0, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] += w[k];
        y.store(i, c, v);
    }
}

template <typename T>
static kr_status add_bias(void *stream, struct kern_mat y, struct kern_mat b)
{
    return launch(stream, "add_bias", bias_kernel<T>, cell_grid(y.rows, y.cols),
                  CELL_THREADS, 0, cells_of<T>(y), cells_of<T>(b));
}

kr_status cuda_add_bias(void *stream, struct kern_mat y, struct kern_mat b)
{
    return BY_TYPE(y.type, add_bias, stream, y, b);
}

/* What sum_rows sums: the elements themselves. */
template <typename T> struct itself {
    cells<T> x;

    __device__ __forceinline__ void operator()(float v[1][CELL], int64_t i,
                                               int64_t c) const
    {
        x.load(v[0], i, c);
    }
};

template <typename T>
static kr_status sum_rows(void *stream, struct kern_mat db, struct kern_mat dy, bool add)
{
    const column_outs<1> out = { { (float *)db.at }, add };

    return column_sums<1>(stream, "sum_rows", itself<T>{ cells_of<T>(dy) }, dy.rows,
                          dy.cols, out);
}

size_t cuda_sum_rows_scratch(int64_t rows, int64_t cols)
{
    return column_scratch(1, column_slices(rows), cols);
}

kr_status cuda_sum_rows(void *stream, struct kern_mat db, struct kern_mat dy, bool add)
{
    return BY_TYPE(dy.type, sum_rows, stream, db, dy, add);
}
