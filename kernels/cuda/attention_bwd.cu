/*
 * attention_bwd.cu - gradients of causal attention on tensor cores, without atomics.
 *
 * Two kernels.  The first owns 64 keys of a key/value head: it walks over the query heads
 * of the group, and for each over the queries that see these keys, ascending, and gathers
 * dK and dV in registers.  Scores are computed turned (keys are rows), so that weights and
 * their gradients are the left operands of the next products as they are.  The second owns
 * 64 queries and gathers dQ over the keys they see.  Computing the scores twice costs two
 * products of seven, and every sum has one order.
 */
#include "kernels/cuda/attention_mma.cuh"

enum { OWN = 64, THREADS = OWN / 16 * WARP };

/* Others that come at a time: as many as leave registers for the sums. */
template <int D> struct step {
    enum { QUERIES = D == 64 ? 64 : 32, KEYS = QUERIES };
};

/* ---- dK and dV ------------------------------------------------------------------------ */

/* Queries of a step: rows of Q and dout, their lse and delta. */
template <int D> struct query_stage {
    enum {
        ROWS = step<D>::QUERIES,
        TILE = ROWS * D * 2,
        BYTES = 2 * TILE + 2 * ROWS * (int)sizeof(float)
    };

    static __device__ __forceinline__ void fetch(unsigned char *stage,
                                                 const backward<bf16> &g, const heads &h,
                                                 int64_t base, int64_t head, int64_t i)
    {
        float *lse2 = (float *)(stage + 2 * TILE), *delta = lse2 + ROWS;
        const int t = threadIdx.x;

        fetch_rows<ROWS, D, THREADS>(stage, g.qkv.row(base) + h.q_col(head), g.qkv.ld, i,
                                     h.seq);
        fetch_rows<ROWS, D, THREADS>(stage + TILE, g.dout.row(base) + h.q_col(head),
                                     g.dout.ld, i, h.seq);
        if (t >= ROWS) return;
        /* a row past the end weighs 2^-inf = 0 */
        lse2[t] = i + t < h.seq ? g.lse.row(head)[base + i + t] * LOG2_E : INFINITY;
        delta[t] = i + t < h.seq ? g.delta.row(head)[base + i + t] : 0.0f;
    }
};

/* w = weights, d = their gradients, of keys (rows) and queries (columns), both turned: on
 * entry scores and dout . v.  j: this lane's first key; i: the first query. */
template <int N>
static __device__ __forceinline__ void
weigh_turned(float w[N][4], float d[N][4], const heads &h, const float *lse2,
             const float *delta, float slope, int64_t base, int64_t i, int64_t j)
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int col = 8 * n + threadIdx.x % 4 * 2 + e % 2;
            const int64_t query = i + col, key = j + e / 2 * 8;
            const bool sees = key <= query && query < h.seq &&
                              (!h.start || key >= h.first_seen(base, query));
            const float x = w[n][e] * h.scale2 + slope * (float)(key - query);

            w[n][e] = sees ? exp2f(x - lse2[col]) : 0.0f;
            d[n][e] = sees ? w[n][e] * (d[n][e] - delta[col]) : 0.0f;
        }
}

/* The first step of queries, in units of ROWS, that no longer sees key `last`. */
template <int ROWS>
static __device__ int64_t last_step(const heads &h, int64_t base, int64_t from,
                                    int64_t last)
{
    int64_t end = pieces(h.seq, ROWS);

    while (h.start && end > from && h.first_seen(base, (end - 1) * ROWS) > last)
        end--;
    return end;
}

template <int D>
static __global__ void __launch_bounds__(THREADS) key_kernel(backward<bf16> g, heads h)
{
    DYNAMIC_SHARED;
    typedef query_stage<D> stage;
    enum { N = stage::ROWS / 8, TILE = OWN * D * 2 };
    const int64_t kv = blockIdx.y, base = blockIdx.z * h.seq;
    const int64_t first = blockIdx.x * (int64_t)OWN, from = first / stage::ROWS;
    const int64_t end = last_step<stage::ROWS>(h, base, from, first + OWN - 1);
    const int64_t count = end - from, total = count * h.group();
    const int row = threadIdx.x / WARP * 16;
    const int64_t j = first + row + threadIdx.x % WARP / 4;
    const bf16 *at = g.qkv.row(base);
    unsigned char *k = shared_bytes, *v = k + TILE, *ring = v + TILE;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};

#define FETCH(n)                                                    \
    do {                                                            \
        if ((n) < total)                                            \
            stage::fetch(ring + (n) % 2 * stage::BYTES, g, h, base, \
                         kv * h.group() + (n) / count,              \
                         (from + (n) % count) * stage::ROWS);       \
        copy_commit();                                              \
    } while (0)

    fetch_rows<OWN, D, THREADS>(k, at + h.k_col(kv), g.qkv.ld, first, h.seq);
    fetch_rows<OWN, D, THREADS>(v, at + h.v_col(kv), g.qkv.ld, first, h.seq);
    FETCH(0);
    for (int64_t n = 0; n < total; n++) {
        const unsigned char *q = ring + n % 2 * stage::BYTES, *dout = q + stage::TILE;
        const float *lse2 = (const float *)(dout + stage::TILE);
        const int64_t head = kv * h.group() + n / count;
        const int64_t i = (from + n % count) * stage::ROWS;
        float w[N][4], d[N][4];

        FETCH(n + 1);
        copy_wait<1>();
        __syncthreads();
        scores<N, D>(w, k, row, q);
        scores<N, D>(d, v, row, dout);
        weigh_turned<N>(w, d, h, lse2, lse2 + stage::ROWS, h.slope2(head), base, i, j);
        gather<N, D>(dv, w, dout);
        gather<N, D>(dk, d, q);
        __syncthreads();
    }
#undef FETCH
    store_rows<D>(g.dqkv.row(base) + h.k_col(kv), g.dqkv.ld, j, h.seq, dk, h.scale,
                  h.scale);
    store_rows<D>(g.dqkv.row(base) + h.v_col(kv), g.dqkv.ld, j, h.seq, dv, 1, 1);
}

/* ---- dQ ------------------------------------------------------------------------------- */

/* A row of queries: what is known of it. */
struct query_row {
    int64_t at, seen;
    float lse2, delta;

    __device__ query_row(const backward<bf16> &g, const heads &h, int64_t base,
                         int64_t head, int64_t i)
        : at(i), seen(0), lse2(INFINITY), delta(0)
    {
        if (i >= h.seq) return;
        seen = h.first_seen(base, i);
        lse2 = g.lse.row(head)[base + i] * LOG2_E;
        delta = g.delta.row(head)[base + i];
    }
};

/* d = gradients of the scores: on entry s scores, d dout . v.  j: the first key. */
template <int N>
static __device__ __forceinline__ void
weigh_rows(float s[N][4], float d[N][4], const heads &h, float slope,
           const query_row &upper, const query_row &lower, int64_t j)
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const query_row &r = e / 2 ? lower : upper;
            const int64_t key = j + 8 * n + threadIdx.x % 4 * 2 + e % 2;
            const float x = s[n][e] * h.scale2 + slope * (float)(key - r.at);

            d[n][e] = key <= r.at && key >= r.seen
                          ? exp2f(x - r.lse2) * (d[n][e] - r.delta)
                          : 0.0f;
        }
}

template <int D>
static __global__ void __launch_bounds__(THREADS) query_kernel(backward<bf16> g, heads h)
{
    DYNAMIC_SHARED;
    enum { KEYS = step<D>::KEYS, N = KEYS / 8, TILE = KEYS * D * 2 };
    const int64_t head = blockIdx.y, kv = head / h.group(), base = blockIdx.z * h.seq;
    const int64_t first = (gridDim.x - 1 - blockIdx.x) * (int64_t)OWN;
    const int64_t end = first + OWN < h.seq ? first + OWN : h.seq;
    const int row = threadIdx.x / WARP * 16;
    const int64_t i = first + row + threadIdx.x % WARP / 4;
    const query_row upper(g, h, base, head, i), lower(g, h, base, head, i + 8);
    const bf16 *at = g.qkv.row(base);
    unsigned char *q = shared_bytes, *dout = q + OWN * D * 2, *ring = dout + OWN * D * 2;
    float s[N][4], d[N][4], dq[D / 8][4] = {};
    int64_t j = h.first_seen(base, first) / KEYS * KEYS;
    int turn = 0;

#define FETCH(key, place)                                                               \
    do {                                                                                \
        unsigned char *k_ = ring + (place)*2 * TILE;                                    \
        if ((key) < end) {                                                              \
            fetch_rows<KEYS, D, THREADS>(k_, at + h.k_col(kv), g.qkv.ld, (key), h.seq); \
            fetch_rows<KEYS, D, THREADS>(k_ + TILE, at + h.v_col(kv), g.qkv.ld, (key),  \
                                         h.seq);                                        \
        }                                                                               \
        copy_commit();                                                                  \
    } while (0)

    fetch_rows<OWN, D, THREADS>(q, at + h.q_col(head), g.qkv.ld, first, h.seq);
    fetch_rows<OWN, D, THREADS>(dout, g.dout.row(base) + h.q_col(head), g.dout.ld, first,
                                h.seq);
    FETCH(j, 0);
    for (; j < end; j += KEYS, turn ^= 1) {
        const unsigned char *k = ring + turn * 2 * TILE;

        FETCH(j + KEYS, turn ^ 1);
        copy_wait<1>();
        __syncthreads();
        scores<N, D>(s, q, row, k);
        scores<N, D>(d, dout, row, k + TILE);
        weigh_rows<N>(s, d, h, h.slope2(head), upper, lower, j);
        gather<N, D>(dq, d, k);
        __syncthreads();
    }
#undef FETCH
    store_rows<D>(g.dqkv.row(base) + h.q_col(head), g.dqkv.ld, i, h.seq, dq, h.scale,
                  h.scale);
}

template <int D>
static kr_status run(void *stream, const backward<bf16> &g, const heads &h)
{
    const unsigned tiles = (unsigned)pieces(h.seq, OWN);
    const unsigned sequences = (unsigned)(g.dout.rows / h.seq);

    TRY(launch(stream, "attention_bwd", key_kernel<D>,
               dim3(tiles, (unsigned)h.kv_heads, sequences), THREADS,
               (size_t)(2 * OWN * D * 2 + 2 * query_stage<D>::BYTES), g, h));
    return launch(stream, "attention_bwd", query_kernel<D>,
                  dim3(tiles, (unsigned)h.heads, sequences), THREADS,
                  (size_t)(2 * OWN + 4 * step<D>::KEYS) * D * 2, g, h);
}

kr_status attention_mma_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                            struct kern_mat dout, struct kern_mat qkv,
                            struct kern_mat lse, const heads &h)
{
    const backward<bf16> g = { view_of<bf16>(dqkv), view_of<bf16>(dout),
                               view_of<bf16>(qkv), view_of<float>(lse),
                               view_of<float>(delta) };

    return h.head_dim == 64 ? run<64>(stream, g, h) : run<128>(stream, g, h);
}
