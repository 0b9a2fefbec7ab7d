/*
 * hf_output.h - a folder that appears whole or not at all.
 *
 * Everything is written to PATH.partial-HOST-PID beside it, made durable, and then renamed.  A
 * process that is killed leaves at most that folder behind, which nothing ever reads.  The
 * next one with the same PATH removes it if it is of the same host and the lock on it (flock),
 * which dies with its process, is free; what may be somebody's it only names.
 */
#ifndef TRAIN_HF_OUTPUT_H
#define TRAIN_HF_OUTPUT_H

#include "base/fs.h"

struct hf_output {
    char path[FS_PATH], partial[FS_PATH];
    int lock; /* partial, open; -1 where folders cannot be locked */
};

/* `path` must be missing or an empty folder, and its disk have room for `bytes`.  KR_ERR_ARG
 * or KR_ERR_IO with one line. */
kr_status hf_output_begin(struct hf_output *out, const char *path, uint64_t bytes);

/* Rename what was written if st is KR_OK, else remove it and return st. */
kr_status hf_output_end(struct hf_output *out, kr_status st);

/* Copy a file, durably; a missing one is fine and *there says so. */
kr_status hf_output_copy(const char *from_folder, const char *to_folder, const char *name,
                         bool *there);

#endif
