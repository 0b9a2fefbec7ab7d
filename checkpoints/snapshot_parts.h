/* snapshot_parts.h - what snapshot.c (taking), snapshot_find.c and snapshot_load.c share. */
#ifndef CKPT_SNAPSHOT_PARTS_H
#define CKPT_SNAPSHOT_PARTS_H

#include <stdatomic.h>

#include "checkpoints/background.h"
#include "checkpoints/copyout.h"
#include "checkpoints/memory.h"
#include "checkpoints/snapshot.h"

/* In the run directory: the name of its memory's folders but for the node, so that whoever
 * ends a run for good can remove them; and, with its checkpoints, who this run is. */
#define SNAPSHOT_WHERE    "memory"
#define SNAPSHOT_IDENTITY "checkpoints/run-id"

/* A part of another rank that is kept here. */
struct snapshot_copy {
    int32_t rank;
    uint64_t bytes;
    char *payload;
    struct memory_head head;
    struct memory *memory;
};

/* A part that some rank has found in the memory of its node. */
struct snapshot_part {
    struct memory_head
        head; /* world, rank, generation, step, samples, layout, bytes, sums */
    int32_t holder, buffer;
    bool is_copy;
};

/* The schemes of snapshot.h, from the most to the least. */
enum snapshot_scheme { SNAPSHOT_PARTNER, SNAPSHOT_DOUBLE, SNAPSHOT_SINGLE, SNAPSHOT_OFF };

enum snapshot_stage { SNAPSHOT_IDLE, SNAPSHOT_SENDING, SNAPSHOT_WRITING };

struct snapshot {
    struct comm *comm;
    struct snapshot_config config;
    const struct ckpt_state *state;
    struct memory_run run;
    uint64_t own_layout;
    char folder[FS_PATH]; /* "": there is none to be had */
    uint64_t *part_bytes; /* (size) */
    int scheme;
    bool was_on; /* rank 0: the run has had memory on its nodes */

    /* one in progress */
    enum snapshot_stage stage;
    int64_t step, sent, chunks;
    uint64_t chunk; /* bytes sent to the partner in a step, the same on all ranks */
    _Atomic int64_t newest;
    kr_status status; /* of the own part; the thread's until it is joined */
    struct memory_head head;
    struct copyout out; /* the host copy of the own part */
    struct memory *own;
    int32_t keeper, copy_count;
    struct snapshot_copy *copies;
    struct comm_packet *packets;
    struct background thread;
    bool cleaned;

    /* found after a restart */
    struct snapshot_part
        *parts; /* all good ones of all ranks, the same list everywhere */
    int32_t part_count;
    int64_t found_step, found_generation; /* -1: nothing */
};

/* Chunks are such that a part, however large, is with its partner before the next snapshot is
 * likely to be due: who takes one earlier waits for what is left. */
enum { SNAPSHOT_CHUNKS = 32, SNAPSHOT_CHUNK_LEAST = 16 << 20 };

static inline uint64_t snapshot_chunk(uint64_t largest_part)
{
    uint64_t chunk = (largest_part + SNAPSHOT_CHUNKS - 1) / SNAPSHOT_CHUNKS;

    if (chunk < SNAPSHOT_CHUNK_LEAST) return SNAPSHOT_CHUNK_LEAST;
    return chunk < COMM_PACKET_MAX ? chunk : COMM_PACKET_MAX;
}

/* [local] What rank `rank` of `world` holds, as the trainer says; the caller frees it. */
static inline kr_status snapshot_layout(const struct snapshot *s, int32_t world,
                                        int32_t rank, struct snapshot_extent **out,
                                        int32_t *count)
{
    return s->config.layout(s->config.self, world, rank, out, count);
}

/* [local] Make all parts on this node that are not of the snapshot that was loaded hold
 * nothing. */
void snapshot_forget_found(struct snapshot *s, bool loaded);
void snapshot_drop_found(struct snapshot *s);

#endif
