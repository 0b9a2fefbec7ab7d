/* sm90_gemm_tn.cu - gradient of the weights, in fp32: both operands as they lie. */
#include "kernels/cuda/sm90_gemm_run.cuh"

kr_status sm90_gemm_tn(void *stream, const product &p)
{
    return gemm_run<true, false, GEMM_F32>(stream, p, kern_none);
}
