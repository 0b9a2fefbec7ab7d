/* sm90_attention_bwd.cu - backward of attention on Hopper: dK and dV, and sums of dQ. */
#include "kernels/cuda/sm90_attention_bwd.cuh"
#include "kernels/cuda/sm90_attention_run.cuh"

bool cuda_attention_any_order;

/* Memory of one backward: dQ, and behind it the counters. */
struct backward_room {
    size_t dq, counters; /* bytes */
};

static struct backward_room room_of(int64_t rows, const struct kern_heads *h)
{
    const int64_t blocks = pieces(h->seq, BWD_BLOCK_ROWS(h->head_dim));
    const int64_t tiles = rows / h->seq * h->heads * blocks;

    return { sizeof(float) * 2 * DQ_PART * (size_t)tiles,
             sizeof(int32_t) * (size_t)(1 + tiles) };
}

size_t sm90_attention_scratch(int64_t rows, const struct kern_heads *h)
{
    const struct backward_room r = room_of(rows, h);

    return r.dq + r.counters;
}

static kr_status clear(void *stream, void *at, size_t bytes)
{
    (void)cudaMemsetAsync(at, 0, bytes, cuda_handle(stream));
    return cuda_ran(stream, "attention_bwd");
}

/* The memory, as the kernel wants to find it. */
static kr_status take_room(void *stream, struct backward_args *g, const sm90_backward &b)
{
    const struct backward_room room = room_of(b.qkv.rows, b.h);
    uint8_t *at;

    TRY(cuda_scratch(stream, &at, room.dq + room.counters));
    g->dq = (float *)at;
    g->claimed = (int32_t *)(at + room.dq);
    g->added = g->claimed + 1;
    g->ordered = !cuda_attention_any_order;
    if (!g->ordered) TRY(clear(stream, g->dq, room.dq));
    return clear(stream, g->claimed, room.counters);
}

template <class S> static kr_status run(void *stream, const sm90_backward &b)
{
    struct backward_args g = {};
    CUtensorMap kv, q, dout, out;

    g.of = attention_args_of(b.h, b.qkv, b.lse);
    g.of.delta = (const float *)b.delta.at;
    g.of.delta_ld = b.delta.ld;
    g.of.order =
        backward_order(ceil_div(g.of.seq, BWD_KEYS), g.of.kv_heads * g.of.sequences,
                       g.of.heads / g.of.kv_heads, b.h->seq, S::dim);
    TRY(cuda_ready(stream));
    TRY(take_room(stream, &g, b));
    TRY(tensor_map_encode(&kv, bwd_box_fixed(b.qkv, b.h->seq)));
    TRY(tensor_map_encode(&q, bwd_box_block<S>(b.qkv, b.h->seq)));
    TRY(tensor_map_encode(&dout, bwd_box_block<S>(b.dout, b.h->seq)));
    TRY(tensor_map_encode(&out, attention_box_out(b.dqkv, b.h->seq)));
    TRY(launch_clusters<attention_bwd_kernel<S>>(
        stream, "attention_bwd", attention_blocks(stream, g.of), 1, BWD_THREADS,
        S::shared_bytes, kv, q, dout, out, g));
    return sm90_attention_dq(stream, b, g.dq);
}

kr_status sm90_attention_bwd(void *stream, const sm90_backward &b)
{
    if (b.h->head_dim == 64)
        return b.h->slopes ? run<bwd_shape<64, true>>(stream, b)
                           : run<bwd_shape<64, false>>(stream, b);
    return b.h->slopes ? run<bwd_shape<128, true>>(stream, b)
                       : run<bwd_shape<128, false>>(stream, b);
}
