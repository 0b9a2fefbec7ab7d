/*
 * snapshot.h - the state of a run in the memory of its nodes, by all its ranks together.
 *
 * Every rank copies its part out of device memory; a thread hashes it and writes it into
 * node memory (memory.h).  On several nodes a copy of it also goes to a rank of the next
 * node, piece by piece over the communication queue while training goes on.  So what was
 * computed since the last checkpoint survives killed processes, and the loss of a node.
 *
 *   scheme   own buffers  copy buffers   when
 *   PARTNER  2            2              several nodes
 *   DOUBLE   2            0              one node, or no room for more
 *   SINGLE   1            0              no room for more; a kill while one is written
 *                                        loses it
 *   OFF      0            0              no room at all: a warning, training goes on
 *
 * A snapshot of a step is whole when all parts of one generation are there; an older one
 * is only overwritten when all ranks know that the newer one is whole, so at any moment
 * some snapshot can be loaded.  Which one: see snapshot_find.
 *
 * Fences: a folder belongs to one run directory (its path, and an identity that lies in
 * RUN/checkpoints, so that what is begun anew there never meets old memory); a part names
 * what may not change in a run, its layout and the generation of the lease.  What was not
 * loaded is forgotten when the run goes on (snapshot_start).
 *
 * Marks as in comm.h.  What fails here is a warning and does not stop a run, but for
 * KR_ERR_COMM, KR_ERR_DEVICE and KR_ERR_MEM.
 */
#ifndef CKPT_SNAPSHOT_H
#define CKPT_SNAPSHOT_H

#include "base/fs.h"
#include "checkpoints/pieces.h"
#include "comm/comm.h"

struct snapshot; /* opaque; one per run */

/* Elements [begin, begin + count) of a tensor. */
struct snapshot_extent {
    int32_t tensor;
    int64_t begin, count;
};

struct snapshot_config {
    const char *run;    /* the run directory */
    const char *dir;    /* of node memory, say /dev/shm */
    uint64_t settings;  /* checksum of all that may not change in a run */
    int64_t generation; /* of the lease */

    /* The part of rank `rank` of `world`, ascending by tensor and element as its pieces
     * are; *out: mem_free. */
    kr_status (*layout)(void *self, int32_t world, int32_t rank,
                        struct snapshot_extent **out, int32_t *count);
    void *self;
};

/* [collective] Only looks: where the memory of this run is. */
kr_status snapshot_open(struct snapshot **out, struct comm *c,
                        const struct ckpt_state *state,
                        const struct snapshot_config *config);

/* [collective] End threads.  forget: also remove all of this run from the memory of these
 * nodes, for a run that has ended and whose state is on disk.  NULL is fine. */
void snapshot_close(struct snapshot *s, bool forget);

/* --- after a restart ----------------------------------------------------------------- */

struct snapshot_found {
    int64_t step, samples, generation; /* step -1: nothing */
    int64_t seen;                      /* newest step of any part; -1: none */
    int32_t lost;                      /* parts of step `seen` that nobody has */
    int32_t world;                     /* ranks that made it */
    bool was_on;                       /* rank 0: there should be memory */
};

/* [collective] The newest whole snapshot that is later than `step` and not of an earlier
 * generation than `generation` (those of the newest checkpoint on disk; -1: there is
 * none), by generation, then step.  Every byte is checked; a part may lie on any node. */
kr_status snapshot_find(struct snapshot *s, int64_t step, int64_t generation,
                        struct snapshot_found *out);

/* [collective] Load it into the pieces of the state, through q: from the memory of this
 * node where a copy is there, else from another's.  KR_ERR_DATA or KR_ERR_IO on all ranks
 * if that fails on any. */
kr_status snapshot_load(struct snapshot *s, struct kern_queue *q);

/* --- while training ------------------------------------------------------------------ */

/* [collective] Begin, or begin again after going back: forget whatever was found and not loaded (loaded: snapshot_load gave
 * the state that the run goes on from), reserve memory for the largest scheme that fits.
 * *text: the scheme in words, "" when it is off. */
kr_status snapshot_start(struct snapshot *s, bool loaded, const char **text);

bool snapshot_is_on(const struct snapshot *s); /* [local], the same on all ranks */

/* [local] What the loop tells all ranks each step: newest step that is whole as far as this
 * rank goes, -1 none, SNAPSHOT_FAILED: this rank cannot. */
enum { SNAPSHOT_FAILED = -2 };
int64_t snapshot_newest(struct snapshot *s);

/* [collective] Take one.  told: the smallest of all ranks' snapshot_newest in the last
 * exchange.  Unless it is the one before, that one is first brought to its end.
 * *seconds: that this rank waited here. */
kr_status snapshot_take(struct snapshot *s, struct kern_queue *q, int64_t step,
                        int64_t samples, int64_t told, double *seconds);

/* [queued] q goes on only when the pieces of the one in progress are out of device memory:
 * before whatever changes them. */
kr_status snapshot_hold(struct snapshot *s, struct kern_queue *q);

/* [collective] Once a step, after the exchange: move copies on.  told as above;
 * SNAPSHOT_FAILED: snapshots end here with a warning. */
kr_status snapshot_advance(struct snapshot *s, int64_t told);

/* [collective] Bring the one in progress to its end. */
kr_status snapshot_wait(struct snapshot *s);

/* [collective] Forget this step: its state is suspect. */
kr_status snapshot_forget(struct snapshot *s, int64_t step);

#endif
