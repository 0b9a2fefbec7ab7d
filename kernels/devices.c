/*
 * devices.c - what a program without CUDA has.
 *
 * The first is what run.device = auto means.  A program with CUDA links
 * kernels/cuda/devices.o before this library and so never sees this file.
 */
#include "kernels/backend.h"

const struct kern_backend *const kern_backends[] = {
    &kern_cpu_backend,
    &kern_cpu64_backend,
    &kern_cpu16_backend,
    &kern_guard_backend,
    NULL,
};
