/* scratch.c - what a queue keeps for the operations of a step: a table of who asks. */
#include "kernels/cuda/ops.h"

/* What cuBLAS takes for itself: its default on a Hopper, the most of any GPU (its manual,
 * cublasSetWorkspace). */
enum { BLAS_BYTES = 32 << 20 };

/* As set_hopper has it, on a GPU that is not known: it may be a Hopper. */
static bool may_be_hopper(enum kern_dtype type, const struct kern_whose *whose)
{
    return whose->hopper != KERN_HOPPER_OFF && type == KERN_BF16;
}

/* Hopper's products ask for nothing, but do not take every shape. */
static size_t matmul(enum kern_dtype type, const struct kern_whose *whose,
                     const struct kern_call *c)
{
    if (whose->matmul == KERN_MATMUL_CUBLAS) return BLAS_BYTES;
    return type == KERN_BF16 ? gemm_bf16_scratch(c->rows, c->cols, c->inner) : 0;
}

size_t cuda_scratch_of(enum kern_dtype type, const struct kern_whose *whose,
                       const struct kern_call *c)
{
    switch (c->operation) {
    case KERN_CALL_MATMUL: return matmul(type, whose, c);
    case KERN_CALL_SUM_ROWS: return cuda_sum_rows_scratch(c->rows, c->cols);
    case KERN_CALL_NORM_BWD: return cuda_norm_bwd_scratch(c->rows, c->cols);
    case KERN_CALL_EMBED_BWD: return cuda_embed_bwd_scratch(c->rows, c->cols);
    case KERN_CALL_ATTENTION_BWD:
        return cuda_attention_bwd_scratch(may_be_hopper(type, whose), c);
    case KERN_CALL_SUM: return cuda_sum_scratch(c->cols);
    case KERN_CALL_CHECKSUM: return cuda_checksum_scratch(c->cols);
    }
    return 0;
}
