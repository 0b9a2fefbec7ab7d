/* table.c - the table of both CUDA devices; its entries look at the types themselves. */
#include "kernels/cuda/ops.h"

const struct kern_ops cuda_table = {
    .name = "cuda",
    .fill = cuda_fill,
    .copy = cuda_copy,
    .add = cuda_add,
    .scale = cuda_scale,
    .add_round = cuda_add_round,
    .matmul = cuda_matmul,
    .sum_rows = cuda_sum_rows,
    .linear_fwd = cuda_linear_fwd,
    .embed_fwd = cuda_embed_fwd,
    .embed_bwd = cuda_embed_bwd,
    .norm_fwd = cuda_norm_fwd,
    .norm_bwd = cuda_norm_bwd,
    .act_fwd = cuda_act_fwd,
    .linear_act_fwd = cuda_linear_act_fwd,
    .act_bwd = cuda_act_bwd,
    .rope = cuda_rope,
    .attention_fwd = cuda_attention_fwd,
    .attention_bwd = cuda_attention_bwd,
    .cross_entropy = cuda_cross_entropy,
    .sum = cuda_sum,
    .sumsq = cuda_sumsq,
    .checksum = cuda_checksum,
    .adamw = cuda_adamw,
};
