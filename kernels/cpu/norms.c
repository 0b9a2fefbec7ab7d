/*
 * norms.c - LayerNorm and RMSNorm.
 *
 * Rows are independent in the forward and for dx.  dw and db are sums over all rows:
 * pieces own stripes of columns and walk down the rows in order.
 */
#include "kernels/cpu/ops.h"

enum { STRIPE = 64 };

static real mean_of(const real *x, int64_t n)
{
    real sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++)
        sum += x[c];
    return sum / (real)n;
}

/* mean of (x - m)^2 */
static real spread(const real *x, real m, int64_t n)
{
    real sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++)
        sum += (x[c] - m) * (x[c] - m);
    return sum / (real)n;
}

kr_status CPU(norm_fwd)(void *stream, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps)
{
    const real *weight = row(w, 0), *bias = b.at ? row(b, 0) : NULL;

#pragma omp parallel for num_threads(team(stream, x.rows *x.cols))
    for (int64_t i = 0; i < x.rows; i++) {
        const real *in = row(x, i);
        real *out = row(y, i);
        real m = kind == KERN_LAYERNORM ? mean_of(in, x.cols) : 0;
        real r = 1 / (real)sqrt((double)spread(in, m, x.cols) + eps);

        row(stats, 0)[i] = m;
        row(stats, 1)[i] = r;
        if (bias) {
#pragma omp simd
            for (int64_t c = 0; c < x.cols; c++)
                out[c] = (in[c] - m) * r * weight[c] + bias[c];
        } else {
#pragma omp simd
            for (int64_t c = 0; c < x.cols; c++)
                out[c] = (in[c] - m) * r * weight[c];
        }
    }
    return KR_OK;
}

/* dw and db for one stripe of columns. */
static void weight_stripe(struct kern_mat dw, struct kern_mat db, bool add,
                          struct kern_mat dy, struct kern_mat x, struct kern_mat stats,
                          int64_t c, int64_t n)
{
    real sw[STRIPE] = { 0 }, sb[STRIPE] = { 0 };

    for (int64_t i = 0; i < x.rows; i++) {
        const real *g = row(dy, i) + c, *in = row(x, i) + c;
        real m = row(stats, 0)[i], r = row(stats, 1)[i];

#pragma omp simd
        for (int64_t k = 0; k < n; k++) {
            sw[k] += g[k] * ((in[k] - m) * r);
            sb[k] += g[k];
        }
    }
    for (int64_t k = 0; k < n; k++) {
        real *w = row(dw, 0) + c + k;

        *w = add ? *w + sw[k] : sw[k];
        if (!db.at) continue;
        w = row(db, 0) + c + k;
        *w = add ? *w + sb[k] : sb[k];
    }
}

static void input_row(enum kern_norm kind, real *dx, bool add, const real *dy,
                      const real *x, const real *w, real m, real r, int64_t n)
{
    real mean_g = 0, mean_gx = 0;

#pragma omp simd reduction(+ : mean_g, mean_gx)
    for (int64_t c = 0; c < n; c++) {
        real g = dy[c] * w[c];

        mean_g += g;
        mean_gx += g * ((x[c] - m) * r);
    }
    mean_g = kind == KERN_LAYERNORM ? mean_g / (real)n : 0;
    mean_gx /= (real)n;
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        real v = r * (dy[c] * w[c] - mean_g - (x[c] - m) * r * mean_gx);

        dx[c] = add ? dx[c] + v : v;
    }
}

kr_status CPU(norm_bwd)(void *stream, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats)
{
    /* weights first: dx may be dy */
#pragma omp parallel for num_threads(team(stream, x.rows *x.cols))
    for (int64_t c = 0; c < (dw.at ? x.cols : 0); c += STRIPE)
        weight_stripe(dw, db, add_dw, dy, x, stats, c,
                      x.cols - c < STRIPE ? x.cols - c : STRIPE);
#pragma omp parallel for num_threads(team(stream, x.rows *x.cols))
    for (int64_t i = 0; i < x.rows; i++)
        input_row(kind, row(dx, i), add_dx, row(dy, i), row(x, i), row(w, 0),
                  row(stats, 0)[i], row(stats, 1)[i], x.cols);
    return KR_OK;
}
