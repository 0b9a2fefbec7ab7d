/*
 * catalog.h - the checkpoints of a run, as found on disk, and which of them to delete.
 *
 * Order is (step, generation) of the manifests, never a time stamp.  No MPI, no HDF5.
 */
#ifndef CKPT_CATALOG_H
#define CKPT_CATALOG_H

#include <stdbool.h>

#include "base/fs.h"
#include "checkpoints/manifest.h"

struct catalog_entry {
    char path[FS_PATH];
    bool valid; /* the manifest is; shards are not looked at */
    int64_t step, generation;
    int32_t world;
    uint64_t bytes; /* of all shards, as the manifest says */
};

struct catalog {
    struct catalog_entry *list; /* newest first; invalid ones at the end */
    int32_t count, valid;
};

/* Look at every RUN/checkpoints/step-*; a bad manifest is logged as a warning (one line
 * from manifest_read) and its entry is marked.  A missing folder is an empty catalog. */
kr_status catalog_open(struct catalog *out, const char *run);
void catalog_close(struct catalog *c);

/* Remove a checkpoint so that a crash leaves it whole or gone: it gets a name that no reader
 * looks at, fsync, then its files go. */
kr_status catalog_remove(const char *path);

/* Remove all but the `keep` newest valid ones of generations up to `generation`; invalid
 * ones stay for a person to look at unless `invalid_too`.  *removed counts. */
kr_status catalog_prune(const char *run, int32_t keep, int64_t generation,
                        bool invalid_too, int32_t *removed);

/* Remove left-over attempts, removals and temporary hints; the caller holds the lease. */
kr_status catalog_sweep(const char *run);

#endif
