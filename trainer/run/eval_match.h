/* eval_match.h - does a model answer a file of questions as the file says? */
#ifndef TRAIN_EVAL_MATCH_H
#define TRAIN_EVAL_MATCH_H

#include "trainer/run/load.h"

/* [collective] Greedy answers of up to `tokens` tokens to the records of `path`; ranks share
 * them out, rank 0 prints {"step", "examples", "exact", "exact_match"}.  out: where the
 * records go, with "generated" added, in their order; "": nowhere. */
kr_status eval_match(struct loaded *l, struct comm *c, const char *path, int64_t tokens,
                     const char *out);

#endif
