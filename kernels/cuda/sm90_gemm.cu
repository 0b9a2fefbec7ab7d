/* sm90_gemm.cu - which products Hopper's kernels take, and which of them computes one. */
#include "kernels/cuda/sm90_gemm_run.cuh"

static const struct {
    bool ta, tb;
    enum kern_dtype type; /* of c */
    kr_status (*run)(void *stream, const product &p);
} kinds[] = {
    { false, true, KERN_BF16, sm90_gemm_nt },
    { false, false, KERN_BF16, sm90_gemm_nn },
    { true, false, KERN_F32, sm90_gemm_tn },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int kind_of(const product &p)
{
    int k = 0;

    while (k < KINDS &&
           (kinds[k].ta != p.ta || kinds[k].tb != p.tb || kinds[k].type != p.c.type))
        k++;
    return k;
}

static bool takes_output(const product &p)
{
    if (p.c.type == KERN_BF16)
        return tensor_box_takes(p.c) && (uintptr_t)p.bias.at % 4 == 0 &&
               is_aligned(p.onto, 4);
    return is_aligned(p.c, 16) && !p.bias.at; /* onto is c or none: cuda_matmul */
}

bool sm90_gemm_takes(void *stream, const product &p)
{
    return cuda_hopper(stream) && kind_of(p) < KINDS && tensor_box_takes(p.a) &&
           tensor_box_takes(p.b) && takes_output(p);
}

kr_status sm90_gemm(void *stream, const product &p)
{
    return kinds[kind_of(p)].run(stream, p);
}
