/* sm90_gemm_act.cu - forward with the activation that follows, in the epilogue. */
#include "kernels/cuda/sm90_gemm_run.cuh"

bool sm90_gemm_act_takes(void *stream, enum kern_act kind, const product &p,
                         struct kern_mat u)
{
    return sm90_gemm_takes(stream, p) && tensor_box_takes(u) &&
           (kind == KERN_GELU_TANH || (!p.bias.at && p.c.cols % 128 == 0));
}

kr_status sm90_gemm_act(void *stream, enum kern_act kind, const product &p,
                        struct kern_mat u)
{
    return kind == KERN_GELU_TANH ? gemm_run<false, true, GEMM_GELU>(stream, p, u)
                                  : gemm_run<false, true, GEMM_SWIGLU>(stream, p, u);
}
