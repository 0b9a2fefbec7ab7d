/*
 * lease.h - who may write into a run directory.
 *
 * RUN/lease.json names the holder: host, process and when that process started, job,
 * generation, and a counter that a thread of the holder raises every two seconds.  The
 * file is also locked with flock, which dies with the process.
 *
 * Taking it.  Same host: the lock is held, or the process of the lease lives (its start
 * time tells it from a reused number): busy.  Other host: the counter is watched for three
 * renewals; if it moves, busy.  Else the holder is gone, or stands still, and the lease is
 * taken with the next generation; a lock that it still holds, as a host does that was cut
 * off or stopped, is passed over.  Nothing depends on wall time.  A later start by the same
 * supervisor (KILORANK_GENERATION) takes it at once: that supervisor has ended the earlier.
 *
 * The generation is the fencing token: before a commit lease_check reads the file again,
 * and a holder that was replaced meanwhile must not commit.  A holder that finds another
 * of its own or a later generation in the file stops renewing for good.
 *
 * A lease given back leaves the file with the generation and no host, so that generations
 * only grow.
 */
#ifndef CKPT_LEASE_H
#define CKPT_LEASE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct lease; /* opaque */

/* KR_ERR_BUSY with a line that names the holder.  Generations start after `newest`. */
kr_status lease_take(struct lease **out, const char *run, int64_t newest);

/* Still ours?  KR_ERR_BUSY if not. */
kr_status lease_check(struct lease *l);

/* Has a renewal found that somebody else has it?  Costs no look at the file. */
bool lease_is_lost(struct lease *l);

int64_t lease_generation(const struct lease *l);

/* Stop renewing; name nobody in the file if it is still ours.  NULL is fine. */
void lease_give_back(struct lease *l);

#endif
