/* load.h - a model from a checkpoint, for reading: eval and generate. */
#ifndef TRAIN_LOAD_H
#define TRAIN_LOAD_H

#include "trainer/run/state.h"

struct loaded {
    struct settings set;
    struct trainer trainer;
    int64_t step;
};

/* Before MPI starts: can load_model take these?  *set: the defaults with them on top. */
kr_status load_check_sets(char *const *sets, int set_count, struct settings *set);

/* [collective] Weights of the newest valid checkpoint of run directory `path`, or of the
 * checkpoint `path` itself; beside adapters also those of train.init.  sets:
 * "section.key=value" on top of its settings, but not model.* and lora.*. */
kr_status load_model(struct loaded *out, struct comm *c, const char *path,
                     char *const *sets, int set_count);
void load_close(struct loaded *l);

#endif
