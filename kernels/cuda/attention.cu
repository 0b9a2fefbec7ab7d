/* attention.cu - which kernels compute attention; dout . out, which all of them need. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/sm90.h"

enum { WARPS = 4 };

/* delta[head, n] = dout . out over the channels of a head; a warp does one. */
template <typename T>
static __global__ void __launch_bounds__(WARPS *WARP)
    delta_kernel(view<float> delta, view<T> dout, view<T> out, int64_t heads,
                 int64_t head_dim)
{
    const int64_t n = blockIdx.x;
    const int lane = threadIdx.x % WARP;

    for (int64_t h = threadIdx.x / WARP; h < heads; h += WARPS) {
        const T *a = dout.row(n) + h * head_dim, *b = out.row(n) + h * head_dim;
        float sum = 0;

        for (int64_t c = lane; c < head_dim; c += WARP)
            sum += wide(a[c]) * wide(b[c]);
        sum = warp_sum(sum);
        if (lane == 0) delta.row(h)[n] = sum;
    }
}

template <typename T>
static kr_status dot_rows(void *stream, struct kern_mat delta, struct kern_mat dout,
                          struct kern_mat out, const struct kern_heads *h)
{
    return launch(stream, "attention_bwd", delta_kernel<T>, dim3((unsigned)out.rows),
                  WARPS * WARP, 0, view_of<float>(delta), view_of<T>(dout),
                  view_of<T>(out), h->heads, h->head_dim);
}

static kr_status too_wide(const struct kern_heads *h)
{
    if (h->head_dim <= ATTENTION_WIDEST) return KR_OK;
    return KR_FAIL(KR_ERR_ARG, "attention: heads of %lld channels; a GPU takes up to %d",
                   (long long)h->head_dim, ATTENTION_WIDEST);
}

static bool fits_mma(const struct kern_heads *h, struct kern_mat a, struct kern_mat b)
{
    return a.type == KERN_BF16 && (h->head_dim == 64 || h->head_dim == 128) &&
           is_aligned(a, 16) && is_aligned(b, 16);
}

kr_status cuda_attention_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                             struct kern_mat qkv, const struct kern_heads *h)
{
    if (sm90_attention_takes(stream, qkv, out, h))
        return sm90_attention_fwd(stream, out, lse, qkv, h);
    if (fits_mma(h, qkv, out))
        return attention_mma_fwd(stream, out, lse, qkv, heads_of(h));
    TRY(too_wide(h));
    return attention_any_fwd(stream, out, lse, qkv, heads_of(h));
}

kr_status cuda_attention_bwd(void *stream, struct kern_mat dqkv, struct kern_mat delta,
                             struct kern_mat dout, struct kern_mat qkv,
                             struct kern_mat out, struct kern_mat lse,
                             const struct kern_heads *h)
{
    TRY(too_wide(h));
    TRY(BY_TYPE(out.type, dot_rows, stream, delta, dout, out, h));
    if (sm90_attention_takes(stream, qkv, dout, h) &&
        sm90_attention_takes(stream, dqkv, dout, h))
        return sm90_attention_bwd(stream, dqkv, delta, dout, qkv, lse, h);
    if (fits_mma(h, qkv, dout) && is_aligned(dqkv, 16))
        return attention_mma_bwd(stream, dqkv, delta, dout, qkv, lse, heads_of(h));
    return attention_any_bwd(stream, dqkv, delta, dout, qkv, lse, heads_of(h));
}
