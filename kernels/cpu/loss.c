/* loss.c - cross entropy of each row, and its gradient, in two or three passes. */
#include "kernels/cpu/ops.h"

static real max_of(const real *x, int64_t n)
{
    real most = x[0];

#pragma omp simd reduction(max : most)
    for (int64_t c = 0; c < n; c++)
        most = x[c] > most ? x[c] : most;
    return most;
}

static real sum_exp(const real *x, real most, int64_t n)
{
    real sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++)
        sum += exp_real(x[c] - most);
    return sum;
}

static void grad_row(real *d, const real *x, real log_sum, real scale, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++)
        d[c] = scale * exp_real(x[c] - log_sum);
}

kr_status CPU(cross_entropy)(void *stream, struct kern_mat loss, struct kern_mat dlogits,
                             struct kern_mat logits, const int32_t *label,
                             double grad_scale)
{
#pragma omp parallel for num_threads(team(stream, logits.rows *logits.cols))
    for (int64_t i = 0; i < logits.rows; i++) {
        const real *x = row(logits, i);
        bool counts = label[i] != KERN_IGNORE;
        real most = max_of(x, logits.cols);
        real log_sum = most + (real)log((double)sum_exp(x, most, logits.cols));

        row(loss, 0)[i] = counts ? log_sum - x[label[i]] : 0;
        if (!dlogits.at) continue;
        grad_row(row(dlogits, i), x, log_sum, counts ? (real)grad_scale : 0, logits.cols);
        if (counts) row(dlogits, i)[label[i]] -= (real)grad_scale;
    }
    return KR_OK;
}
