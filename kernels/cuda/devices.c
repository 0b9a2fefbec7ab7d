/* devices.c - what a program with CUDA has; takes the place of kernels/devices.c. */
#include "kernels/backend.h"

const struct kern_backend *const kern_backends[] = {
    &kern_cuda_backend,
    &kern_cuda32_backend,
    &kern_cpu_backend,
    &kern_cpu64_backend,
    &kern_cpu16_backend,
    &kern_guard_backend,
    NULL,
};
