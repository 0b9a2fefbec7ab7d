/*
 * lt.h - the vendor's products at their best: every algorithm that cuBLASLt proposes for a
 * shape is timed, the fastest is the rival.
 */
#ifndef TESTS_SPEED_LT_H
#define TESTS_SPEED_LT_H

#include "tests/device/speed/speed.h"

/* "cuBLASLt 13.1"; NULL: it is not there, or it does not start. */
const char *lt_open(void);
void lt_close(void);

/* One product: c (M, N) [+]= op(a) op(b), ta and tb as the entry matmul of a table; sets of
 * operands as in a job. */
struct lt_product;
struct lt_product *lt_best(struct kern_mat c, struct kern_mat a, bool ta,
                           struct kern_mat b, bool tb, bool add, int64_t sets,
                           int *tried);
kr_status lt_run(const struct lt_product *p, void *c, const void *a, const void *b);
void lt_drop(struct lt_product *p);

#endif
