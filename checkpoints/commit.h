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
    char place[FS_PATH];   /* where it is put at first, see commit_place */
    struct manifest manifest;
    struct lease *lease;
};

/* Decide on job->place, from run, final and generation: final, or beside it as
 * step-...-gGENERATION while an older one of the same step stands there. */
kr_status commit_place(struct commit_job *job);

/*
 *   write the view                          crash: an attempt, swept later
 *   write manifest.json.tmp, fsync
 *   rename it to manifest.json
 *   fsync the attempt folder
 *   lease still ours?
 *   rename the attempt to its place         this is the commit
 *   fsync the parent
 *   write the hint RUN/checkpoints/latest   may be lost, nobody needs it
 */
kr_status commit(struct commit_job *job);

/* What was committed has been read back and is right: if an older one of the same step has
 * its name, that one goes.  Readers take the later generation while both are there. */
kr_status commit_settle(const struct commit_job *job);

#endif
