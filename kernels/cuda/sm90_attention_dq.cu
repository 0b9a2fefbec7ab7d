/* sm90_attention_dq.cu - the sums of dQ, rounded, into the gradient of qkv. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/sm90.h"
#include "kernels/cuda/sm90_layout.h"

enum { THREADS = 256 };

/* What part of dQ a block has: 64 x 64 of a head, from row row0 of a sequence on. */
struct dq_part_at {
    int64_t tile;
    int32_t part, sequence, row0, col0;
};

static __device__ __forceinline__ struct dq_part_at part_at(int64_t block, int32_t heads,
                                                            int32_t dim, int32_t blocks)
{
    struct dq_part_at p;
    int64_t lane;

    p.tile = block / 2;
    p.part = (int32_t)(block % 2);
    lane = p.tile / blocks;
    p.sequence = (int32_t)(lane / heads);
    p.row0 = (int32_t)(p.tile % blocks) * BWD_BLOCK_ROWS(dim);
    p.col0 = (int32_t)(lane % heads) * dim;
    if (dim == 128)
        p.col0 += p.part * 64;
    else
        p.row0 += p.part * 64;
    return p;
}

/* A thread rounds 8 columns of two rows: four neighbours hold them, 16 bytes each. */
static __global__ void __launch_bounds__(THREADS)
    attention_dq_kernel(view<bf16> dq, const float *sums, float scale, int64_t seq,
                        int32_t heads, int32_t dim, int32_t blocks)
{
    const struct dq_part_at p = part_at(blockIdx.x, heads, dim, blocks);
    const uint32_t cols = threadIdx.x % 8, pair = threadIdx.x / 8;
    const uint32_t first = pair / 8 * 32 + pair % 8 * 4; /* thread that held them */
    const float *at = sums + (p.tile * 2 + p.part) * DQ_PART + dq_part(first, cols * 4);
    float x[4][4];

#pragma unroll
    for (int t = 0; t < 4; t++)
        *(float4 *)x[t] = *(const float4 *)(at + 4 * t);
    for (int half = 0; half < 2; half++) {
        const int64_t row = p.row0 + acc_row(first, 2 * half);
        float out[8];

        if (row >= seq) continue;
#pragma unroll
        for (int i = 0; i < 8; i++)
            out[i] = x[i / 2][2 * half + i % 2] * scale;
        pack<bf16>::store(dq.row(p.sequence * seq + row) + p.col0 + cols * 8, out);
    }
}

kr_status sm90_attention_dq(void *stream, const sm90_backward &b, const float *sums)
{
    const int64_t dim = b.h->head_dim, blocks = pieces(b.h->seq, BWD_BLOCK_ROWS(dim));
    const int64_t parts = b.qkv.rows / b.h->seq * b.h->heads * blocks * 2;

    return launch(stream, "attention_bwd", attention_dq_kernel, dim3((unsigned)parts),
                  THREADS, 0, view_of<bf16>(b.dqkv), sums, (float)b.h->scale, b.h->seq,
                  (int32_t)b.h->heads, (int32_t)dim, (int32_t)blocks);
}
