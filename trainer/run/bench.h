/* bench.h - the benchmarks behind `kilorank bench`; rank 0 prints. */
#ifndef TRAIN_BENCH_H
#define TRAIN_BENCH_H

#include "comm/comm.h"

struct bench_args {
    int64_t rounds, threads;
    char dir[180];
    double mib;
};

kr_status bench_matmul(struct comm *c, const struct bench_args *a);
kr_status bench_step(struct comm *c, const struct bench_args *a);
kr_status bench_reduce(struct comm *c, const struct bench_args *a);
kr_status bench_checkpoint(struct comm *c, const struct bench_args *a);

/* Median of n numbers; sorts them. */
double bench_median(double *x, int64_t n);

#endif
