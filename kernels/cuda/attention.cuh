/*
 * attention.cuh - what the attention kernels share: where heads lie, who sees whom.
 *
 * Exponentials are powers of two: scores, slopes and lse are kept in units of log2 e.
 */
#ifndef KERN_CUDA_ATTENTION_CUH
#define KERN_CUDA_ATTENTION_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/num.cuh"

#define LOG2_E 1.44269504088896340736f
#define LN_2   0.69314718055994530942f

/* The heads of all sequences, for kernels. */
struct heads {
    int64_t seq, heads, kv_heads, head_dim;
    float scale, scale2;  /* of a score; the same times log2 e */
    const float *slopes;  /* or NULL */
    const int32_t *start; /* or NULL */

    /* First key that query i of the sequence that begins at row `base` sees. */
    __device__ __forceinline__ int64_t first_seen(int64_t base, int64_t i) const
    {
        return start ? start[base + i] - base : 0;
    }
    __device__ __forceinline__ float slope2(int64_t head) const
    {
        return slopes ? slopes[head] * LOG2_E : 0.0f;
    }
    __host__ __device__ __forceinline__ int64_t group() const { return heads / kv_heads; }

    /* Columns of qkv (and dqkv) where a head begins. */
    __host__ __device__ __forceinline__ int64_t q_col(int64_t h) const
    {
        return h * head_dim;
    }
    __host__ __device__ __forceinline__ int64_t k_col(int64_t kv) const
    {
        return (heads + kv) * head_dim;
    }
    __host__ __device__ __forceinline__ int64_t v_col(int64_t kv) const
    {
        return (heads + kv_heads + kv) * head_dim;
    }
};

static inline heads heads_of(const struct kern_heads *h)
{
    return heads{ h->seq,      h->heads,        h->kv_heads,
                  h->head_dim, (float)h->scale, (float)h->scale * LOG2_E,
                  h->slopes,   h->start };
}

/* The matrices of a backward. */
template <typename T> struct backward {
    view<T> dqkv, dout, qkv;
    view<float> lse, delta;
};

/* Two implementations: tensor cores for bf16 heads of 64 and 128 in aligned matrices, and
 * one for everything up to heads of ATTENTION_WIDEST. */
enum { ATTENTION_WIDEST = 256 };
kr_status attention_mma_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                            struct kern_mat qkv, const heads &h);
kr_status attention_mma_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                            struct kern_mat dout, struct kern_mat qkv,
                            struct kern_mat lse, const heads &h);
kr_status attention_any_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                            struct kern_mat qkv, const heads &h);
kr_status attention_any_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                            struct kern_mat dout, struct kern_mat qkv,
                            struct kern_mat lse, const heads &h);

#endif
