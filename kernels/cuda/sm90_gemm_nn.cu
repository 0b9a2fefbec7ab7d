/* sm90_gemm_nn.cu - gradient of the data: weights as they lie. */
#include "kernels/cuda/sm90_gemm_run.cuh"

kr_status sm90_gemm_nn(void *stream, const product &p)
{
    return gemm_run<false, false, GEMM_BF16>(stream, p, kern_none);
}
