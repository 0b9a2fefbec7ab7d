/* attention.cu - which kernels compute attention; dout . out, which all of them need. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cells.cuh"
#include "kernels/cuda/sm90.h"

enum { WARPS = 4 };

static_assert((int)ATTENTION_WIDEST <= WARP * CELL, "a lane has a cell of a head");

/* delta[head, n] = dout . out over the channels of a head: a group of `lanes`, a power of
 * two, does one, each lane a cell of it. */
template <typename T>
static __global__ void __launch_bounds__(WARPS *WARP)
    delta_kernel(view<float> delta, cells<T> dout, cells<T> out, int64_t heads,
                 int64_t head_dim, int lanes)
{
    const int64_t n = blockIdx.x, step = WARPS * WARP / lanes;
    const int64_t c = threadIdx.x % lanes * CELL;

    /* lanes without a head go along, for all take part in the sum */
    for (int64_t first = 0, h = threadIdx.x / lanes; first < heads;
         first += step, h += step) {
        float a[CELL] = {}, b[CELL] = {}, sum = 0;

        if (h < heads && c < head_dim) {
            dout.part(h * head_dim, head_dim).load(a, n, c);
            out.part(h * head_dim, head_dim).load(b, n, c);
        }
#pragma unroll
        for (int k = 0; k < CELL; k++)
            sum += a[k] * b[k];
        for (int far = lanes / 2; far > 0; far /= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, far);
        if (h < heads && c == 0) delta.row(h)[n] = sum;
    }
}

static int lanes_of(int64_t head_dim)
{
    int lanes = 1;

    while (lanes * CELL < head_dim)
        lanes *= 2;
    return lanes;
}

template <typename T>
static kr_status dot_rows(void *stream, struct kern_mat delta, struct kern_mat dout,
                          struct kern_mat out, const struct kern_heads *h)
{
    return launch(stream, "attention_bwd", delta_kernel<T>, dim3((unsigned)out.rows),
                  WARPS * WARP, 0, view_of<float>(delta), cells_of<T>(dout),
                  cells_of<T>(out), h->heads, h->head_dim, lanes_of(h->head_dim));
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

/* Only Hopper's kernels ask for some. */
size_t cuda_attention_bwd_scratch(bool hopper, const struct kern_call *c)
{
    struct kern_heads h = {};

    if (!hopper || (c->head_dim != 64 && c->head_dim != 128)) return 0;
    h.heads = c->heads;
    h.head_dim = c->head_dim;
    h.seq = c->seq;
    return sm90_attention_scratch(c->rows, &h);
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
        return sm90_attention_bwd(stream, { dqkv, delta, dout, qkv, lse, h });
    if (fits_mma(h, qkv, dout) && is_aligned(dqkv, 16))
        return attention_mma_bwd(stream, dqkv, delta, dout, qkv, lse, heads_of(h));
    return attention_any_bwd(stream, dqkv, delta, dout, qkv, lse, heads_of(h));
}
