/*
 * loss.cu - cross entropy of each row, and its gradient.
 *
 * A block owns a row: one pass for the greatest logit and the sum of exponentials
 * together (each thread rescales its sum when its maximum grows), one for the gradient.
 * What fits of the row stays in shared memory in between: all rows at work at a time are
 * more than the cache holds.  dlogits may be logits: each thread reads what it writes.
 */
#include "kernels/cuda/cells.cuh"

enum { THREADS = 512, STEP = THREADS * CELL, BATCH = 4 /* cells read at a time */ };

/* The greatest of a thread's logits so far, and the sum of exp(logit - greatest). */
struct running {
    float most, sum;

    __device__ __forceinline__ void take(const float v[CELL], int count)
    {
        float top = most;

#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (k < count) top = fmaxf(top, v[k]);
        sum *= most == top ? 1.0f : expf(most - top);
        most = top;
#pragma unroll
        for (int k = 0; k < CELL; k++)
            if (k < count) sum += expf(v[k] - top);
    }
};

/* The first `cols` of a row, a multiple of CELL, in shared memory; a thread finds what it
 * stored. */
template <typename T> struct kept {
    T *at;
    int64_t cols;

    __device__ __forceinline__ void store(int64_t c, const words<T> &w) const
    {
        if (c < cols) w.keep(at + c);
    }
    __device__ __forceinline__ void load(float v[CELL], int64_t c) const
    {
        words<T>::whole(at + c).unpack(v);
    }
};

/* log of the sum of exp over row i, in all threads */
template <typename T>
static __device__ float log_sum_of(const cells<T> &logits, int64_t i, const kept<T> &row,
                                   float *room)
{
    const int64_t cols = logits.m.cols;
    running r = { -INFINITY, 0 };
    float top;

    for (int64_t c = (int64_t)threadIdx.x * CELL; c < cols; c += BATCH * STEP) {
        words<T> w[BATCH];

#pragma unroll
        for (int q = 0; q < BATCH; q++)
            w[q] = logits.fetch(i, c + q * STEP);
#pragma unroll
        for (int q = 0; q < BATCH; q++) {
            const int64_t left = cols - c - q * STEP;
            float v[CELL];

            w[q].unpack(v);
            row.store(c + q * STEP, w[q]);
            r.take(v, left < CELL ? (int)left : CELL);
        }
    }
    top = block_max<THREADS>(r.most, room);
    if (r.most != top) r.sum *= expf(r.most - top); /* 0 where there was nothing */
    return top + logf(block_sum<THREADS>(r.sum, room));
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    loss_kernel(float *loss, cells<T> dlogits, cells<T> logits, const int32_t *label,
                float grad_scale, int64_t keep)
{
    DYNAMIC_SHARED;
    __shared__ float room[THREADS / WARP];
    const kept<T> row = { (T *)shared_bytes, keep };
    const int64_t i = blockIdx.x, cols = logits.m.cols;
    const int32_t target = label[i];
    const bool counts = target != KERN_IGNORE;
    const float log_sum = log_sum_of(logits, i, row, room);
    const float scale = counts ? grad_scale : 0;

    if (threadIdx.x == 0) loss[i] = counts ? log_sum - wide(logits.m.row(i)[target]) : 0;
    __syncthreads(); /* the label's logit is read before its gradient is written */
    if (!dlogits.m.at) return;
    for (int64_t c = (int64_t)threadIdx.x * CELL; c < cols; c += STEP) {
        float v[CELL];

        if (c < keep)
            row.load(v, c);
        else
            logits.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++) {
            v[k] = scale * expf(v[k] - log_sum);
            if (c + k == target) v[k] -= scale;
        }
        dlogits.store(i, c, v);
    }
}

/* Bytes of shared memory that a block may have: two of them on a multiprocessor if that
 * holds a row, else one. */
static size_t room_of(void *stream, size_t row)
{
    const int c = cuda_capability(stream);
    const size_t all = c >= 90 && c < 120 ? 227 << 10 : c == 80 ? 163 << 10 : 99 << 10;
    const size_t half = all / 2 - 1024;

    return row <= half ? half : all - 1024;
}

template <typename T>
static kr_status cross_entropy(void *stream, struct kern_mat loss,
                               struct kern_mat dlogits, struct kern_mat logits,
                               const int32_t *label, float grad_scale)
{
    const int64_t whole = pieces(logits.cols, CELL) * CELL;
    const int64_t fit = (int64_t)(room_of(stream, (size_t)whole * sizeof(T)) / sizeof(T));
    const int64_t keep = !dlogits.at ? 0 : whole < fit ? whole : fit / CELL * CELL;

    return launch(stream, "cross_entropy", loss_kernel<T>, dim3((unsigned)logits.rows),
                  THREADS, (size_t)keep * sizeof(T), (float *)loss.at,
                  cells_of<T>(dlogits), cells_of<T>(logits), label, grad_scale, keep);
}

kr_status cuda_cross_entropy(void *stream, struct kern_mat loss, struct kern_mat dlogits,
                             struct kern_mat logits, const int32_t *label,
                             double grad_scale)
{
    return BY_TYPE(logits.type, cross_entropy, stream, loss, dlogits, logits, label,
                   (float)grad_scale);
}
