/* reduce.cu - sums in one order, in double. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/num.cuh"

enum { THREADS = 256 };

struct plain {
    static __device__ __forceinline__ double of(float x) { return (double)x; }
};
struct square {
    static __device__ __forceinline__ double of(float x) { return (double)x * (double)x; }
};

/* out[b] = sum of F over block b of KERN_SUM_BLOCK elements: each thread takes every
 * THREADS-th, then a tree. */
template <typename T, typename F>
static __global__ void __launch_bounds__(THREADS)
    block_sums(double *out, const T *x, int64_t n)
{
    __shared__ double room[THREADS / WARP];
    const int64_t first = (int64_t)blockIdx.x * KERN_SUM_BLOCK;
    double sum = 0;

    for (int k = threadIdx.x; k < KERN_SUM_BLOCK; k += THREADS)
        if (first + k < n) sum += F::of(wide(x[first + k]));
    sum = block_sum<THREADS>(sum, room);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

/* One block: out[0] = sum of x. */
static __global__ void __launch_bounds__(THREADS)
    last_sum(double *out, const double *x, int64_t n)
{
    __shared__ double room[THREADS / WARP];
    double sum = 0;

    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        sum += x[i];
    sum = block_sum<THREADS>(sum, room);
    if (threadIdx.x == 0) out[0] = sum;
}

/* One number for each block, and some memory if there is none. */
size_t cuda_sum_scratch(int64_t n)
{
    return sizeof(double) * (size_t)(n > 0 ? pieces(n, KERN_SUM_BLOCK) : 1);
}

kr_status cuda_sum(void *stream, double *out, struct kern_mat x)
{
    const int64_t blocks = pieces(x.cols, KERN_SUM_BLOCK);
    double *part;

    TRY(cuda_scratch(stream, &part, cuda_sum_scratch(x.cols)));
    TRY(launch(stream, "sum", block_sums<float, plain>, dim3((unsigned)blocks), THREADS,
               0, part, (const float *)x.at, x.cols));
    return launch(stream, "sum", last_sum, dim3(1), THREADS, 0, out, part, blocks);
}

template <typename T> static kr_status sumsq(void *stream, double *out, struct kern_mat x)
{
    return launch(stream, "sumsq", block_sums<T, square>,
                  dim3((unsigned)pieces(x.cols, KERN_SUM_BLOCK)), THREADS, 0, out,
                  (const T *)x.at, x.cols);
}

kr_status cuda_sumsq(void *stream, double *out, struct kern_mat x)
{
    return BY_TYPE(x.type, sumsq, stream, out, x);
}
