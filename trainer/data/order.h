/*
 * order.h - which tokens are sample number n.
 *
 * A pure function of (seed, n): it does not depend on ranks, and there is no index file.
 * An epoch cuts the row of tokens into windows of `seq` tokens (plus the one that
 * follows, the last label), shifted by a random offset below seq, and visits them in a
 * pseudo-random order (rng_permute).  Each epoch has its own shift and order.
 */
#ifndef TRAIN_ORDER_H
#define TRAIN_ORDER_H

#include <stdint.h>

/* Windows in an epoch; needs tokens > seq. */
int64_t order_epoch(int64_t tokens, int64_t seq);

/* First token of sample n >= 0; first + seq + 1 <= tokens. */
int64_t order_first(uint64_t seed, int64_t tokens, int64_t seq, int64_t n);

#endif
