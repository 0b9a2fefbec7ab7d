/*
 * shard_write.h - one rank's shard: create, write, check, make durable.
 */
#ifndef CKPT_SHARD_WRITE_H
#define CKPT_SHARD_WRITE_H

#include "base/fs.h"
#include "checkpoints/pieces.h"

/* What goes into a shard: ranges (tensor, begin, count set; offset and blocks filled in by
 * shard_write) and their bytes on the host: all there, or asked for one range after the
 * other, each good until the next. */
struct shard_job {
    char path[FS_PATH];
    const struct ckpt_tensor *tensors;
    struct ckpt_range *ranges;
    const char **bytes; /* of each range; NULL: ask */
    kr_status (*ask)(void *self, int32_t range, const char **bytes);
    void *self;
    int32_t count;
    struct ckpt_shard shard; /* file, and on return bytes and frame */
};

/* Tensors, ranges and bytes of a state whose pieces lie one after the other at `from`, for
 * shard number `shard`.  Free also what an error left. */
kr_status shard_job_fill(struct shard_job *job, const struct ckpt_state *s, int32_t shard,
                         const char *from);
void shard_job_free(struct shard_job *job);

/* The whole file, fsynced.  The folder's entry is the caller's. */
kr_status shard_write(struct shard_job *job);

/* One rank's part of the manifest as text, and back: rank 0 joins the parts of all ranks
 * (NUL-terminated, one after the other) into shards and sorted ranges of *m, whose
 * tensors are set. */
kr_status shard_part_print(const struct shard_job *job, char **text);
kr_status shard_parts_join(const char *parts, int32_t ranks, struct manifest *m);

#endif
