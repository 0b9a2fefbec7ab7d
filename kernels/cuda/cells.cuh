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

template <typename T> struct cells {
    view<T> m;
    bool aligned;

    /* `count` of the columns, from c on. */
    __device__ __forceinline__ cells part(int64_t c, int64_t count) const
    {
        const bool fits = c * (int64_t)sizeof(T) % 16 == 0;

        return cells{ { m.at + c, m.rows, count, m.ld }, aligned && fits };
    }
    __device__ __forceinline__ void load(float v[CELL], int64_t i, int64_t c) const
    {
        const T *at = m.row(i) + c;

        if (aligned && c + CELL <= m.cols) {
#pragma unroll
            for (int k = 0; k < CELL; k += pack<T>::N)
                pack<T>::load(v + k, at + k);
            return;
        }
#pragma unroll
        for (int k = 0; k < CELL; k++)
            v[k] = c + k < m.cols ? wide(at[k]) : 0.0f;
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
