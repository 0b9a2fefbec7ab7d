/* sample.h - choose a token from logits. */
#ifndef TRAIN_SAMPLE_H
#define TRAIN_SAMPLE_H

#include "base/status.h"

#include <stdint.h>

struct sample_how {
    double temperature; /* 0: the likeliest, the first of equals */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
};

/* logits (n) are overwritten.  u in [0, 1) is the only chance in it: tokens stand in order
 * of falling probability (lower ids first among equals), cut to top_k, then to the fewest
 * that reach top_p, and u picks by their running sum.  KR_ERR_NUMERIC: not finite. */
kr_status sample_token(double *logits, int64_t n, const struct sample_how *how, double u,
                       int32_t *out);

#endif
