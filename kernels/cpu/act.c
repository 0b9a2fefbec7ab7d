/*
 * act.c - GELU (tanh form) and SwiGLU.
 *
 * (1 + tanh z) / 2 is sigmoid(2 z), so both need one exponential per element.
 */
#include "kernels/cpu/ops.h"

#define ROOT_2_OVER_PI 0.79788456080286535588

/* sigmoid(2 z), z = sqrt(2/pi) (u + 0.044715 u^3) */
static inline real gate_of(real u)
{
    return sigmoid((real)(2 * ROOT_2_OVER_PI) * (u + (real)0.044715 * u * u * u));
}

static void gelu_row(real *y, const real *u, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++)
        y[c] = u[c] * gate_of(u[c]);
}

static void swiglu_row(real *y, const real *gate, const real *up, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++)
        y[c] = gate[c] * sigmoid(gate[c]) * up[c];
}

kr_status CPU(act_fwd)(void *stream, enum kern_act kind, struct kern_mat y,
                       struct kern_mat u)
{
#pragma omp parallel for num_threads(team(stream, u.rows *u.cols))
    for (int64_t i = 0; i < y.rows; i++) {
        if (kind == KERN_GELU_TANH)
            gelu_row(row(y, i), row(u, i), y.cols);
        else
            swiglu_row(row(y, i), row(u, i), row(u, i) + y.cols, y.cols);
    }
    return KR_OK;
}

static void gelu_row_bwd(real *du, const real *dy, const real *u, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        real s = gate_of(u[c]), slope = 1 + (real)0.134145 * u[c] * u[c];

        du[c] = dy[c] * (s + u[c] * s * (1 - s) * (real)(2 * ROOT_2_OVER_PI) * slope);
    }
}

static void swiglu_row_bwd(real *dgate, real *dup, const real *dy, const real *gate,
                           const real *up, int64_t n)
{
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        real g = gate[c], u = up[c], s = sigmoid(g);

        dgate[c] = dy[c] * u * s * (1 + g * (1 - s));
        dup[c] = dy[c] * g * s;
    }
}

kr_status CPU(act_bwd)(void *stream, enum kern_act kind, struct kern_mat du,
                       struct kern_mat dy, struct kern_mat u)
{
#pragma omp parallel for num_threads(team(stream, u.rows *u.cols))
    for (int64_t i = 0; i < dy.rows; i++) {
        if (kind == KERN_GELU_TANH)
            gelu_row_bwd(row(du, i), row(dy, i), row(u, i), dy.cols);
        else
            swiglu_row_bwd(row(du, i), row(du, i) + dy.cols, row(dy, i), row(u, i),
                           row(u, i) + dy.cols, dy.cols);
    }
    return KR_OK;
}
