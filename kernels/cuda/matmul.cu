/* matmul.cu - who multiplies: the first of a list that takes the product. */
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/sm90.h"

static bool library_takes(void *stream, const product &p)
{
    return cuda_blas_of(stream) && p.inner() > 0;
}

static kr_status by_library(void *stream, const product &p)
{
    TRY(cuda_ready(stream));
    if (p.onto.at && p.onto.at != p.c.at) TRY(cuda_copy(stream, p.c, p.onto));
    TRY(cuda_blas_matmul(cuda_blas_of(stream), cuda_handle(stream), p.c, p.a, p.ta, p.b,
                         p.tb, p.onto.at != NULL));
    TRY(cuda_ran(stream, "matmul"));
    return p.bias.at ? cuda_add_bias(stream, p.c, p.bias) : KR_OK;
}

static bool is_bf16(void *, const product &p) { return p.a.type == KERN_BF16; }
static bool is_rest(void *, const product &) { return true; }

static const struct {
    bool (*takes)(void *stream, const product &p);
    kr_status (*run)(void *stream, const product &p);
} makers[] = {
    { library_takes, by_library },
    { sm90_gemm_takes, sm90_gemm },
    { is_bf16, gemm_bf16 },
    { is_rest, gemm_f32 },
};

static kr_status run(void *stream, const product &p)
{
    int i = 0;

    if (p.c.rows == 0 || p.c.cols == 0) return KR_OK;
    while (!makers[i].takes(stream, p))
        i++;
    return makers[i].run(stream, p);
}

kr_status cuda_matmul(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add)
{
    const product p = { c, a, b, kern_none, add ? c : kern_none, ta, tb };

    return run(stream, p);
}

kr_status cuda_linear_fwd(void *stream, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, struct kern_mat onto)
{
    const product p = { y, x, w, b, onto, false, true };

    return run(stream, p);
}

kr_status cuda_linear_act_fwd(void *stream, enum kern_act kind, struct kern_mat y,
                              struct kern_mat u, struct kern_mat x, struct kern_mat w,
                              struct kern_mat b)
{
    const product p = { y, x, w, b, kern_none, false, true };

    if (!cuda_blas_of(stream) && sm90_gemm_act_takes(stream, kind, p, u))
        return sm90_gemm_act(stream, kind, p, u);
    TRY(cuda_linear_fwd(stream, u, x, w, b, kern_none));
    return cuda_act_fwd(stream, kind, y, u);
}
