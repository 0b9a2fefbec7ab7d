/* ops.c - the CPU tables and back ends. */
#include "kernels/cpu/ops.h"

#include <stdio.h>

#include "base/mem.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/table.h"

const struct kern_ops CPU(table) = {
    .name = "cpu",
    .fill = CPU(fill),
    .copy = CPU(copy),
    .add = CPU(add),
    .scale = CPU(scale),
    .add_round = CPU(add_round),
    .matmul = CPU(matmul),
    .sum_rows = CPU(sum_rows),
    .linear_fwd = CPU(linear_fwd),
    .embed_fwd = CPU(embed_fwd),
    .embed_bwd = CPU(embed_bwd),
    .norm_fwd = CPU(norm_fwd),
    .norm_bwd = CPU(norm_bwd),
    .act_fwd = CPU(act_fwd),
    .act_bwd = CPU(act_bwd),
    .rope = CPU(rope),
    .attention_fwd = CPU(attention_fwd),
    .attention_bwd = CPU(attention_bwd),
    .cross_entropy = CPU(cross_entropy),
    .sum = CPU(sum),
    .sumsq = CPU(sumsq),
    .checksum = CPU(checksum),
    .adamw = CPU(adamw),
};
