/* bench_reduce.c - `bench reduce`: canonical against library reduction. */
#include <stdio.h>

#include "comm/bench_reduce.h"
#include "trainer/run/bench.h"

kr_status bench_reduce(struct comm *c, const struct bench_args *a)
{
    struct kern_device *d = NULL;
    kr_status st;

    TRY(kern_device_open(&d, "cpu", comm_local_rank(c),
                         a->threads > 0 ? (int)a->threads : comm_threads(c)));
    st = comm_bind(c, d);
    if (st == KR_OK) st = comm_bench_reduce(c, d, stdout);
    comm_unbind(c);
    kern_device_close(d);
    return st;
}
