/* narrow.c - bf16 beside reals: copies between types, rounding by chance. */
#include "kernels/cpu/narrow.h"

#include "base/bf16.h"
#include "kernels/cpu/ops.h"

enum { PIECE = 4096 /* elements; no span is longer */ };

static void *element(struct kern_mat m, int64_t i, int64_t j)
{
    return (char *)m.at + (size_t)(i * m.ld + j) * kern_dtype_bytes(m.type);
}

static void widen(real *y, const uint16_t *x, int64_t n)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        y[k] = (real)bf16_value(x[k]);
}

static void round_even(uint16_t *y, const real *x, int64_t n)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        y[k] = bf16_round((float)x[k]);
}

/* (The double text has this, too, and no use for it.) */
static void round_random(uint16_t *y, const real *x, int64_t n,
                         const struct kern_round *r, int64_t number)
{
    float row[PIECE];

    for (int64_t k = 0; k < n; k++)
        row[k] = (float)x[k];
    bf16_round_row(y, row, n, r->key, r->sub, number);
}

real *CPU(load)(struct kern_mat m, int64_t begin, int64_t n, real *room)
{
    if (m.type == KERN_REAL) return row(m, 0) + begin;
    widen(room, element(m, 0, begin), n);
    return room;
}

void CPU(store)(struct kern_mat m, int64_t begin, int64_t n, const real *x,
                const struct kern_round *r)
{
    if (m.type != KERN_REAL)
        round_random(element(m, 0, begin), x, n, r, r->first + begin);
    else if (row(m, 0) + begin != x)
        memcpy(row(m, 0) + begin, x, (size_t)n * sizeof(real));
}

static void copy_row(struct kern_mat y, struct kern_mat x, int64_t i, int64_t begin,
                     int64_t n)
{
    void *to = element(y, i, begin), *from = element(x, i, begin);

    if (y.type == x.type)
        memcpy(to, from, (size_t)n * kern_dtype_bytes(x.type));
    else if (x.type == KERN_BF16)
        widen(to, from, n);
    else
        round_even(to, from, n);
}

kr_status CPU(copy)(void *stream, struct kern_mat y, struct kern_mat x)
{
    int64_t across = (x.cols + PIECE - 1) / PIECE;

#pragma omp parallel for collapse(2) num_threads(team(stream, x.rows *x.cols))
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t p = 0; p < across; p++)
            copy_row(y, x, i, p * PIECE,
                     x.cols - p * PIECE < PIECE ? x.cols - p * PIECE : PIECE);
    return KR_OK;
}

kr_status CPU(add_round)(void *stream, struct kern_mat y, struct kern_mat a,
                         struct kern_mat b, const struct kern_round *r)
{
#pragma omp parallel for num_threads(team(stream, y.cols))
    for (int64_t i = 0; i < y.cols; i += PIECE) {
        int64_t n = y.cols - i < PIECE ? y.cols - i : PIECE;
        real left_room[PIECE], right_room[PIECE], sum[PIECE];
        const real *right = CPU(load)(b, i, n, right_room), *left = right;

        if (a.at) left = CPU(load)(a, i, n, left_room);
#pragma omp simd
        for (int64_t k = 0; k < n; k++)
            sum[k] = a.at ? left[k] + right[k] : right[k];
        CPU(store)(y, i, n, sum, r);
    }
    return KR_OK;
}
