/* bench_reduce.h - what the canonical order costs against the library's. */
#ifndef COMM_BENCH_REDUCE_H
#define COMM_BENCH_REDUCE_H

#include <stdio.h>

#include "comm/comm.h"

/*
 * [collective] Time reduce-scatter in library and canonical order, and all-gather, on
 * units of 1, 25 and 100 MiB; rank 0 prints a table to out, which may be NULL on others.
 * c is bound to d.  A time is the median over rounds of the slowest rank's; the kinds take
 * turns within a round, so that a noisy neighbour meets all of them.
 */
kr_status comm_bench_reduce(struct comm *c, struct kern_device *d, FILE *out);

#endif
