/*
 * sm90_tensor_map.h - what the copy engine must know of a matrix: where it lies, how large it
 * is, and the box it moves at a time.
 *
 * A tensor_box is plain numbers, made without a GPU; tensor_map_encode turns it into the
 * form the hardware takes.  All boxes are PANEL_COLS wide (128 bytes, swizzled: sm90_layout.h)
 * except that reads beyond the matrix give zeros and writes there are dropped.
 */
#ifndef KERN_CUDA_SM90_TENSOR_MAP_H
#define KERN_CUDA_SM90_TENSOR_MAP_H

#include "kernels/cuda/sm90_layout.h"
#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUtensorMap_st; /* CUtensorMap of cuda.h */

/* Columns, rows, and sequences for heads (else depth is 1 and rank 2). */
struct tensor_box {
    void *at;
    int32_t rank;
    uint64_t cols, rows, depth;
    uint64_t row_bytes, depth_bytes;
    uint32_t box_rows;
};

/* Can the copy engine move it?  bf16, 16-byte aligned, rows a multiple of 8 apart. */
static inline bool tensor_box_takes(struct kern_mat m)
{
    return m.type == KERN_BF16 && m.at && (uintptr_t)m.at % 16 == 0 && m.ld % 8 == 0 &&
           m.rows >= 1 && m.cols >= 1 && m.rows <= INT32_MAX && m.cols <= INT32_MAX;
}

/* The whole matrix. */
static inline struct tensor_box tensor_box(struct kern_mat m, uint32_t box_rows)
{
    return (struct tensor_box){
        .at = m.at,
        .rank = 2,
        .cols = (uint64_t)m.cols,
        .rows = (uint64_t)m.rows,
        .depth = 1,
        .row_bytes = (uint64_t)m.ld * 2,
        .depth_bytes = (uint64_t)(m.ld * m.rows) * 2,
        .box_rows = box_rows,
    };
}

/* Sequences of seq rows each, so that a box never reaches into the next sequence. */
static inline struct tensor_box tensor_box_heads(struct kern_mat m, int64_t seq,
                                                 uint32_t box_rows)
{
    struct tensor_box b = tensor_box(m, box_rows);

    b.rank = 3;
    b.rows = (uint64_t)seq;
    b.depth = (uint64_t)(m.rows / seq);
    b.depth_bytes = (uint64_t)(m.ld * seq) * 2;
    return b;
}

/* [local] Find the driver's function, once, before any box.  KR_ERR_DEVICE with one line:
 * it has none. */
kr_status tensor_map_start(void);

/* [local] KR_ERR_DEVICE with one line: the driver refuses the box. */
kr_status tensor_map_encode(struct CUtensorMap_st *out, struct tensor_box b);

#ifdef __cplusplus
}
#endif
#endif
