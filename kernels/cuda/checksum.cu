/*
 * checksum.cu - a number for an array: integers, so their order is nobody's concern.
 *
 * Blocks sum what they come across, and one block their sums.  Bound by memory: a word of 8
 * bytes costs two products of 64 bits.
 */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/num.cuh"

enum { THREADS = 256, EACH = 16, MOST = 1024 }; /* words of a thread at least; blocks */

static int64_t blocks_of(int64_t words)
{
    const int64_t n = pieces(words, THREADS * EACH);

    return n < 1 ? 1 : n < MOST ? n : MOST;
}

/* An array as words; the last one may be short. */
struct words {
    const unsigned char *at;
    int64_t bytes;
    bool aligned; /* to 8 */

    __device__ __forceinline__ uint64_t operator[](int64_t i) const
    {
        uint64_t word = 0;

        if (aligned && i * 8 + 8 <= bytes) return ((const uint64_t *)at)[i];
        for (int k = 0; k < 8 && i * 8 + k < bytes; k++)
            word |= (uint64_t)at[i * 8 + k] << 8 * k;
        return word;
    }
};

/* What word number i adds: kernels.h. */
static __device__ __forceinline__ uint64_t number_of(uint64_t word, uint64_t i)
{
    const uint64_t step = 0x9e3779b97f4a7c15, mix = 0xd6e8feb86659fd93;
    uint64_t y = word + (i + 1) * step;

    y = (y ^ y >> 32) * mix;
    y = (y ^ y >> 32) * mix;
    return y ^ y >> 32;
}

/* Sum over a block, of use to thread 0. */
static __device__ __forceinline__ uint64_t sum_block(uint64_t x)
{
    __shared__ uint64_t room[THREADS];

    room[threadIdx.x] = x;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
    }
    return room[0];
}

static __global__ void __launch_bounds__(THREADS)
    word_sums(uint64_t *out, words x, int64_t count)
{
    uint64_t sum = 0;

#pragma unroll 4
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS)
        sum += number_of(x[i], (uint64_t)i);
    sum = sum_block(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    last_words(uint64_t *out, const uint64_t *part, int64_t count)
{
    uint64_t sum = 0;

    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        sum += part[i];
    sum = sum_block(sum);
    if (threadIdx.x == 0) out[0] = sum;
}

size_t cuda_checksum_scratch(int64_t words)
{
    return sizeof(uint64_t) * (size_t)blocks_of(words);
}

kr_status cuda_checksum(void *stream, uint64_t *out, struct kern_mat x)
{
    const int64_t bytes = x.cols * (int64_t)kern_dtype_bytes(x.type);
    const int64_t count = pieces(bytes, 8), blocks = blocks_of(count);
    const words w = { (const unsigned char *)x.at, bytes, (uintptr_t)x.at % 8 == 0 };
    uint64_t *part;

    TRY(cuda_scratch(stream, &part, cuda_checksum_scratch(count)));
    TRY(launch(stream, "checksum", word_sums, dim3((unsigned)blocks), THREADS, 0, part, w,
               count));
    return launch(stream, "checksum", last_words, dim3(1), THREADS, 0, out, part, blocks);
}
