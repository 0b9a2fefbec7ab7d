/*
 * embed.cu - look rows up, add rows back.
 *
 * The backward must add the rows of equal tokens in one order, without atomics.  So the rows
 * are sorted by (token, n): the place of row n is the number of rows that come before it,
 * counted against all N tokens.  That is N^2 comparisons of numbers in shared memory: at
 * N = 32768 a thousandth of what the products of one block cost.  The rows of a token are
 * added in parts of PART, for a token may have most of them: the first part, in the order of
 * n, to what is there; then the others, each summed in that order, one after the other.
 */
#include "kernels/cuda/cells.cuh"

enum { TILE = 256, PART = 128, BATCH = 4 /* rows read at a time */ };

template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    embed_kernel(cells<T> x, const int32_t *token, cells<T> wte, cells<T> wpe,
                 int64_t seq, const int32_t *start)
{
    EACH_CELL (i, c, x.m.rows, x.m.cols) {
        float v[CELL], place[CELL] = {};

        wte.load(v, token[i], c);
        if (wpe.m.at) wpe.load(place, start ? i - start[i] : i % seq, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] += place[k];
        x.store(i, c, v);
    }
}

template <typename T>
static kr_status embed_fwd(void *stream, struct kern_mat x, const int32_t *token,
                           struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                           const int32_t *start)
{
    return launch(stream, "embed_fwd", embed_kernel<T>, cell_grid(x.rows, x.cols),
                  CELL_THREADS, 0, cells_of<T>(x), token, cells_of<T>(wte),
                  cells_of<T>(wpe), seq, start);
}

kr_status cuda_embed_fwd(void *stream, struct kern_mat x, const int32_t *token,
                         struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                         const int32_t *start)
{
    return BY_TYPE(x.type, embed_fwd, stream, x, token, wte, wpe, seq, start);
}

/* ---- backward ------------------------------------------------------------------------- */

/* The rows in the order of their keys, by place in that order.  rank: rows of the same key
 * before; left: from here on.  Parts begin where the rank is a multiple of PART. */
struct sorted {
    int32_t *row, *rank, *left;

    __device__ __forceinline__ bool begins_part(int64_t place) const
    {
        return rank[place] % PART == 0;
    }
};

static __global__ void __launch_bounds__(TILE)
    sort_kernel(sorted s, const int32_t *key, int32_t rows)
{
    __shared__ __align__(16) int32_t tile[TILE];
    const int32_t n = (int32_t)(blockIdx.x * TILE + threadIdx.x);
    const int32_t mine = n < rows ? key[n] : 0;
    int32_t less = 0, before = 0, alike = 0;

    for (int32_t first = 0; first < rows; first += TILE) {
        const int32_t other = first + (int32_t)threadIdx.x;

        __syncthreads();
        tile[threadIdx.x] = other < rows ? key[other] : INT32_MAX;
        __syncthreads();
        if (first == n - (int32_t)threadIdx.x) {
            before = alike;
            for (int32_t k = 0; first + k < n; k++)
                before += tile[k] == mine;
        }
#pragma unroll 16
        for (int32_t k = 0; k < TILE; k++) {
            less += tile[k] < mine;
            alike += tile[k] == mine;
        }
    }
    if (n >= rows) return;
    s.row[less + before] = n;
    s.rank[less + before] = before;
    s.left[less + before] = alike - before;
}

/* The sum of one part.  Blocks of x: the place where it may begin; of y: the columns.  The
 * first part of a key is added to d; of others the sum goes to row place / PART of part: in
 * the PART places before there begins no part but the first of a key. */
template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    add_rows_kernel(cells<float> d, cells<float> part, sorted s, const int32_t *key,
                    cells<T> dx)
{
    const int64_t c = ((int64_t)blockIdx.y * CELL_THREADS + threadIdx.x) * CELL;
    const int64_t place = blockIdx.x;
    const int count = s.left[place] < PART ? s.left[place] : PART;
    float sum[CELL] = {};

    if (c >= dx.m.cols || !s.begins_part(place)) return;
    if (s.rank[place] == 0) d.load(sum, key[s.row[place]], c);
    for (int n = 0; n < count; n += BATCH) {
        int32_t row[BATCH];
        words<T> w[BATCH];

#pragma unroll
        for (int q = 0; q < BATCH; q++)
            row[q] = s.row[place + (n + q < count ? n + q : count - 1)];
#pragma unroll
        for (int q = 0; q < BATCH; q++)
            w[q] = dx.fetch(row[q], c);
#pragma unroll
        for (int q = 0; q < BATCH; q++) {
            float v[CELL];

            w[q].unpack(v);
#pragma unroll
            for (int k = 0; k < CELL; k++)
                if (n + q < count) sum[k] += v[k];
        }
    }
    if (s.rank[place] == 0)
        d.store(key[s.row[place]], c, sum);
    else
        part.store(place / PART, c, sum);
}

/* d += the parts of a key but the first, in order.  Blocks of x: rows of part; the one that
 * has a key's second part adds them all. */
static __global__ void __launch_bounds__(CELL_THREADS)
    join_kernel(cells<float> d, cells<float> part, sorted s, const int32_t *key,
                int64_t rows)
{
    const int64_t c = ((int64_t)blockIdx.y * CELL_THREADS + threadIdx.x) * CELL;
    const int64_t first = blockIdx.x * (int64_t)PART;
    const int64_t place = first + (PART - s.rank[first] % PART) % PART;
    float sum[CELL];

    if (c >= d.m.cols || place >= rows || s.rank[place] != PART) return;
    d.load(sum, key[s.row[place]], c);
#pragma unroll 4
    for (int64_t n = 0; n < pieces(s.left[place], PART); n++) {
        float v[CELL];

        part.load(v, blockIdx.x + n, c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            sum[k] += v[k];
    }
    d.store(key[s.row[place]], c, sum);
}

/* dwpe (T rows of it) += the rows of each position, sequence after sequence. */
template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    add_places_kernel(cells<float> dwpe, cells<T> dx, int64_t seq)
{
    EACH_CELL (t, c, seq, dx.m.cols) {
        float sum[CELL];

        dwpe.load(sum, t, c);
        for (int64_t n = t; n < dx.m.rows; n += seq) {
            float v[CELL];

            dx.load(v, n, c);
#pragma unroll
            for (int k = 0; k < CELL; k++)
                sum[k] += v[k];
        }
        dwpe.store(t, c, sum);
    }
}

/* place (N): the position of each row in its document. */
static __global__ void __launch_bounds__(TILE)
    place_kernel(int32_t *place, const int32_t *start, int32_t rows)
{
    const int32_t n = (int32_t)(blockIdx.x * TILE + threadIdx.x);

    if (n < rows) place[n] = n - start[n];
}

/* Rows of d, one for each key, += the rows of dx of that key.  room: for what is sorted, and
 * for parts. */
struct room {
    sorted s;
    struct kern_mat part;
};

template <typename T>
static kr_status add_by_key(void *stream, struct kern_mat d, const int32_t *key,
                            struct kern_mat dx, const room &r)
{
    const unsigned across = (unsigned)pieces(dx.cols, (int64_t)CELL * CELL_THREADS);

    TRY(launch(stream, "embed_bwd", sort_kernel, dim3((unsigned)pieces(dx.rows, TILE)),
               TILE, 0, r.s, key, (int32_t)dx.rows));
    TRY(launch(stream, "embed_bwd", add_rows_kernel<T>, dim3((unsigned)dx.rows, across),
               CELL_THREADS, 0, cells_of<float>(d), cells_of<float>(r.part), r.s, key,
               cells_of<T>(dx)));
    if (dx.rows <= PART) return KR_OK;
    return launch(stream, "embed_bwd", join_kernel, dim3((unsigned)r.part.rows, across),
                  CELL_THREADS, 0, cells_of<float>(d), cells_of<float>(r.part), r.s, key,
                  dx.rows);
}

size_t cuda_embed_bwd_scratch(int64_t rows, int64_t cols)
{
    return sizeof(float) * (size_t)(pieces(rows, PART) * cell_row(cols)) +
           sizeof(int32_t) * (size_t)(4 * rows);
}

/* Parts first, for their rows are read 16 bytes at a time. */
static kr_status make_room(void *stream, struct kern_mat dx, room *r, int32_t **place)
{
    const int64_t n = dx.rows, ld = cell_row(dx.cols);
    struct kern_mat part = kern_mat(NULL, pieces(n, PART), ld, KERN_F32);
    int32_t *ints;

    TRY(cuda_scratch(stream, &part.at, cuda_embed_bwd_scratch(n, dx.cols)));
    part.cols = dx.cols;
    ints = (int32_t *)((float *)part.at + part.rows * ld);
    *r = room{ { ints, ints + n, ints + 2 * n }, part };
    *place = ints + 3 * n;
    return KR_OK;
}

template <typename T>
static kr_status embed_bwd(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                           const int32_t *token, struct kern_mat dx, int64_t seq,
                           const int32_t *start)
{
    int32_t *place;
    room r;

    TRY(make_room(stream, dx, &r, &place));
    TRY(add_by_key<T>(stream, dwte, token, dx, r));
    if (!dwpe.at) return KR_OK;
    if (start) {
        TRY(launch(stream, "embed_bwd", place_kernel,
                   dim3((unsigned)pieces(dx.rows, TILE)), TILE, 0, place, start,
                   (int32_t)dx.rows));
        return add_by_key<T>(stream, dwpe, place, dx, r);
    }
    return launch(stream, "embed_bwd", add_places_kernel<T>,
                  cell_grid(seq < dx.rows ? seq : dx.rows, dx.cols), CELL_THREADS, 0,
                  cells_of<float>(dwpe), cells_of<T>(dx), seq);
}

kr_status cuda_embed_bwd(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                         const int32_t *token, struct kern_mat dx, int64_t seq,
                         const int32_t *start)
{
    return BY_TYPE(dx.type, embed_bwd, stream, dwte, dwpe, token, dx, seq, start);
}
