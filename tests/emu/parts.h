/* parts.h - between the files of the emulated GPU. */
#ifndef TESTS_EMU_PARTS_H
#define TESTS_EMU_PARTS_H

#include <cuda_runtime.h>

enum { EMU_MOST_THREADS = 1024, EMU_SHARED_MOST = 227 << 10 };

/* A number of the environment; README.md has what there is. */
long emu_setting(const char *name, long usual);

/* Run a kernel to its end. */
void emu_run(dim3 grid, dim3 block, const std::function<void()> &body);

/* The same of a kernel of Hopper's, in clusters of CTAs; grid, cluster: CTAs. */
void emu_run_clusters(int grid, int cluster, int threads, int shared,
                      const std::function<void()> &body);

[[noreturn]] void emu_fail(const char *why);

#endif
