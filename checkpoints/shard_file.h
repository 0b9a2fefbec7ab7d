/*
 * shard_file.h - shards and the view as HDF5 files; the only user of the HDF5 library.
 *
 * HDF5 is the layout, not the integrity layer: a shard is created with one contiguous,
 * early allocated dataset per range, closed, and its data then written by plain writes at
 * the datasets' offsets.  Any HDF5 reader opens it; ours (shard_read.h) never does.
 */
#ifndef CKPT_SHARD_FILE_H
#define CKPT_SHARD_FILE_H

#include "checkpoints/manifest.h"

/* Create `path` with a dataset for each range (tensor, begin, count are set) named
 * /KIND/NAME/BEGIN, and fill in offset of each.  Not durable yet.  KR_ERR_IO. */
kr_status shard_file_create(const char *path, const struct ckpt_tensor *tensors,
                            struct ckpt_range *ranges, int32_t count);

/* Write the virtual-dataset view: /KIND/NAME is the whole tensor, (rows, cols) or, for a
 * single row, (cols).  Sources are shards by relative name; a missing one reads as NaN,
 * so the view is for people and never trusted. */
kr_status shard_file_view(const char *path, const struct manifest *m);

#endif
