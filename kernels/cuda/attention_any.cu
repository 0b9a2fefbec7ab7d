/*
 * attention_any.cu - causal attention for any head size up to ATTENTION_WIDEST, in fp32
 * arithmetic on any storage type: for "cuda32" and for heads that tensor cores do not fit.
 *
 * A warp owns one row: a query (forward, dQ) or a key (dK, dV).  The block's warps share
 * tiles of 32 rows of two other matrices, ascending.  Lane l works out the score of row l
 * of the tile; then all lanes gather the tile's rows, weighted, each its own channels.
 */
#include "kernels/cuda/attention.cuh"

enum { WARPS = 8, TILE = 32, THREADS = WARPS * WARP };

/* Shared memory of a block: two tiles, and two rows for each warp. */
struct room {
    float *a, *b, *own;
    int side; /* from one row of a tile to the next: odd for even sizes, no bank conflicts */
};

static inline __host__ __device__ int64_t room_floats(int64_t dim)
{
    return 2 * TILE * (dim + 1) + 2 * WARPS * dim;
}

static __device__ __forceinline__ room room_of(float *shared, int64_t dim)
{
    room r;

    r.side = (int)dim + 1;
    r.a = shared;
    r.b = r.a + TILE * r.side;
    r.own = r.b + TILE * r.side;
    return r;
}

/* Rows first .. first + TILE of a head to a tile; rows from `seq` on are zeros. */
template <typename T>
static __device__ void fetch_tile(float *tile, int side, const T *from, int64_t ld,
                                  int64_t first, int64_t seq, int64_t dim)
{
    for (int row = threadIdx.x / WARP; row < TILE; row += WARPS)
        for (int64_t c = threadIdx.x % WARP; c < dim; c += WARP)
            tile[row * side + c] =
                first + row < seq ? wide(from[(first + row) * ld + c]) : 0.0f;
}

/* This warp's own row. */
template <typename T>
static __device__ void fetch_own(float *own, const T *from, int64_t dim, bool exists)
{
    for (int64_t c = threadIdx.x % WARP; c < dim; c += WARP)
        own[c] = exists ? wide(from[c]) : 0.0f;
}

static __device__ __forceinline__ float dot(const float *a, const float *b, int64_t dim)
{
    float sum = 0;

    for (int64_t c = 0; c < dim; c++)
        sum = fmaf(a[c], b[c], sum);
    return sum;
}

/* sum[n], channel lane + 32 n, += over the tile's rows: weight of row l is lane l's. */
template <int PARTS>
static __device__ __forceinline__ void gather(float sum[PARTS], float weight,
                                              const float *tile, int side, int64_t dim)
{
    const int lane = threadIdx.x % WARP;

    for (int row = 0; row < TILE; row++) {
        const float w = __shfl_sync(ALL_LANES, weight, row);

#pragma unroll
        for (int n = 0; n < PARTS; n++)
            if (lane + WARP * n < dim)
                sum[n] = fmaf(w, tile[row * side + lane + WARP * n], sum[n]);
    }
}

template <typename T, int PARTS>
static __device__ __forceinline__ void store_own(T *to, const float sum[PARTS],
                                                 float scale, int64_t dim)
{
    const int lane = threadIdx.x % WARP;

#pragma unroll
    for (int n = 0; n < PARTS; n++)
        if (lane + WARP * n < dim) to[lane + WARP * n] = narrow<T>(sum[n] * scale);
}

template <typename T, int PARTS>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(view<T> out, view<float> lse, view<T> qkv, heads h)
{
    DYNAMIC_SHARED;
    const room r = room_of((float *)shared_bytes, h.head_dim);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int64_t head = blockIdx.y, kv = head / h.group(), base = blockIdx.z * h.seq;
    const int64_t first = blockIdx.x * (int64_t)WARPS, i = first + warp;
    const int64_t end = first + WARPS < h.seq ? first + WARPS : h.seq;
    const bool exists = i < h.seq;
    const int64_t seen = exists ? h.first_seen(base, i) : 0;
    const T *at = qkv.row(base);
    float *q = r.own + warp * h.head_dim;
    float sum[PARTS] = {}, most = -INFINITY, total = 0;

    fetch_own(q, at + i * qkv.ld + h.q_col(head), h.head_dim, exists);
    for (int64_t j = h.first_seen(base, first) / TILE * TILE; j < end; j += TILE) {
        const int64_t key = j + lane;
        float x = -INFINITY, top, base2, shrink;

        __syncthreads();
        fetch_tile(r.a, r.side, at + h.k_col(kv), qkv.ld, j, h.seq, h.head_dim);
        fetch_tile(r.b, r.side, at + h.v_col(kv), qkv.ld, j, h.seq, h.head_dim);
        __syncthreads();
        if (exists && key <= i && key >= seen)
            x = dot(q, r.a + lane * r.side, h.head_dim) * h.scale2 +
                h.slope2(head) * (float)(key - i);
        top = fmaxf(most, warp_max(x));
        base2 = top == -INFINITY ? 0.0f : top;
        shrink = exp2f(most - base2);
        x = exp2f(x - base2);
        most = top;
        total = total * shrink + warp_sum(x);
#pragma unroll
        for (int n = 0; n < PARTS; n++)
            sum[n] *= shrink;
        gather<PARTS>(sum, x, r.b, r.side, h.head_dim);
    }
    if (!exists) return;
    store_own<T, PARTS>(out.row(base + i) + h.q_col(head), sum, 1 / total, h.head_dim);
    if (lane == 0) lse.row(head)[base + i] = (most + log2f(total)) * LN_2;
}

template <typename T, int PARTS>
static __global__ void __launch_bounds__(THREADS) query_kernel(backward<T> g, heads h)
{
    DYNAMIC_SHARED;
    const room r = room_of((float *)shared_bytes, h.head_dim);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int64_t head = blockIdx.y, kv = head / h.group(), base = blockIdx.z * h.seq;
    const int64_t first = blockIdx.x * (int64_t)WARPS, i = first + warp;
    const int64_t end = first + WARPS < h.seq ? first + WARPS : h.seq;
    const bool exists = i < h.seq;
    const int64_t seen = exists ? h.first_seen(base, i) : 0;
    const float lse2 = exists ? g.lse.row(head)[base + i] * LOG2_E : 0;
    const float delta = exists ? g.delta.row(head)[base + i] : 0;
    const T *at = g.qkv.row(base);
    float *q = r.own + 2 * warp * h.head_dim, *dout = q + h.head_dim;
    float dq[PARTS] = {};

    fetch_own(q, at + i * g.qkv.ld + h.q_col(head), h.head_dim, exists);
    fetch_own(dout, g.dout.row(base + i) + h.q_col(head), h.head_dim, exists);
    for (int64_t j = h.first_seen(base, first) / TILE * TILE; j < end; j += TILE) {
        const int64_t key = j + lane;
        float d = 0;

        __syncthreads();
        fetch_tile(r.a, r.side, at + h.k_col(kv), g.qkv.ld, j, h.seq, h.head_dim);
        fetch_tile(r.b, r.side, at + h.v_col(kv), g.qkv.ld, j, h.seq, h.head_dim);
        __syncthreads();
        if (exists && key <= i && key >= seen) {
            const float x = dot(q, r.a + lane * r.side, h.head_dim) * h.scale2 +
                            h.slope2(head) * (float)(key - i);

            d = exp2f(x - lse2) * (dot(dout, r.b + lane * r.side, h.head_dim) - delta);
        }
        gather<PARTS>(dq, d, r.a, r.side, h.head_dim);
    }
    if (exists)
        store_own<T, PARTS>(g.dqkv.row(base + i) + h.q_col(head), dq, h.scale,
                            h.head_dim);
}

/* One query head against the keys of a block: dk and dv of this warp's key. */
template <typename T, int PARTS>
static __device__ void gather_head(float dk[PARTS], float dv[PARTS], const room &r,
                                   const backward<T> &g, const heads &h, int64_t base,
                                   int64_t head, int64_t first, int64_t j, bool exists)
{
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const float *k = r.own + 2 * warp * h.head_dim, *v = k + h.head_dim;

    for (int64_t i = first / TILE * TILE; i < h.seq; i += TILE) {
        const int64_t query = i + lane;
        float w = 0, d = 0;

        if (h.first_seen(base, i) >= first + WARPS) break; /* nor do later ones see us */
        __syncthreads();
        fetch_tile(r.a, r.side, g.qkv.row(base) + h.q_col(head), g.qkv.ld, i, h.seq,
                   h.head_dim);
        fetch_tile(r.b, r.side, g.dout.row(base) + h.q_col(head), g.dout.ld, i, h.seq,
                   h.head_dim);
        __syncthreads();
        if (exists && query < h.seq && j <= query && j >= h.first_seen(base, query)) {
            const float x = dot(k, r.a + lane * r.side, h.head_dim) * h.scale2 +
                            h.slope2(head) * (float)(j - query);

            w = exp2f(x - g.lse.row(head)[base + query] * LOG2_E);
            d = w * (dot(v, r.b + lane * r.side, h.head_dim) -
                     g.delta.row(head)[base + query]);
        }
        gather<PARTS>(dv, w, r.b, r.side, h.head_dim);
        gather<PARTS>(dk, d, r.a, r.side, h.head_dim);
    }
}

template <typename T, int PARTS>
static __global__ void __launch_bounds__(THREADS) key_kernel(backward<T> g, heads h)
{
    DYNAMIC_SHARED;
    const room r = room_of((float *)shared_bytes, h.head_dim);
    const int64_t kv = blockIdx.y, base = blockIdx.z * h.seq;
    const int64_t first = blockIdx.x * (int64_t)WARPS, j = first + threadIdx.x / WARP;
    const bool exists = j < h.seq;
    float *k = r.own + 2 * (j - first) * h.head_dim;
    const T *at = g.qkv.row(base) + j * g.qkv.ld;
    T *to = g.dqkv.row(base) + j * g.dqkv.ld;
    float dk[PARTS] = {}, dv[PARTS] = {};

    fetch_own(k, at + h.k_col(kv), h.head_dim, exists);
    fetch_own(k + h.head_dim, at + h.v_col(kv), h.head_dim, exists);
    for (int64_t n = 0; n < h.group(); n++)
        gather_head<T, PARTS>(dk, dv, r, g, h, base, kv * h.group() + n, first, j,
                              exists);
    if (!exists) return;
    store_own<T, PARTS>(to + h.k_col(kv), dk, h.scale, h.head_dim);
    store_own<T, PARTS>(to + h.v_col(kv), dv, 1, h.head_dim);
}

static dim3 grid_of(const heads &h, int64_t heads, int64_t rows)
{
    return dim3((unsigned)pieces(h.seq, WARPS), (unsigned)heads,
                (unsigned)(rows / h.seq));
}

static size_t room_bytes(const heads &h)
{
    return (size_t)room_floats(h.head_dim) * sizeof(float);
}

template <typename T, int PARTS>
static kr_status forward(void *stream, view<T> out, view<float> lse, view<T> qkv,
                         const heads &h)
{
    return launch(stream, "attention_fwd", forward_kernel<T, PARTS>,
                  grid_of(h, h.heads, out.rows), THREADS, room_bytes(h), out, lse, qkv,
                  h);
}

template <typename T, int PARTS>
static kr_status backwards(void *stream, const backward<T> &g, const heads &h)
{
    TRY(launch(stream, "attention_bwd", key_kernel<T, PARTS>,
               grid_of(h, h.kv_heads, g.dout.rows), THREADS, room_bytes(h), g, h));
    return launch(stream, "attention_bwd", query_kernel<T, PARTS>,
                  grid_of(h, h.heads, g.dout.rows), THREADS, room_bytes(h), g, h);
}

/* Channels of a lane: a power of two parts of 32. */
#define BY_PARTS(h, f, T, ...)                    \
    ((h).head_dim <= 32    ? f<T, 1>(__VA_ARGS__) \
     : (h).head_dim <= 64  ? f<T, 2>(__VA_ARGS__) \
     : (h).head_dim <= 128 ? f<T, 4>(__VA_ARGS__) \
                           : f<T, 8>(__VA_ARGS__))

template <typename T>
static kr_status typed_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                           struct kern_mat qkv, const heads &h)
{
    return BY_PARTS(h, forward, T, stream, view_of<T>(out), view_of<float>(lse),
                    view_of<T>(qkv), h);
}

kr_status attention_any_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                            struct kern_mat qkv, const heads &h)
{
    return BY_TYPE(out.type, typed_fwd, stream, out, lse, qkv, h);
}

template <typename T>
static kr_status typed_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                           struct kern_mat dout, struct kern_mat qkv, struct kern_mat lse,
                           const heads &h)
{
    const backward<T> g = { view_of<T>(dqkv), view_of<T>(dout), view_of<T>(qkv),
                            view_of<float>(lse), view_of<float>(delta) };

    return BY_PARTS(h, backwards, T, stream, g, h);
}

kr_status attention_any_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                            struct kern_mat dout, struct kern_mat qkv,
                            struct kern_mat lse, const heads &h)
{
    return BY_TYPE(dout.type, typed_bwd, stream, dqkv, delta, dout, qkv, lse, h);
}
