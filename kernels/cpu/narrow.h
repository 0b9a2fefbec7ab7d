/* narrow.h - spans of rows that are stored in bf16 or as reals. */
#ifndef KERN_CPU_NARROW_H
#define KERN_CPU_NARROW_H

#include "kernels/cpu/cpu.h"

/* Elements begin .. begin + n, at most 4096, of the row m as reals: where they lie, or widened into room. */
real *CPU(load)(struct kern_mat m, int64_t begin, int64_t n, real *room);

/* The row m at begin .. begin + n = x, rounded by chance if m is bf16.  r says what is done
 * for element 0 of m. */
void CPU(store)(struct kern_mat m, int64_t begin, int64_t n, const real *x,
                const struct kern_round *r);

#endif
