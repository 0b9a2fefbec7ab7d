/*
 * cells.cuh - matrices read and written 8 elements at a time, ragged ends included.
 *
 * A thread of an elementwise kernel owns 8 neighbours of one row.  Where all rows begin at
 * multiples of 16 bytes it moves them in one or two accesses, else one by one; past the
 * last column it reads zeros and writes nothing.
 */
#ifndef KERN_CUDA_CELLS_CUH
#define KERN_CUDA_CELLS_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/num.cuh"

enum { CELL = 8, CELL_THREADS = 128 };

/* A cell that nobody has looked at yet.  Who wants several under way fetches them all before
 * he unpacks the first: nvcc waits for a load at the end of the branch that has it, if what
 * it brings is used there. */
template <typename T> struct words {
    enum { N = CELL * (int)sizeof(T) / 4 };
    unsigned at[N];

    static __device__ __forceinline__ words whole(const T *from)
    {
        words w;

#pragma unroll
        for (int k = 0; k < N; k += 4) {
            const uint4 x = *(const uint4 *)(from + k * (CELL / N));

            w.at[k] = x.x, w.at[k + 1] = x.y, w.at[k + 2] = x.z, w.at[k + 3] = x.w;
        }
        return w;
    }
    __device__ __forceinline__ void keep(T *to) const
    {
#pragma unroll
        for (int k = 0; k < N; k += 4)
            *(uint4 *)(to + k * (CELL / N)) =
                make_uint4(at[k], at[k + 1], at[k + 2], at[k + 3]);
    }
    __device__ __forceinline__ void put(int k, float x) { at[k] = __float_as_uint(x); }
    __device__ __forceinline__ void put(int k, bf16 x)
    {
        at[k / 2] |= (unsigned)__bfloat16_as_ushort(x) << 16 * (k % 2);
    }
    __device__ __forceinline__ void unpack(float v[CELL]) const
    {
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] = sizeof(T) == 4 ? __uint_as_float(at[k % N])
                   : k % 2 == 0   ? __uint_as_float(at[k / 2] << 16)
                                  : __uint_as_float(at[k / 2] & 0xffff0000u);
    }
};

template <typename T> struct cells {
    view<T> m;
    bool aligned;

    /* `count` of the columns, from c on. */
    __device__ __forceinline__ cells part(int64_t c, int64_t count) const
    {
        const bool fits = c * (int64_t)sizeof(T) % 16 == 0;

        return cells{ { m.at + c, m.rows, count, m.ld }, aligned && fits };
    }
    /* What load reads, as it lies in memory. */
    __device__ __forceinline__ words<T> fetch(int64_t i, int64_t c) const
    {
        const T *at = m.row(i) + c;
        words<T> w = {};

        if (aligned && c + CELL <= m.cols) return words<T>::whole(at);
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (c + k < m.cols) w.put(k, at[k]);
        return w;
    }
    __device__ __forceinline__ void load(float v[CELL], int64_t i, int64_t c) const
    {
        fetch(i, c).unpack(v);
    }
    __device__ __forceinline__ void store(int64_t i, int64_t c, const float v[CELL]) const
    {
        T *at = m.row(i) + c;

        if (aligned && c + CELL <= m.cols) {
#pragma unroll
            for (int k = 0; k < CELL; k += pack<T>::N)
                pack<T>::store(at + k, v + k);
            return;
        }
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (c + k < m.cols) at[k] = narrow<T>(v[k]);
    }
};

template <typename T> static inline cells<T> cells_of(struct kern_mat m)
{
    return cells<T>{ view_of<T>(m), is_aligned(m, 16) };
}

/* Elements from one row to the next of a matrix of our own, whose cells are all whole. */
static inline int64_t cell_row(int64_t cols) { return pieces(cols, CELL) * CELL; }

/* A grid whose x walks over the columns and whose y over the rows; see EACH_CELL. */
static inline dim3 cell_grid(int64_t rows, int64_t cols)
{
    return dim3((unsigned)pieces(cols, (int64_t)CELL * CELL_THREADS),
                (unsigned)(rows < 65535 ? rows : 65535));
}

/* The loop of a kernel over such a grid: i and c are the row and the first column. */
#define EACH_CELL(i, c, nrows, ncols)                                           \
    for (int64_t c = ((int64_t)blockIdx.x * CELL_THREADS + threadIdx.x) * CELL, \
                 i = blockIdx.y;                                                \
         i < (nrows) && c < (ncols); i += gridDim.y)

#endif
