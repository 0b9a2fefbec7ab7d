/*
 * weights.h - where a model gets its weights and leaves its gradients.
 *
 * The model computes; it does not know who holds what.  run/shard.c answers these calls
 * for every sharding stage, tests answer them with plain memory.  `flat` is the unit's
 * flat array on the device, laid out as params.h says: weights of the device's type,
 * gradients of its wide type.
 */
#ifndef TRAIN_WEIGHTS_H
#define TRAIN_WEIGHTS_H

#include "base/status.h"

#include <stdbool.h>

struct weights {
    void *self;
    /* [collective] [queued] The unit's weights, whole, readable until release.  A unit
     * may be acquired more than once at a time. */
    kr_status (*acquire)(void *self, int unit, void **flat);
    void (*release)(void *self, int unit);
    /* [local] Where this micro-batch's gradient of the unit goes; *add says whether to
     * add to what is there (else every element is to be written, gaps excepted). */
    kr_status (*grads)(void *self, int unit, void **flat, bool *add);
    /* [collective] [queued] The unit's gradient of this micro-batch is final. */
    kr_status (*grads_ready)(void *self, int unit);
};

#endif
