/*
 * cpu.h - shared by the files of the CPU back end.
 *
 * Each file of kernels/cpu is compiled twice, with KERN_REAL_IS_DOUBLE unset ("cpu",
 * float) and set ("cpu64", double): one text, two precisions, so that gradients can be
 * checked against finite differences without float rounding.  Functions are named with
 * CPU(name), which makes cpu_name or cpu64_name of it; `real` is the type.
 *
 * Threads: an operation is cut into pieces by its shape alone, never by the number of
 * threads, and each output element is computed by one piece in a fixed order.  So the
 * bits do not depend on the number of threads.  `omp simd reduction` splits a sum into
 * as many lanes as the compiled code has: fixed for a given binary.
 */
#ifndef KERN_CPU_H
#define KERN_CPU_H

#include <math.h>
#include <string.h>

#include "kernels/host.h"

#ifdef KERN_REAL_IS_DOUBLE
typedef double real;
#define CPU(name) cpu64_##name
#define KERN_REAL KERN_F64
#else
typedef float real;
#define CPU(name) cpu_##name
#define KERN_REAL KERN_F32
#endif

/* First element of row i. */
static inline real *row(struct kern_mat m, int64_t i) { return (real *)m.at + i * m.ld; }

/* Threads for an operation on so many elements; small ones are not worth waking anyone. */
static inline int team(void *stream, int64_t elements)
{
    return elements < 16384 ? 1 : host_threads(stream);
}

#ifdef KERN_REAL_IS_DOUBLE
static inline double exp_real(double x) { return exp(x); }
#else
/*
 * e^x to about 1 ulp, in a form that vectorises: x = n ln 2 + r, |r| <= ln 2 / 2, a
 * polynomial for e^r, 2^n by its bits.  0 below -87.3; not meant for x above 88.
 */
static inline float exp_real(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float t = x * 1.44269504f + shift, n = t - shift, p;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    union {
        float f;
        int32_t i;
    } bits = { t }, scale;

    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    scale.i = (int32_t)(((uint32_t)bits.i + 127u) << 23);
    return x < -87.3f ? 0.0f : p * scale.f;
}
#endif

/* 1 / (1 + e^-x), for any finite x. */
static inline real sigmoid(real x)
{
    real e = exp_real(x > 0 ? -x : x);

    return (x > 0 ? (real)1 : e) / (1 + e);
}

#endif
