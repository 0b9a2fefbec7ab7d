/* ops.h - the entries of the CPU tables; what they do stands in kernels.h. */
#ifndef KERN_CPU_OPS_H
#define KERN_CPU_OPS_H

#include "kernels/cpu/cpu.h"

kr_status CPU(fill)(void *stream, struct kern_mat y, double value);
kr_status CPU(copy)(void *stream, struct kern_mat y, struct kern_mat x);
kr_status CPU(add)(void *stream, struct kern_mat y, struct kern_mat a, struct kern_mat b);
kr_status CPU(scale)(void *stream, struct kern_mat y, struct kern_mat x, double s);
kr_status CPU(add_round)(void *stream, struct kern_mat y, struct kern_mat a,
                         struct kern_mat b, const struct kern_round *r);
kr_status CPU(matmul)(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add);
kr_status CPU(sum_rows)(void *stream, struct kern_mat db, struct kern_mat dy, bool add);
kr_status CPU(linear_fwd)(void *stream, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, struct kern_mat onto);
kr_status CPU(embed_fwd)(void *stream, struct kern_mat x, const int32_t *token,
                         struct kern_mat wte, struct kern_mat wpe, int64_t seq,
                         const int32_t *start);
kr_status CPU(embed_bwd)(void *stream, struct kern_mat dwte, struct kern_mat dwpe,
                         const int32_t *token, struct kern_mat dx, int64_t seq,
                         const int32_t *start);
kr_status CPU(norm_fwd)(void *stream, enum kern_norm kind, struct kern_mat y,
                        struct kern_mat stats, struct kern_mat x, struct kern_mat w,
                        struct kern_mat b, double eps);
kr_status CPU(norm_bwd)(void *stream, enum kern_norm kind, struct kern_mat dx,
                        bool add_dx, struct kern_mat dw, struct kern_mat db, bool add_dw,
                        struct kern_mat dy, struct kern_mat x, struct kern_mat w,
                        struct kern_mat stats);
kr_status CPU(act_fwd)(void *stream, enum kern_act kind, struct kern_mat y,
                       struct kern_mat u);
kr_status CPU(act_bwd)(void *stream, enum kern_act kind, struct kern_mat du,
                       struct kern_mat dy, struct kern_mat u);
kr_status CPU(rope)(void *stream, struct kern_mat x, struct kern_mat table, int64_t heads,
                    int64_t head_dim, int64_t seq, enum kern_pairing pairing,
                    bool inverse);
kr_status CPU(attention_fwd)(void *stream, struct kern_mat out, struct kern_mat lse,
                             struct kern_mat qkv, const struct kern_heads *h);
kr_status CPU(attention_bwd)(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                             struct kern_mat dout, struct kern_mat qkv,
                             struct kern_mat out, struct kern_mat lse,
                             const struct kern_heads *h);
kr_status CPU(cross_entropy)(void *stream, struct kern_mat loss, struct kern_mat dlogits,
                             struct kern_mat logits, const int32_t *label,
                             double grad_scale);
kr_status CPU(sum)(void *stream, double *out, struct kern_mat x);
kr_status CPU(sumsq)(void *stream, double *out, struct kern_mat x);
kr_status CPU(checksum)(void *stream, uint64_t *out, struct kern_mat x);
kr_status CPU(adamw)(void *stream, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                     const struct kern_adamw *p);

#endif
