/*
 * memory.h - one rank's part of a snapshot in the memory of a node.
 *
 * A part is a file in a folder of a memory file system, so it outlives the processes.  It
 * has one or two buffers; the one that is written is never the one that holds the newest
 * part.  A buffer is
 *
 *   head     struct memory_head, sealed by a checksum of itself
 *   sums     XXH3-64 of each CKPT_BLOCK bytes of the payload
 *   payload  the rank's pieces (pieces.h), one after the other
 *
 * each on its own pages.  Order of writing: the head is zeroed, then payload, sums, and
 * the new head last: a process that dies in between leaves a buffer that is not there.
 *
 * Reads and writes go through calls, not a map: a file system that is full is an error
 * then and no signal.  No MPI, no HDF5 here.
 */
#ifndef CKPT_MEMORY_H
#define CKPT_MEMORY_H

#include <stdbool.h>

#include "base/fs.h"
#include "checkpoints/manifest.h"

enum { MEMORY_VERSION = 1, MEMORY_BUFFERS = 2 };

/* What a buffer holds, 128 bytes. */
struct memory_head {
    char magic[8];
    uint32_t version;
    int32_t world, rank;      /* part `rank` of `world` */
    uint32_t block;           /* CKPT_BLOCK */
    uint64_t place, identity; /* struct memory_run */
    uint64_t settings;        /* what may not change in a run */
    uint64_t layout;          /* which elements of which tensors the payload is */
    int64_t generation, step, samples;
    uint64_t bytes; /* of the payload */
    uint64_t sums;  /* XXH3-64 of the sums */
    char rest[24];
    uint64_t seal; /* XXH3-64 of all above */
};

/* Which run: where its directory lies, and an identity that it was given at its start. */
struct memory_run {
    uint64_t place, identity;
};

/* The name of a run's folder: DIR/kilorank-UID-PLACE-IDENTITY-NODE. */
kr_status memory_folder(char out[FS_PATH], const char *dir, struct memory_run run,
                        const char *node);

/* Make that folder, mode 0700, or take it if it is ours and nobody else may enter it, and
 * remove those of runs that were in the same place before.  KR_ERR_IO with a line. */
kr_status memory_prepare(const char *dir, struct memory_run run, const char *node);

/* Remove all folders of this run in DIR, whatever names this node has had. */
void memory_remove(const char *dir, struct memory_run run);

struct memory; /* opaque: a part that is written */

/* Reserve room for `buffers` payloads of `bytes`.  A file of that size that is there is
 * taken with what it holds.  Locked until it is closed: KR_ERR_BUSY after two seconds if
 * a process that is about to die still writes it.  KR_ERR_IO: no room. */
kr_status memory_open(struct memory **out, const char *path, uint64_t bytes, int buffers);
void memory_close(struct memory *m); /* the file stays; NULL is fine */

/* Write payload and head over the older part; head->magic, version, block, bytes and seal
 * are filled in.  sums: filled in too, or, if `told`, what they must be: KR_ERR_DATA. */
kr_status memory_write(struct memory *m, struct memory_head *head, const char *payload,
                       bool told);

/* Make the buffers that hold this step hold nothing. */
kr_status memory_forget(struct memory *m, int64_t step);

/* The same for one buffer of a file that nobody writes. */
kr_status memory_void(const char *path, const struct memory_head *head, int32_t buffer);

/* Heads of all buffers of a file that are sealed, and whose payload has the right sums if
 * `deep`; count <= MEMORY_BUFFERS, buffer[i] says which.  What is wrong with others is a
 * warning, unless they are empty. */
kr_status memory_look(const char *path, bool deep, struct memory_head *heads,
                      int32_t *buffer, int32_t *count);

/* Bytes [at, at + bytes) of the payload of one buffer, whose head is given; every block
 * touched is checked.  KR_ERR_DATA, KR_ERR_IO. */
kr_status memory_read(const char *path, const struct memory_head *head, int32_t buffer,
                      uint64_t at, uint64_t bytes, char *out);

#endif
