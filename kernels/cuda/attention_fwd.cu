/*
 * attention_fwd.cu - causal attention on tensor cores with online softmax.
 *
 * A block of 8 warps owns 128 queries of one head and walks over the keys they see, 64 at
 * a time, ascending; the next keys and values come while these are used.  Blocks with the
 * most work start first.
 */
#include "kernels/cuda/attention_mma.cuh"

enum { QUERIES = 128, KEYS = 64, THREADS = QUERIES / 16 * WARP, N = KEYS / 8 };

/* The softmax of one row so far. */
struct soft {
    float most, sum; /* sum: over this lane's columns only */
};

/* Fold a row of scores in (elements e and e + 1 of each s[n]) and make weights of them.
 * Returns what the sums so far shrink by. */
static __device__ __forceinline__ float soften(float s[N][4], int e, soft *r)
{
    float top = r->most, base, shrink;

#pragma unroll
    for (int n = 0; n < N; n++)
        top = fmaxf(top, fmaxf(s[n][e], s[n][e + 1]));
    top = quad_max(top);
    base = top == -INFINITY ? 0.0f : top; /* nothing seen yet: weights are 0, not NaN */
    shrink = exp2f(r->most - base);
    r->most = top;
    r->sum *= shrink;
#pragma unroll
    for (int n = 0; n < N; n++) {
        s[n][e] = exp2f(s[n][e] - base);
        s[n][e + 1] = exp2f(s[n][e + 1] - base);
        r->sum += s[n][e] + s[n][e + 1];
    }
    return shrink;
}

/* Scale, add ALiBi, and hide what rows i and i + 8 may not see.  j: the first key. */
static __device__ __forceinline__ void weigh(float s[N][4], const heads &h, float slope,
                                             int64_t i, int64_t seen0, int64_t seen1,
                                             int64_t j)
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int64_t query = i + e / 2 * 8, first = e / 2 ? seen1 : seen0;
            const int64_t key = j + 8 * n + threadIdx.x % 4 * 2 + e % 2;

            s[n][e] = key > query || key < first
                          ? -INFINITY
                          : s[n][e] * h.scale2 + slope * (float)(key - query);
        }
}

template <int D>
static __global__ void __launch_bounds__(THREADS)
    forward_kernel(view<bf16> out, view<float> lse, view<bf16> qkv, heads h)
{
    DYNAMIC_SHARED;
    enum { TILE = KEYS * D * 2 };
    const int64_t head = blockIdx.y, kv = head / h.group(), base = blockIdx.z * h.seq;
    const int64_t first = (gridDim.x - 1 - blockIdx.x) * (int64_t)QUERIES;
    const int64_t end = first + QUERIES < h.seq ? first + QUERIES : h.seq;
    const int row = threadIdx.x / WARP * 16;
    const int64_t i = first + row + threadIdx.x % WARP / 4; /* this lane's first row */
    const bf16 *at = qkv.row(base);
    unsigned char *q = shared_bytes, *ring = q + QUERIES * D * 2;
    const float slope = h.slope2(head);
    const int64_t seen0 = i < h.seq ? h.first_seen(base, i) : 0;
    const int64_t seen1 = i + 8 < h.seq ? h.first_seen(base, i + 8) : 0;
    float s[N][4], sum[D / 8][4] = {};
    soft upper = { -INFINITY, 0 }, lower = { -INFINITY, 0 };
    int64_t j = h.first_seen(base, first) / KEYS * KEYS;
    int turn = 0;

#define FETCH(key, place)                                                             \
    do {                                                                              \
        unsigned char *k_ = ring + (place)*2 * TILE;                                  \
        if ((key) < end) {                                                            \
            fetch_rows<KEYS, D, THREADS>(k_, at + h.k_col(kv), qkv.ld, (key), h.seq); \
            fetch_rows<KEYS, D, THREADS>(k_ + TILE, at + h.v_col(kv), qkv.ld, (key),  \
                                         h.seq);                                      \
        }                                                                             \
        copy_commit();                                                                \
    } while (0)

    fetch_rows<QUERIES, D, THREADS>(q, at + h.q_col(head), qkv.ld, first, h.seq);
    FETCH(j, 0);
    for (; j < end; j += KEYS, turn ^= 1) {
        const unsigned char *k = ring + turn * 2 * TILE;

        FETCH(j + KEYS, turn ^ 1);
        copy_wait<1>();
        __syncthreads();
        if (j <= first + row + 15) { /* else this warp's rows end before these keys */
            float shrink0, shrink1;

            scores<N, D>(s, q, row, k);
            weigh(s, h, slope, i, seen0, seen1, j);
            shrink0 = soften(s, 0, &upper);
            shrink1 = soften(s, 2, &lower);
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sum[n][0] *= shrink0, sum[n][1] *= shrink0;
                sum[n][2] *= shrink1, sum[n][3] *= shrink1;
            }
            gather<N, D>(sum, s, k + TILE);
        }
        __syncthreads(); /* all have read this pair of tiles */
    }
#undef FETCH
    upper.sum = quad_sum(upper.sum);
    lower.sum = quad_sum(lower.sum);
    store_rows<D>(out.row(base) + h.q_col(head), out.ld, i, h.seq, sum, 1 / upper.sum,
                  1 / lower.sum);
    if (threadIdx.x % 4 != 0) return;
    if (i < h.seq) lse.row(head)[base + i] = (upper.most + log2f(upper.sum)) * LN_2;
    if (i + 8 < h.seq)
        lse.row(head)[base + i + 8] = (lower.most + log2f(lower.sum)) * LN_2;
}

template <int D>
static kr_status run(void *stream, struct kern_mat out, struct kern_mat lse,
                     struct kern_mat qkv, const heads &h)
{
    const dim3 grid((unsigned)pieces(h.seq, QUERIES), (unsigned)h.heads,
                    (unsigned)(out.rows / h.seq));

    return launch(stream, "attention_fwd", forward_kernel<D>, grid, THREADS,
                  (size_t)(QUERIES + 4 * KEYS) * D * 2, view_of<bf16>(out),
                  view_of<float>(lse), view_of<bf16>(qkv), h);
}

kr_status attention_mma_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                            struct kern_mat qkv, const heads &h)
{
    return h.head_dim == 64 ? run<64>(stream, out, lse, qkv, h)
                            : run<128>(stream, out, lse, qkv, h);
}
