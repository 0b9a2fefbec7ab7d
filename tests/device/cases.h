/* cases.h - the operations, as things to try on two devices. */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include "tests/device/lab.h"

struct lab_case {
    const char *name;
    void (*make)(struct lab *l);
    kr_status (*call)(struct lab *l, int side);
    double tol16, tol32; /* of devices of bf16 and of fp32 */
    bool hopper;         /* it has kernels for Hopper GPUs */
};

extern const struct lab_case lab_cases[]; /* until name == NULL */

#endif
