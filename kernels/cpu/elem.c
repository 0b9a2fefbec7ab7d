/* elem.c - fill, add, scale, bias, sums over rows. */
#include "base/bf16.h"
#include "kernels/cpu/ops.h"

enum { STRIPE = 64 /* columns that one piece of a sum over rows takes */ };

/* A view without gaps is one long row: better for vectors and for threads. */
static bool dense(struct kern_mat m) { return m.ld == m.cols; }

/* Cut a long row into pieces of this many elements. */
enum { PIECE = 16384 };

static int64_t pieces(int64_t n) { return (n + PIECE - 1) / PIECE; }
static int64_t piece_len(int64_t n, int64_t p)
{
    return n - p * PIECE < PIECE ? n - p * PIECE : PIECE;
}

static void fill_bf16(struct kern_mat y, double value)
{
    uint16_t *at = y.at, bits = bf16_round((float)value);

    for (int64_t i = 0; i < y.rows; i++)
        for (int64_t k = 0; k < y.cols; k++)
            at[i * y.ld + k] = bits;
}

kr_status CPU(fill)(void *stream, struct kern_mat y, double value)
{
    int64_t rows = dense(y) ? 1 : y.rows, n = dense(y) ? y.rows * y.cols : y.cols;

    if (y.type == KERN_BF16) {
        fill_bf16(y, value);
        return KR_OK;
    }
    for (int64_t i = 0; i < rows; i++) {
#pragma omp parallel for num_threads(team(stream, n))
        for (int64_t p = 0; p < pieces(n); p++) {
            real *at = row(y, i) + p * PIECE;

            for (int64_t k = 0; k < piece_len(n, p); k++)
                at[k] = (real)value;
        }
    }
    return KR_OK;
}

static void add_span(real *y, const real *a, const real *b, int64_t n)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        y[k] = a[k] + b[k];
}

kr_status CPU(add)(void *stream, struct kern_mat y, struct kern_mat a, struct kern_mat b)
{
    bool one = dense(y) && dense(a) && dense(b);
    int64_t n = y.rows * y.cols;

    if (!one) {
        for (int64_t i = 0; i < y.rows; i++)
            add_span(row(y, i), row(a, i), row(b, i), y.cols);
        return KR_OK;
    }
#pragma omp parallel for num_threads(team(stream, n))
    for (int64_t p = 0; p < pieces(n); p++)
        add_span(row(y, 0) + p * PIECE, row(a, 0) + p * PIECE, row(b, 0) + p * PIECE,
                 piece_len(n, p));
    return KR_OK;
}

static void scale_span(real *y, const real *x, real s, int64_t n)
{
#pragma omp simd
    for (int64_t k = 0; k < n; k++)
        y[k] = s * x[k];
}

kr_status CPU(scale)(void *stream, struct kern_mat y, struct kern_mat x, double s)
{
#pragma omp parallel for num_threads(team(stream, y.rows *y.cols))
    for (int64_t i = 0; i < y.rows; i++)
        scale_span(row(y, i), row(x, i), (real)s, y.cols);
    return KR_OK;
}

/* Each piece owns a stripe of columns and walks down all rows: the order of the sum is
 * that of the rows. */
kr_status CPU(sum_rows)(void *stream, struct kern_mat db, struct kern_mat dy, bool add)
{
#pragma omp parallel for num_threads(team(stream, dy.rows *dy.cols))
    for (int64_t c = 0; c < dy.cols; c += STRIPE) {
        int64_t n = dy.cols - c < STRIPE ? dy.cols - c : STRIPE;
        real sum[STRIPE] = { 0 };

        for (int64_t i = 0; i < dy.rows; i++)
            add_span(sum, sum, row(dy, i) + c, n);
        for (int64_t k = 0; k < n; k++)
            row(db, 0)[c + k] = add ? row(db, 0)[c + k] + sum[k] : sum[k];
    }
    return KR_OK;
}
