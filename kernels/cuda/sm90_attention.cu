/* sm90_attention.cu - which attention Hopper's kernels take; the forward. */
#include "kernels/cuda/sm90_attention_fwd.cuh"
#include "kernels/cuda/sm90_attention_run.cuh"

bool sm90_attention_takes(void *stream, struct kern_mat qkv, struct kern_mat out,
                          const struct kern_heads *h)
{
    return cuda_hopper(stream) && (h->head_dim == 64 || h->head_dim == 128) &&
           tensor_box_takes(qkv) && tensor_box_takes(out) &&
           qkv.rows * h->heads <=
               INT32_MAX / 2; /* parts of tiles are counted in 32 bits */
}

template <class S>
static kr_status forward(void *stream, struct kern_mat out, struct kern_mat lse,
                         struct kern_mat qkv, const struct kern_heads *h)
{
    struct attention_args g = attention_args_of(h, qkv, lse);
    CUtensorMap q, kv, o;

    g.order = attention_order(ceil_div(g.seq, S::rows), g.heads * g.sequences,
                              g.heads / g.kv_heads, h->seq, S::dim);
    TRY(tensor_map_encode(&q, fwd_box_q<S>(qkv, h->seq)));
    TRY(tensor_map_encode(&kv, fwd_box_kv<S>(qkv, h->seq)));
    TRY(tensor_map_encode(&o, attention_box_out(out, h->seq)));
    return launch_clusters<attention_fwd_kernel<S>>(
        stream, "attention_fwd", attention_blocks(stream, g), 1, S::threads,
        S::shared_bytes, q, kv, o, g);
}

/* Heads of 64 with ALiBi: two computing warpgroups, for three have too few registers. */
kr_status sm90_attention_fwd(void *stream, struct kern_mat out, struct kern_mat lse,
                             struct kern_mat qkv, const struct kern_heads *h)
{
    if (h->head_dim == 64)
        return h->slopes ? forward<fwd_shape<64, 2, true>>(stream, out, lse, qkv, h)
                         : forward<fwd_shape<64, 3, false>>(stream, out, lse, qkv, h);
    return h->slopes ? forward<fwd_shape<128, 2, true>>(stream, out, lse, qkv, h)
                     : forward<fwd_shape<128, 2, false>>(stream, out, lse, qkv, h);
}
