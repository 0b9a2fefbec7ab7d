/* sm90_gemm_nt.cu - forward: x and w of y = x w^T, both along the inner dimension. */
#include "kernels/cuda/sm90_gemm_run.cuh"

kr_status sm90_gemm_nt(void *stream, const product &p)
{
    return gemm_run<false, true, GEMM_BF16>(stream, p, kern_none);
}
