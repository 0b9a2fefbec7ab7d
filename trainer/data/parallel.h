/*
 * parallel.h - the same work on many items, by threads of this process.
 *
 * Which thread takes which item is chance; what an item becomes must not depend on it.
 */
#ifndef TRAIN_PARALLEL_H
#define TRAIN_PARALLEL_H

#include <stdint.h>

#include "base/status.h"

int parallel_cores(void); /* that this process may use */

/* Call fn(arg, worker, item) for each item below `items`; worker is below `threads` and no
 * two calls with the same worker run at a time.  Returns when all are done, with the status
 * of the first item, in their order, that failed; after a failure the rest may be left. */
kr_status parallel_run(int threads, int64_t items,
                       kr_status (*fn)(void *arg, int worker, int64_t item), void *arg);

#endif
