/*
 * fault.h - wrong numbers on request, for tests.
 *
 * The environment variable KILORANK_NUMERIC_FAULT, on every rank:
 *
 *   flip:STEP:RANK:BIT   a real bit of a weight of that rank flips after the step is done
 *   nan:STEP:RANK        that rank's loss is not a number the first time it computes it
 *   nan:STEP:RANK:1      ... every time
 *   spike:STEP:RANK[:1]  its loss is a hundred times as large
 *
 * STEP counts from 1, BIT from the lowest of the element.
 */
#ifndef TRAIN_FAULT_H
#define TRAIN_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum fault_kind { FAULT_NONE_AT_ALL, FAULT_FLIP, FAULT_NAN, FAULT_SPIKE };

struct numeric_fault {
    enum fault_kind kind;
    int64_t step;
    int32_t rank, argument;
    bool spent;
};

/* From the environment.  KR_ERR_ARG: none of the above. */
kr_status fault_read(struct numeric_fault *out);

/* What becomes of the loss of a micro-batch of this rank in this step. */
double fault_loss(struct numeric_fault *f, int64_t step, int32_t rank, double loss);

/* The bit to flip now, -1: none. */
int fault_flip(struct numeric_fault *f, int64_t step, int32_t rank);

#endif
