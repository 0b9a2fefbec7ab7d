/*
 * act.cu - GELU (tanh form), SwiGLU, and rotary positions.
 *
 * (1 + tanh z) / 2 is sigmoid(2 z), so each activation needs one exponential per element.
 */
#include "kernels/cuda/cells.cuh"

#include "kernels/cuda/act.cuh"

#define ROOT_2_OVER_PI 0.79788456080286535588

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* sigmoid(2 z), z = sqrt(2/pi) (u + 0.044715 u^3) */
static __device__ __forceinline__ float gate_of(float u)
{
    return sigmoid((float)(2 * ROOT_2_OVER_PI) * (u + 0.044715f * u * u * u));
}

/* Forward, by type. */
static __device__ __forceinline__ float gelu(float u, const float *)
{
    return u * gate_of(u);
}
static __device__ __forceinline__ float gelu(float u, const bf16 *)
{
    return act_gelu(u);
}
static __device__ __forceinline__ float swiglu(float gate, float up, const float *)
{
    return gate * sigmoid(gate) * up;
}
static __device__ __forceinline__ float swiglu(float gate, float up, const bf16 *)
{
    return act_swiglu(gate, up);
}

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS) gelu_kernel(cells<T> y, cells<T> u)
{
    EACH_CELL (i, c, y.m.rows, y.m.cols) {
        float v[CELL];

        u.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] = gelu(v[k], (const T *)0);
        y.store(i, c, v);
    }
}

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    swiglu_kernel(cells<T> y, cells<T> gate, cells<T> up)
{
    EACH_CELL (i, c, y.m.rows, y.m.cols) {
        float g[CELL], v[CELL];

        gate.load(g, i, c);
        up.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] = swiglu(g[k], v[k], (const T *)0);
        y.store(i, c, v);
    }
}

template <typename T>
static kr_status act_fwd(void *stream, enum kern_act kind, struct kern_mat y,
                         struct kern_mat u)
{
    const dim3 grid = cell_grid(y.rows, y.cols);

    if (kind == KERN_GELU_TANH)
        return launch(stream, "gelu", gelu_kernel<T>, grid, CELL_THREADS, 0,
                      cells_of<T>(y), cells_of<T>(u));
    return launch(stream, "swiglu", swiglu_kernel<T>, grid, CELL_THREADS, 0,
                  cells_of<T>(y), cells_of<T>(kern_cols(u, 0, y.cols)),
                  cells_of<T>(kern_cols(u, y.cols, y.cols)));
}

kr_status cuda_act_fwd(void *stream, enum kern_act kind, struct kern_mat y,
                       struct kern_mat u)
{
    return BY_TYPE(y.type, act_fwd, stream, kind, y, u);
}

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    gelu_bwd_kernel(cells<T> du, cells<T> dy, cells<T> u)
{
    EACH_CELL (i, c, du.m.rows, du.m.cols) {
        float v[CELL], g[CELL];

        u.load(v, i, c);
        dy.load(g, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++) {
            const float s = gate_of(v[k]), slope = 1 + 0.134145f * v[k] * v[k];

            g[k] *= s + v[k] * s * (1 - s) * (float)(2 * ROOT_2_OVER_PI) * slope;
        }
        du.store(i, c, g);
    }
}

/* du may be u: a thread reads its elements before it writes them. */
template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    swiglu_bwd_kernel(cells<T> dgate, cells<T> dup, cells<T> dy, cells<T> gate,
                      cells<T> up)
{
    EACH_CELL (i, c, dy.m.rows, dy.m.cols) {
        float d[CELL], g[CELL], u[CELL];

        dy.load(d, i, c);
        gate.load(g, i, c);
        up.load(u, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++) {
            const float s = sigmoid(g[k]), by = d[k] * g[k] * s;

            g[k] = d[k] * u[k] * s * (1 + g[k] * (1 - s));
            u[k] = by;
        }
        dgate.store(i, c, g);
        dup.store(i, c, u);
    }
}

template <typename T>
static kr_status act_bwd(void *stream, enum kern_act kind, struct kern_mat du,
                         struct kern_mat dy, struct kern_mat u)
{
    const dim3 grid = cell_grid(dy.rows, dy.cols);
    const int64_t f = dy.cols;

    if (kind == KERN_GELU_TANH)
        return launch(stream, "gelu_bwd", gelu_bwd_kernel<T>, grid, CELL_THREADS, 0,
                      cells_of<T>(du), cells_of<T>(dy), cells_of<T>(u));
    return launch(stream, "swiglu_bwd", swiglu_bwd_kernel<T>, grid, CELL_THREADS, 0,
                  cells_of<T>(kern_cols(du, 0, f)), cells_of<T>(kern_cols(du, f, f)),
                  cells_of<T>(dy), cells_of<T>(kern_cols(u, 0, f)),
                  cells_of<T>(kern_cols(u, f, f)));
}

kr_status cuda_act_bwd(void *stream, enum kern_act kind, struct kern_mat du,
                       struct kern_mat dy, struct kern_mat u)
{
    return BY_TYPE(dy.type, act_bwd, stream, kind, du, dy, u);
}

/* ---- rotary positions ----------------------------------------------------------------- */

/* Pairs p .. p + 7 of a head: how they lie in memory, as a cell of first numbers and one of
 * second ones. */
template <typename T, bool HALVES> struct pairs {
    cells<T> low, high; /* of the head */

    __device__ __forceinline__ pairs(const cells<T> &x, int64_t at, int64_t half)
        : low(x.part(at, HALVES ? half : 2 * half)), high(x.part(at + half, half))
    {
    }
    __device__ __forceinline__ void load(float a[CELL], float b[CELL], int64_t n,
                                         int64_t p) const
    {
        if constexpr (HALVES) {
            low.load(a, n, p);
            high.load(b, n, p);
        } else {
            float u[2 * CELL];

            low.load(u, n, 2 * p);
            low.load(u + CELL, n, 2 * p + CELL);
#pragma unroll
            for (int k = 0; k < CELL; k++)
                a[k] = u[2 * k], b[k] = u[2 * k + 1];
        }
    }
    __device__ __forceinline__ void store(int64_t n, int64_t p, const float a[CELL],
                                          const float b[CELL]) const
    {
        if constexpr (HALVES) {
            low.store(n, p, a);
            high.store(n, p, b);
        } else {
            float u[2 * CELL];

#pragma unroll
            for (int k = 0; k < CELL; k++)
                u[2 * k] = a[k], u[2 * k + 1] = b[k];
            low.store(n, 2 * p, u);
            low.store(n, 2 * p + CELL, u + CELL);
        }
    }
};

/* A thread turns 8 neighbouring pairs of a head; `each` threads make one.  Blocks of x walk
 * over the heads of a row, of y over the rows. */
template <typename T, bool HALVES>
static __global__ void __launch_bounds__(CELL_THREADS)
    rope_kernel(cells<T> x, cells<float> table, int heads, int64_t head_dim, int each,
                unsigned seq, float sign)
{
    const int k = (int)(blockIdx.x * CELL_THREADS + threadIdx.x);
    const int64_t half = table.m.cols / 2, p = k % each * CELL;
    const pairs<T, HALVES> head(x, k / each * head_dim, half);
    const cells<float> cosines = table.part(0, half), sines = table.part(half, half);

    if (k >= heads * each) return;
    for (unsigned n = blockIdx.y; n < x.m.rows; n += gridDim.y) {
        float a[CELL], b[CELL], c[CELL], s[CELL];

        head.load(a, b, n, p);
        cosines.load(c, n % seq, p);
        sines.load(s, n % seq, p);
#pragma unroll
        for (int i = 0; i < CELL; i++) {
            const float turned = a[i] * c[i] - b[i] * (sign * s[i]);

            b[i] = b[i] * c[i] + a[i] * (sign * s[i]);
            a[i] = turned;
        }
        head.store(n, p, a, b);
    }
}

template <typename T>
static kr_status rope(void *stream, struct kern_mat x, struct kern_mat table,
                      int64_t heads, int64_t head_dim, int64_t seq, bool halves,
                      float sign)
{
    const int64_t each = pieces(table.cols / 2, CELL);
    dim3 grid = cell_grid(x.rows, 0);

    grid.x = (unsigned)pieces(heads * each, CELL_THREADS);
    return launch(stream, "rope", halves ? rope_kernel<T, true> : rope_kernel<T, false>,
                  grid, CELL_THREADS, 0, cells_of<T>(x), cells_of<float>(table),
                  (int)heads, head_dim, (int)each, (unsigned)seq, sign);
}

kr_status cuda_rope(void *stream, struct kern_mat x, struct kern_mat table, int64_t heads,
                    int64_t head_dim, int64_t seq, enum kern_pairing pairing,
                    bool inverse)
{
    return BY_TYPE(x.type, rope, stream, x, table, heads, head_dim, seq,
                   pairing == KERN_ROPE_HALF, inverse ? -1.0f : 1.0f);
}
