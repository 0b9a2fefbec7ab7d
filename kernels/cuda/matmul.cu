/* matmul.cu - who multiplies: the library if it was asked for, else our kernels. */
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/num.cuh"

static kr_status own(void *stream, const product &p)
{
    return p.a.type == KERN_BF16 ? gemm_bf16(stream, p) : gemm_f32(stream, p);
}

static kr_status by_library(void *stream, struct cuda_blas *blas, const product &p)
{
    TRY(cuda_ready(stream));
    TRY(cuda_blas_matmul(blas, cuda_handle(stream), p.c, p.a, p.ta, p.b, p.tb, p.add));
    TRY(cuda_ran(stream, "matmul"));
    return p.bias.at ? cuda_add_bias(stream, p.c, p.bias) : KR_OK;
}

static kr_status run(void *stream, const product &p)
{
    struct cuda_blas *blas = cuda_blas_of(stream);

    if (p.c.rows == 0 || p.c.cols == 0) return KR_OK;
    return blas && p.inner() > 0 ? by_library(stream, blas, p) : own(stream, p);
}

kr_status cuda_matmul(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add)
{
    const product p = { c, a, b, kern_none, ta, tb, add };

    return run(stream, p);
}

kr_status cuda_linear_fwd(void *stream, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, bool add)
{
    const product p = { y, x, w, b, false, true, add };

    return run(stream, p);
}
