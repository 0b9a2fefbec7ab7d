/*
 * remnants.h - node memory that a run left on a node where none of its ranks ended it.
 *
 * A node that was cut off, or whose place a spare took, keeps its parts of snapshots: as
 * long as the run goes on they may be the only good copies, and the next start takes them
 * up.  Once the run is over, which its ranks say by removing RUN/memory, they are of no use.
 */
#ifndef SCHED_REMNANTS_H
#define SCHED_REMNANTS_H

#include "base/fs.h"

/* How the names of the run's folders of snapshots begin, as RUN/memory says; without that
 * file `prefix` stays as it was, "" at first. */
void remnants_find(char prefix[FS_PATH], const char *run);

/* Remove the folders of this user whose names begin so, unless RUN/memory is there. */
void remnants_remove(const char *prefix, const char *run);

#endif
