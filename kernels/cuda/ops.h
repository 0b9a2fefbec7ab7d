/* ops.h - the entries of the CUDA table; what they do stands in kernels.h. */
#ifndef KERN_CUDA_OPS_H
#define KERN_CUDA_OPS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

kr_status cuda_fill(void *stream, struct kern_mat y, double value);
kr_status cuda_copy(void *stream, struct kern_mat y, struct kern_mat x);
kr_status cuda_add(void *stream, struct kern_mat y, struct kern_mat a, struct kern_mat b);
kr_status cuda_scale(void *stream, struct kern_mat y, struct kern_mat x, double s);
kr_status cuda_add_round(void *stream, struct kern_mat y, struct kern_mat a,
                         struct kern_mat b, const struct kern_round *r);
kr_status cuda_matmul(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add);
kr_status cuda_sum_rows(void *stream, struct kern_mat db, struct kern_mat dy, bool add);
kr_status cuda_linear_fwd(void *stream, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, struct kern_mat onto);
/* y += b, for products that another library makes */
kr_status cuda_add_bias(void *stream, struct kern_mat y, struct kern_mat b);
kr_status cuda_embed_fwd(void *stream, struct kern_mat x, const int32_t *token,
                         struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                         const int32_t *start);
kr_status cuda_embed_bwd(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                         const int32_t *token, struct kern_mat dx, int64_t seq,
                         const int32_t *start);
kr_status cuda_norm_fwd(void *stream, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps);
kr_status cuda_norm_bwd(void *stream, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats);
kr_status cuda_act_fwd(void *stream, enum kern_act kind, struct kern_mat y,
                       struct kern_mat u);
kr_status cuda_linear_act_fwd(void *stream, enum kern_act kind, struct kern_mat y,
                              struct kern_mat u, struct kern_mat x, struct kern_mat w,
                              struct kern_mat b);
kr_status cuda_act_bwd(void *stream, enum kern_act kind, struct kern_mat du,
                       struct kern_mat dy, struct kern_mat u);
kr_status cuda_rope(void *stream, struct kern_mat x, struct kern_mat table, int64_t heads,
                    int64_t head_dim, int64_t seq, enum kern_pairing pairing,
                    bool inverse);
kr_status cuda_attention_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                             struct kern_mat qkv, const struct kern_heads *h);
kr_status cuda_attention_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                             struct kern_mat dout, struct kern_mat qkv,
                             struct kern_mat out, struct kern_mat lse,
                             const struct kern_heads *h);
kr_status cuda_cross_entropy(void *stream, struct kern_mat loss, struct kern_mat dlogits,
                             struct kern_mat logits, const int32_t *label,
                             double grad_scale);
kr_status cuda_sum(void *stream, double *out, struct kern_mat x);
kr_status cuda_sumsq(void *stream, double *out, struct kern_mat x);
kr_status cuda_checksum(void *stream, uint64_t *out, struct kern_mat x);
kr_status cuda_adamw(void *stream, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                     const struct kern_adamw *p);

extern const struct kern_ops cuda_table;

/* Bytes of cuda_scratch that an entry asks for; each stands beside the entry, which asks for
 * what its function says.  cuda_scratch_of (scratch.c): of a call. */
size_t cuda_scratch_of(enum kern_dtype type, const struct kern_whose *whose,
                       const struct kern_call *call);
size_t gemm_bf16_scratch(int64_t rows, int64_t cols, int64_t inner);
size_t cuda_sum_rows_scratch(int64_t rows, int64_t cols);
size_t cuda_norm_bwd_scratch(int64_t rows, int64_t cols);
size_t cuda_embed_bwd_scratch(int64_t rows, int64_t cols);
size_t cuda_attention_bwd_scratch(bool hopper, const struct kern_call *call);
size_t cuda_sum_scratch(int64_t n);
size_t cuda_checksum_scratch(int64_t words);

#ifdef __cplusplus
}
#endif
#endif
