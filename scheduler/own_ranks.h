/*
 * own_ranks.h - the ranks of one node, as its agent sees them: their slots in node memory
 * (pulse.h), and what the host knows of their processes.
 */
#ifndef SCHED_OWN_RANKS_H
#define SCHED_OWN_RANKS_H

#include <sys/types.h>

#include "base/fs.h"
#include "scheduler/pulse.h"
#include "scheduler/wire.h"

/* Zero, but for the path. */
struct own_ranks {
    char pulse[FS_PATH]; /* the file of slots */
    struct pulse_reader *reader;
    ino_t made;      /* the file that it reads; 0: none was made */
    uint64_t killed; /* meminfo_killed when the generation began */
    bool was_alive[WIRE_RANKS], had_stepped[WIRE_RANKS];
};

/* A generation begins or all is over: earlier ranks are nobody's news any more. */
void own_ranks_close(struct own_ranks *o);

/* Slots for `count` ranks. */
kr_status own_ranks_make(struct own_ranks *o, int32_t count);

/* Away with the file, unless an agent that came after this one has made another. */
void own_ranks_remove(const struct own_ranks *o);

/* All slots that are in use; true: since the last look a process is gone, or has done its
 * first step. */
bool own_ranks_read(struct own_ranks *o, struct wire_beat *b);

#endif
