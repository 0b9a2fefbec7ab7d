/*
 * loss.cu - cross entropy of each row, and its gradient.
 *
 * A block owns a row: one pass for the greatest logit and the sum of exponentials
 * together (each thread rescales its sum when its maximum grows), one for the gradient,
 * which finds the row in the cache.  dlogits may be logits: each thread reads what it
 * writes.
 */
#include "kernels/cuda/cells.cuh"

enum { THREADS = 512, STEP = THREADS * CELL };

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

/* log of the sum of exp over row i, in all threads */
template <typename T>
static __device__ float log_sum_of(const cells<T> &logits, int64_t i, float *room)
{
    const int64_t cols = logits.m.cols;
    running r = { -INFINITY, 0 };
    float top;

    for (int64_t c = (int64_t)threadIdx.x * CELL; c < cols; c += STEP) {
        float v[CELL];

        logits.load(v, i, c);
        r.take(v, cols - c < CELL ? (int)(cols - c) : CELL);
    }
    top = block_max<THREADS>(r.most, room);
    if (r.most != top) r.sum *= expf(r.most - top); /* 0 where there was nothing */
    return top + logf(block_sum<THREADS>(r.sum, room));
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    loss_kernel(float *loss, cells<T> dlogits, cells<T> logits, const int32_t *label,
                float grad_scale)
{
    __shared__ float room[THREADS / WARP];
    const int64_t i = blockIdx.x, cols = logits.m.cols;
    const int32_t target = label[i];
    const bool counts = target != KERN_IGNORE;
    const float log_sum = log_sum_of(logits, i, room);
    const float scale = counts ? grad_scale : 0;

    if (threadIdx.x == 0) loss[i] = counts ? log_sum - wide(logits.m.row(i)[target]) : 0;
    __syncthreads(); /* the label's logit is read before its gradient is written */
    if (!dlogits.m.at) return;
    for (int64_t c = (int64_t)threadIdx.x * CELL; c < cols; c += STEP) {
        float v[CELL];

        logits.load(v, i, c);
#pragma unroll
        for (int k = 0; k < CELL; k++) {
            v[k] = scale * expf(v[k] - log_sum);
            if (c + k == target) v[k] -= scale;
        }
        dlogits.store(i, c, v);
    }
}

template <typename T>
static kr_status cross_entropy(void *stream, struct kern_mat loss,
                               struct kern_mat dlogits, struct kern_mat logits,
                               const int32_t *label, float grad_scale)
{
    return launch(stream, "cross_entropy", loss_kernel<T>, dim3((unsigned)logits.rows),
                  THREADS, 0, (float *)loss.at, cells_of<T>(dlogits), cells_of<T>(logits),
                  label, grad_scale);
}

kr_status cuda_cross_entropy(void *stream, struct kern_mat loss, struct kern_mat dlogits,
                             struct kern_mat logits, const int32_t *label,
                             double grad_scale)
{
    return BY_TYPE(logits.type, cross_entropy, stream, loss, dlogits, logits, label,
                   (float)grad_scale);
}
