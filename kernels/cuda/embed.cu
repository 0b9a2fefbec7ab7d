/*
 * embed.cu - look rows up, add rows back.
 *
 * The backward must add the rows of equal tokens one after the other in the order of n,
 * without atomics.  So the rows are sorted by (token, n): the place of row n is the number
 * of rows that come before it, counted against all N tokens.  That is N^2 comparisons of
 * numbers in shared memory: at N = 32768 a thousandth of what the products of one block
 * cost.  Then whoever meets the first row of a token adds all its rows.
 */
#include "kernels/cuda/cells.cuh"

enum { TILE = 256 };

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

/* order (N): the rows sorted by (token, row). */
static __global__ void __launch_bounds__(TILE)
    sort_kernel(int32_t *order, const int32_t *token, int32_t rows)
{
    __shared__ int32_t tile[TILE];
    const int32_t n = (int32_t)(blockIdx.x * TILE + threadIdx.x);
    const int32_t mine = n < rows ? token[n] : 0;
    int32_t before = 0;

    for (int32_t first = 0; first < rows; first += TILE) {
        const int32_t count = rows - first < TILE ? rows - first : TILE;

        __syncthreads();
        if ((int32_t)threadIdx.x < count) tile[threadIdx.x] = token[first + threadIdx.x];
        __syncthreads();
        for (int32_t k = 0; k < count; k++)
            before += tile[k] < mine || (tile[k] == mine && first + k < n);
    }
    if (n < rows) order[before] = n;
}

/* Blocks of x: the place in `order`; of y: the columns.  Keys may be tokens or positions. */
template <typename T>
static __global__ void __launch_bounds__(CELL_THREADS)
    add_tokens_kernel(cells<float> dwte, const int32_t *order, const int32_t *token,
                      cells<T> dx)
{
    const int64_t c = ((int64_t)blockIdx.y * CELL_THREADS + threadIdx.x) * CELL;
    int64_t place = blockIdx.x;
    const int32_t mine = token[order[place]];
    float sum[CELL];

    if (c >= dx.m.cols || (place > 0 && token[order[place - 1]] == mine)) return;
    dwte.load(sum, mine, c);
    for (; place < dx.m.rows && token[order[place]] == mine; place++) {
        float v[CELL];

        dx.load(v, order[place], c);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            sum[k] += v[k];
    }
    dwte.store(mine, c, sum);
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

/* Rows of d, one for each key, += the rows of dx of that key.  order: room for N. */
template <typename T>
static kr_status add_by_key(void *stream, struct kern_mat d, const int32_t *key,
                            struct kern_mat dx, int32_t *order)
{
    const dim3 grid((unsigned)dx.rows,
                    (unsigned)pieces(dx.cols, (int64_t)CELL * CELL_THREADS));

    TRY(launch(stream, "embed_bwd", sort_kernel, dim3((unsigned)pieces(dx.rows, TILE)),
               TILE, 0, order, key, (int32_t)dx.rows));
    return launch(stream, "embed_bwd", add_tokens_kernel<T>, grid, CELL_THREADS, 0,
                  cells_of<float>(d), order, key, cells_of<T>(dx));
}

template <typename T>
static kr_status embed_bwd(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                           const int32_t *token, struct kern_mat dx, int64_t seq,
                           const int32_t *start)
{
    int32_t *order, *place;

    TRY(cuda_scratch(stream, &order, sizeof *order * (size_t)(2 * dx.rows + 1)));
    place = order + dx.rows;
    TRY(add_by_key<T>(stream, dwte, token, dx, order));
    if (!dwpe.at) return KR_OK;
    if (start) {
        TRY(launch(stream, "embed_bwd", place_kernel,
                   dim3((unsigned)pieces(dx.rows, TILE)), TILE, 0, place, start,
                   (int32_t)dx.rows));
        return add_by_key<T>(stream, dwpe, place, dx, order);
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
