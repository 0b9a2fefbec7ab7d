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

/* Where pair `p` of a head lies: the dim of its first number, and how far the second is. */
static __host__ __device__ __forceinline__ int64_t pair_dim(int64_t p, bool halves)
{
    return halves ? p : 2 * p;
}

/* A thread turns one pair; a block walks over the pairs of all heads of one row. */
template <typename T>
static __global__ void rope_kernel(view<T> x, view<float> table, int64_t pairs,
                                   int64_t head_dim, int64_t half, int64_t seq,
                                   bool halves, float sign)
{
    const int64_t n = blockIdx.x, far = halves ? half : 1;
    const float *turn = table.row(n % seq);

    for (int64_t k = threadIdx.x; k < pairs; k += blockDim.x) {
        const int64_t p = k % half;
        T *at = x.row(n) + k / half * head_dim + pair_dim(p, halves);
        const float cosine = turn[p], sine = sign * turn[p + half];
        const float a = wide(at[0]), b = wide(at[far]);

        at[0] = narrow<T>(a * cosine - b * sine);
        at[far] = narrow<T>(b * cosine + a * sine);
    }
}

template <typename T>
static kr_status rope(void *stream, struct kern_mat x, struct kern_mat table,
                      int64_t heads, int64_t head_dim, int64_t seq, bool halves,
                      float sign)
{
    const int64_t half = table.cols / 2;

    if (half == 0) return KR_OK;
    return launch(stream, "rope", rope_kernel<T>, dim3((unsigned)x.rows), 256, 0,
                  view_of<T>(x), view_of<float>(table), heads * half, head_dim, half, seq,
                  halves, sign);
}

kr_status cuda_rope(void *stream, struct kern_mat x, struct kern_mat table, int64_t heads,
                    int64_t head_dim, int64_t seq, enum kern_pairing pairing,
                    bool inverse)
{
    return BY_TYPE(x.type, rope, stream, x, table, heads, head_dim, seq,
                   pairing == KERN_ROPE_HALF, inverse ? -1.0f : 1.0f);
}
