/* embed.c - look rows up, add rows back. */
#include "kernels/cpu/ops.h"

enum { STRIPE = 64 /* columns that one piece of the backward owns */ };

static int64_t place(const int32_t *start, int64_t n, int64_t seq)
{
    return start ? n - start[n] : n % seq;
}

kr_status CPU(embed_fwd)(void *stream, struct kern_mat x, const int32_t *token,
                         struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                         const int32_t *start)
{
#pragma omp parallel for num_threads(team(stream, x.rows *x.cols))
    for (int64_t n = 0; n < x.rows; n++) {
        real *y = row(x, n);
        const real *e = row(wte, token[n]);

        memcpy(y, e, (size_t)x.cols * sizeof(real));
        if (!wpe.at) continue;
        for (int64_t c = 0; c < x.cols; c++)
            y[c] += row(wpe, place(start, n, seq))[c];
    }
    return KR_OK;
}

/* Two tokens may be the same, so rows are added one after the other; pieces share out
 * the columns. */
kr_status CPU(embed_bwd)(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                         const int32_t *token, struct kern_mat dx, int64_t seq,
                         const int32_t *start)
{
#pragma omp parallel for num_threads(team(stream, dx.rows *dx.cols))
    for (int64_t c = 0; c < dx.cols; c += STRIPE) {
        int64_t end = c + STRIPE < dx.cols ? c + STRIPE : dx.cols;

        for (int64_t n = 0; n < dx.rows; n++) {
            const real *g = row(dx, n);
            real *e = row(dwte, token[n]);

            for (int64_t k = c; k < end; k++)
                e[k] += g[k];
            if (!dwpe.at) continue;
            for (int64_t k = c; k < end; k++)
                row(dwpe, place(start, n, seq))[k] += g[k];
        }
    }
    return KR_OK;
}
