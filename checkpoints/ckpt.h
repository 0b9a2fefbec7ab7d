/*
 * ckpt.h - save and load the state of a run, by all its ranks together.
 *
 *   RUN/checkpoints/step-00000100/   manifest.json, shard-00000.h5 ..., model.h5
 *   RUN/checkpoints/.attempt-...     being written; never read
 *   RUN/lease.json                   who may write here
 *
 * State is a list of named tensors; ranks hold pieces of them, half open ranges of
 * elements that together tile each tensor.  It is stored by tensor range, not by rank,
 * so any later number of ranks can read it.
 *
 * Commit order (docs/checkpoint.md): preflight of free space, lease, fresh attempt
 * folder, shards and fsync, fsync of the folder, manifest under a temporary name and
 * fsync, its rename, fsync, lease again, rename of the folder (this is the commit),
 * fsync of the parent, hint, read back and verify, retention.  A crash after any line
 * leaves the old checkpoints or the new one, never a mix.
 *
 * Saving runs on a thread of each rank.  Training waits for the copy where the device's memory
 * is the host's; a GPU copies on the side (copyout.h).  The thread never talks to other ranks: the loop carries each rank's phase to
 * all ranks once per step and hands them to ckpt_advance, so all ranks agree.
 *
 * A failed save is a warning: the attempt is removed, older checkpoints stay.
 *
 * Marks as in comm.h.
 */
#ifndef CKPT_CKPT_H
#define CKPT_CKPT_H

#include "base/fs.h"
#include "checkpoints/pieces.h"
#include "comm/comm.h"

struct ckpt; /* opaque; one per run */

struct ckpt_config {
    const char *run; /* the run directory; created if missing */
    int keep;        /* checkpoints to keep, >= 1 */
    bool async;      /* write on a thread while training goes on */
    bool read_only;  /* no lease, nothing is written */
    const char *about;
};

struct ckpt_info {
    int64_t step, samples, generation;
    int32_t world;
    char *settings; /* INI text; mem_free */
    char path[FS_PATH];
};

/* [collective] Open RUN; unless read_only take its lease.  KR_ERR_BUSY: another live job
 * holds it (the line names host, process, job and since when). */
kr_status ckpt_open(struct ckpt **out, struct comm *c, const struct ckpt_config *config);

/* [collective] Wait for a save in progress, give the lease back.  NULL is fine. */
void ckpt_close(struct ckpt *k);

/* [local] Forget the save in progress, so that ckpt_close waits for nobody: for a rank that
 * ends while the others do not know it yet.  NULL is fine. */
void ckpt_abandon(struct ckpt *k);

int64_t ckpt_generation(const struct ckpt *k);

/* [local] Rank 0: another job has taken the run over, so this one must end.  Others: false. */
bool ckpt_is_lost(struct ckpt *k);

/*
 * [collective] The next older checkpoint, newest (step, generation) first; those whose
 * manifest is bad are passed over with a warning that says why.  KR_OK with info->step
 * == -1: there are none at all (a new run).  KR_ERR_NO_CKPT: some exist, none is left.
 */
kr_status ckpt_next(struct ckpt *k, struct ckpt_info *info);

/* [collective] Look anew, from the newest on. */
kr_status ckpt_rewind(struct ckpt *k);

/* [collective] Read this rank's pieces from the checkpoint that ckpt_next found, through
 * q; also checks the frames of all shards.  KR_ERR_DATA or KR_ERR_IO on all ranks if any
 * found a fault (logged): go on with ckpt_next.  KR_ERR_ARG: a tensor is missing there
 * or has another shape or type. */
kr_status ckpt_read(struct ckpt *k, struct kern_queue *q, const struct ckpt_state *state);

/* Phases of a save, per rank; what the loop exchanges. */
enum ckpt_phase {
    CKPT_IDLE,      /* nothing in progress */
    CKPT_WRITING,   /* this rank's shard is being written */
    CKPT_WRITTEN,   /* this rank's shard is safe on disk */
    CKPT_COMMITTED, /* rank 0: the checkpoint exists */
    CKPT_VERIFIED,  /* this rank's shard was read back and is right */
    CKPT_FAILED     /* this rank could not; the attempt is void */
};

/* [local] Take now the memory that saves of such a state are copied to, where it is pinned:
 * that takes seconds, and training would stand still for them at the first save. */
kr_status ckpt_reserve(struct ckpt *k, struct kern_queue *q,
                       const struct ckpt_state *state);

/* [collective] Copy the pieces out of device memory, as they are when q comes to it, and start
 * to write; waits for a save in progress first.  If config.async is false, returns when all is done.
 * settings: INI text.  A save that cannot be done is a warning, not an error: KR_OK;
 * errors are KR_ERR_COMM, KR_ERR_DEVICE, KR_ERR_MEM. */
kr_status ckpt_save(struct ckpt *k, struct kern_queue *q, const struct ckpt_state *state,
                    int64_t step, int64_t samples, const char *settings);

/* [queued] q goes on only when the pieces of the save in progress are out of device memory:
 * before whatever changes them. */
kr_status ckpt_hold(struct ckpt *k, struct kern_queue *q);

/* [local] This rank's phase. */
enum ckpt_phase ckpt_phase(struct ckpt *k);

/* [collective] Move a save on, given the phases of all ranks in rank order (each rank
 * passes the same array).  Returns at once when there is nothing to do. */
kr_status ckpt_advance(struct ckpt *k, const enum ckpt_phase *phases);

/* [collective] Finish the save in progress, if any.  *saved (may be NULL): the newest
 * save was committed. */
kr_status ckpt_wait(struct ckpt *k, bool *saved);

/* [local] Step of the newest committed checkpoint of this run, -1 if none. */
int64_t ckpt_newest(const struct ckpt *k);

/* [local] Seconds that callers have waited in ckpt_save and ckpt_wait since the open. */
double ckpt_stalled(const struct ckpt *k);

#endif
