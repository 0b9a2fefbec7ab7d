/*
 * commit.h - the one moment at which a checkpoint comes into being.  On rank 0.
 */
#ifndef CKPT_COMMIT_H
#define CKPT_COMMIT_H

#include "base/fs.h"
#include "checkpoints/lease.h"
#include "checkpoints/manifest.h"

struct commit_job {
    char run[FS_PATH];     /* RUN */
    char attempt[FS_PATH]; /* RUN/checkpoints/.attempt-... with all shards, fsynced */
    char final[FS_PATH];   /* RUN/checkpoints/step-... */
    struct manifest manifest;
    struct lease *lease;
};

/*
 *   write the view                          crash: an attempt, swept later
 *   write manifest.json.tmp, fsync
 *   rename it to manifest.json
 *   fsync the attempt folder
 *   lease still ours?
 *   rename the attempt to its final name    this is the commit
 *   fsync the parent
 *   write the hint RUN/checkpoints/latest   may be lost, nobody needs it
 *
 * A checkpoint of the same step that exists is swapped with the new one in one step and
 * then removed; where the file system cannot swap, the new one stands beside it as
 * step-...-gGENERATION until the old one is gone.
 */
kr_status commit(struct commit_job *job);

#endif
