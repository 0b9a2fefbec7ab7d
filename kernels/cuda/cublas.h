/*
 * cublas.h - matrix products by the vendor's library, for kernels.matmul = cublas.
 *
 * The library is opened at run time, so that a program that never asks for it does not
 * need it.  It is the yardstick of our own kernels, and the way out if one of them fails.
 */
#ifndef KERN_CUDA_CUBLAS_H
#define KERN_CUDA_CUBLAS_H

#include <cuda_runtime_api.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_blas; /* opaque; for one GPU */

/* [local] KR_ERR_DEVICE with one line where the library is missing or does not start. */
kr_status cuda_blas_open(struct cuda_blas **out);
void cuda_blas_close(struct cuda_blas *b);                 /* NULL is fine */
const char *cuda_blas_describe(const struct cuda_blas *b); /* "cuBLAS 13.1" */

/* [queued] As the entry matmul of the table; not for several threads at once. */
kr_status cuda_blas_matmul(struct cuda_blas *b, cudaStream_t stream, struct kern_mat c,
                           struct kern_mat left, bool ta, struct kern_mat right, bool tb,
                           bool add);

#ifdef __cplusplus
}
#endif
#endif
