/*
 * blas.h - the library that multiplies matrices on the CPU.
 *
 * The library is opened at run time, because it must be told which processor it runs on
 * before it loads: OpenBLAS 0.3.21 takes its AVX2 kernels on AMD processors with AVX-512
 * and then runs at half speed, unless OPENBLAS_CORETYPE=SkylakeX is set.  We set it where
 * the processor has AVX-512, is AMD's and the user has not chosen.
 *
 * KILORANK_BLAS=openblas|dnnl chooses the library; the default is OpenBLAS (docs/speed.md
 * has the measurements; `kilorank bench matmul` repeats them).  Every call runs on the
 * calling thread alone: threads are ours, so that the bits do not depend on their number.
 */
#ifndef KERN_CPU_BLAS_H
#define KERN_CPU_BLAS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Load the library once per process.  KR_ERR_DEVICE with the name of its package. */
kr_status blas_open(void);

/* "OpenBLAS 0.3.21 SkylakeX"; "" before blas_open. */
const char *blas_describe(void);

/* c (m, n) = alpha op(a) op(b) + beta c, row-major; ta: a is (k, m), tb: b is (n, k). */
void cpu_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
              float *c, int64_t ldc);
void cpu64_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha,
                const double *a, int64_t lda, const double *b, int64_t ldb, double beta,
                double *c, int64_t ldc);

/* For the benchmark: the same on the library's own threads. */
void blas_set_threads(int threads);

#endif
