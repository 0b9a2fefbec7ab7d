/*
 * tile.cuh - tiles of bf16 in shared memory, and how warps read operands from them.
 *
 * A tile has rows of chunks of 16 bytes (8 numbers).  Chunks are permuted inside a row so
 * that eight rows of one column of chunks, what one step of ldmatrix reads, lie in eight
 * different groups of banks.
 *
 * An operand of a product is stored along the inner dimension k ("rows are m or n, columns
 * are k") or across it ("rows are k").  The fragments of sm80.cuh come out of the first by
 * ldmatrix, out of the second by its turned form.  Lane l gives the address of row l mod 8
 * of matrix l / 8; the four functions below say where that is, relative to a corner.
 */
#ifndef KERN_CUDA_TILE_CUH
#define KERN_CUDA_TILE_CUH

#include "kernels/cuda/num.cuh"
#include "kernels/cuda/sm80.cuh"

enum { CHUNK = 8 /* numbers */, CHUNK_BYTES = 16 };

/* Byte of chunk `chunk` of row `row`, in rows of CHUNKS chunks: 4, 8 or 16. */
template <int CHUNKS>
static __host__ __device__ __forceinline__ int tile_at(int row, int chunk)
{
    const int turn = CHUNKS == 4 ? row / 2 % 4 : row % 8;

    return (row * CHUNKS + (chunk ^ turn)) * CHUNK_BYTES;
}

/* Row and chunk, from the corner of a 16 x 16 piece, whose address a lane gives. */
struct place {
    int row, chunk;
};

/* a of multiply(), stored along k: rows m.  Matrices: (m, k), (m + 8, k), (m, k + 8), both. */
static __host__ __device__ __forceinline__ place a_along(int lane)
{
    return place{ lane % 16, lane / 16 };
}

/* a, stored across k: rows k. */
static __host__ __device__ __forceinline__ place a_across(int lane)
{
    return place{ lane % 8 + lane / 16 * 8, lane / 8 % 2 };
}

/* b of two products with 8 columns each, stored along k: rows n.  r[0..1] is the first's. */
static __host__ __device__ __forceinline__ place b_along(int lane)
{
    return place{ lane % 8 + lane / 16 * 8, lane / 8 % 2 };
}

/* b, stored across k: rows k. */
static __host__ __device__ __forceinline__ place b_across(int lane)
{
    return place{ lane % 16, lane / 16 };
}

/* The piece of a tile whose corner is (row, chunk), as fragments. */
template <int CHUNKS>
static __device__ __forceinline__ void read_tile(unsigned r[4], const unsigned char *tile,
                                                 int row, int chunk, place p)
{
    load_matrices(r, tile + tile_at<CHUNKS>(row + p.row, chunk + p.chunk));
}
template <int CHUNKS>
static __device__ __forceinline__ void
read_tile_turned(unsigned r[4], const unsigned char *tile, int row, int chunk, place p)
{
    load_matrices_turned(r, tile + tile_at<CHUNKS>(row + p.row, chunk + p.chunk));
}

/* Bring 8 neighbours, of which `count` (0 to 8) exist, to a chunk of shared memory.  The
 * rest becomes zeros.  `base`: any address that may be named, for count 0. */
static __device__ __forceinline__ void bring(unsigned char *shared, const bf16 *from,
                                             const bf16 *base, int count, bool aligned)
{
    bf16 v[CHUNK];

    if (aligned) {
        copy_async(shared, count > 0 ? from : base, count > 0 ? 2 * count : 0);
        return;
    }
#pragma unroll
    for (int k = 0; k < CHUNK; k++)
        v[k] = k < count ? from[k] : narrow<bf16>(0.0f);
#pragma unroll
    for (int k = 0; k < CHUNK; k++)
        ((bf16 *)shared)[k] = v[k];
}

static __device__ __forceinline__ int at_most(int64_t n, int most)
{
    return n < 0 ? 0 : n < most ? (int)n : most;
}

#endif
