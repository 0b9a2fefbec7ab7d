/*
 * shard_read.h - read shards and check every byte, without HDF5.
 *
 * Offsets and checksums come from the manifest; the files are plain bytes.
 */
#ifndef CKPT_SHARD_READ_H
#define CKPT_SHARD_READ_H

#include "checkpoints/manifest.h"

/* Elements [begin, begin + count) of tensor number `tensor` of the checkpoint in `folder`,
 * from whichever shards have them.  Every block that holds one of them is checked.
 * KR_ERR_DATA or KR_ERR_IO with one line that names file and place. */
kr_status shard_read(const struct manifest *m, const char *folder, int32_t tensor,
                     int64_t begin, int64_t count, void *out);

/* The bytes of shard number `shard` outside all ranges, and its size. */
kr_status shard_check_frame(const struct manifest *m, const char *folder, int32_t shard);

/* Every byte of the shard. */
kr_status shard_verify(const struct manifest *m, const char *folder, int32_t shard);

/* XXH3-64 of the bytes of open file fd outside the given ranges of shard number `shard`
 * (of `ranges`, any order), in file order. */
kr_status shard_frame(int fd, const char *path, uint64_t bytes,
                      const struct ckpt_tensor *tensors, const struct ckpt_range *ranges,
                      int32_t count, int32_t shard, uint64_t *out);

#endif
