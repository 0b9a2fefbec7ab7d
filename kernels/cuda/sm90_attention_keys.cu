/* sm90_attention_keys.cu - backward of attention on Hopper, the pass over keys. */
#include "kernels/cuda/sm90_attention_bwd.cuh"
#include "kernels/cuda/sm90_attention_run.cuh"

template <class S> static kr_status run(void *stream, const sm90_backward &b)
{
    const struct attention_args g = backward_args_of(b, BWD_ROWS, b.h->kv_heads, 1);
    CUtensorMap kv, q, dout, out;

    TRY(tensor_map_encode(&kv, bwd_box_fixed(b.qkv, b.h->seq)));
    TRY(tensor_map_encode(&q, bwd_box_block<S>(b.qkv, b.h->seq)));
    TRY(tensor_map_encode(&dout, bwd_box_block<S>(b.dout, b.h->seq)));
    TRY(tensor_map_encode(&out, bwd_box_out(b.dqkv, b.h->seq)));
    return launch_clusters<attention_keys_kernel<S>>(
        stream, "attention_bwd", attention_blocks(stream, g), 1, BWD_THREADS,
        S::shared_bytes, kv, q, dout, out, g);
}

kr_status sm90_attention_keys(void *stream, const sm90_backward &b)
{
    if (b.h->head_dim == 64)
        return b.h->slopes ? run<keys_shape<64, true>>(stream, b)
                           : run<keys_shape<64, false>>(stream, b);
    return b.h->slopes ? run<keys_shape<128, true>>(stream, b)
                       : run<keys_shape<128, false>>(stream, b);
}
