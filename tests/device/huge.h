/*
 * huge.h - operations on matrices whose elements a 32-bit number does not count.
 *
 * Each row of their results depends on the same row of the operands alone.  So the last rows
 * of a huge matrix must have the bits that the operation makes of these rows by themselves.
 */
#ifndef TESTS_HUGE_H
#define TESTS_HUGE_H

#include "tests/device/lab.h"

/* On the device of `s`, results of `elements` or a little more; hopper: those operations
 * alone that have such kernels.  A line of TAP each, numbered on from *cases.  Returns how
 * many failed. */
int huge_check(struct lab_side *s, int64_t elements, bool hopper, int *cases);

#endif
