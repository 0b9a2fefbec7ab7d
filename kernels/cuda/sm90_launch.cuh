/* sm90_launch.cuh - start a kernel of Hopper's: in clusters, with all the shared memory. */
#ifndef KERN_CUDA_SM90_LAUNCH_CUH
#define KERN_CUDA_SM90_LAUNCH_CUH

#include "kernels/cuda/launch.cuh"

/* `blocks`, a multiple of `cluster`, share their shared memory in clusters.  The permission
 * for `shared` bytes is asked for once: a process has one GPU. */
template <auto KERNEL_OF, typename... A>
static kr_status launch_clusters(void *stream, const char *operation, int32_t blocks,
                                 int32_t cluster, int threads, int shared,
                                 const A &...args)
{
    static const cudaError_t room = cudaFuncSetAttribute(
        (const void *)KERNEL_OF, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute shape = {};

    TRY(cuda_ready(stream));
    shape.id = cudaLaunchAttributeClusterDimension;
    shape.val.clusterDim.x = (unsigned)cluster;
    shape.val.clusterDim.y = shape.val.clusterDim.z = 1;
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)shared;
    config.stream = cuda_handle(stream);
    config.attrs = &shape;
    config.numAttrs = 1;
    (void)room; /* without it the launch fails, each time */
    (void)cudaLaunchKernelEx(&config, KERNEL_OF, args...);
    return cuda_ran(stream, operation);
}

#endif
