/* reduce.c - sums in one order. */
#include <string.h>

#include "kernels/cpu/narrow.h"
#include "kernels/cpu/ops.h"

/* Pairwise over blocks of 128: the error grows with log n, the order is fixed. */
static double pairwise(const real *x, int64_t n)
{
    if (n <= 128) {
        double sum = 0;

        for (int64_t i = 0; i < n; i++)
            sum += (double)x[i];
        return sum;
    }
    return pairwise(x, n / 2) + pairwise(x + n / 2, n - n / 2);
}

kr_status CPU(sum)(void *stream, double *out, struct kern_mat x)
{
    (void)stream;
    *out = pairwise(row(x, 0), x.cols);
    return KR_OK;
}

static double squares(const real *x, int64_t n)
{
    double sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

kr_status CPU(sumsq)(void *stream, double *out, struct kern_mat x)
{
    int64_t blocks = (x.cols + KERN_SUM_BLOCK - 1) / KERN_SUM_BLOCK;

#pragma omp parallel for num_threads(team(stream, x.cols))
    for (int64_t b = 0; b < blocks; b++) {
        int64_t begin = b * KERN_SUM_BLOCK, left = x.cols - begin;
        int64_t n = left < KERN_SUM_BLOCK ? left : KERN_SUM_BLOCK;
        real room[KERN_SUM_BLOCK];

        out[b] = squares(CPU(load)(x, begin, n, room), n);
    }
    return KR_OK;
}

/* What word number i adds. */
static uint64_t number_of(uint64_t word, uint64_t i)
{
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15),
                   mix = UINT64_C(0xd6e8feb86659fd93);
    uint64_t y = word + (i + 1) * step;

    y = (y ^ y >> 32) * mix;
    y = (y ^ y >> 32) * mix;
    return y ^ y >> 32;
}

kr_status CPU(checksum)(void *stream, uint64_t *out, struct kern_mat x)
{
    const char *at = x.at;
    const int64_t bytes = x.cols * (int64_t)kern_dtype_bytes(x.type), words = bytes / 8;
    uint64_t sum = 0;

#pragma omp parallel for reduction(+ : sum) num_threads(team(stream, words))
    for (int64_t i = 0; i < words; i++) {
        uint64_t word;

        memcpy(&word, at + i * 8, sizeof word);
        sum += number_of(word, (uint64_t)i);
    }
    if (bytes % 8) {
        uint64_t word = 0;

        memcpy(&word, at + words * 8, (size_t)(bytes % 8));
        sum += number_of(word, (uint64_t)words);
    }
    *out = sum;
    return KR_OK;
}
