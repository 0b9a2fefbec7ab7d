/*
 * manifest.h - the list of what a checkpoint holds, and its checksums.
 *
 * manifest.json is the only proof that a checkpoint exists.  It names every shard with
 * its size, and every range of every tensor with the shard, the byte offset and one
 * XXH3-64 per block.  The bytes of a shard outside all ranges (HDF5's own metadata) are
 * its frame and have a checksum too, so every byte of every file is covered.  The last
 * member of the JSON object is the checksum of all text before it.
 *
 * Hostile until checked: manifest_parse accepts only what is consistent in itself.  The
 * ranges of each tensor tile it exactly; offsets lie inside shards and do not overlap;
 * file names are plain names.  No MPI, no HDF5 here.
 */
#ifndef CKPT_MANIFEST_H
#define CKPT_MANIFEST_H

#include <stdint.h>

#include "base/words.h"
#include "kernels/device.h" /* enum kern_dtype */

enum { MANIFEST_VERSION = 1, CKPT_NAME = 128, CKPT_BLOCK = 1 << 22 /* bytes */ };

/* A tensor of the logical state.  The name is "KIND/NAME", say "weight/block.3.mlp.up" or
 * "adam_m/embed.token": letters, digits, '.', '_', '-' and one '/'. */
struct ckpt_tensor {
    char name[CKPT_NAME];
    int64_t rows, cols;
    enum kern_dtype type;
};

/* Elements [begin, begin + count) of a tensor, row-major, at `offset` of a shard. */
struct ckpt_range {
    int32_t tensor, shard;
    int64_t begin, count;
    uint64_t offset;
    uint64_t *blocks; /* XXH3-64 of each CKPT_BLOCK bytes of the range, last one short */
};

struct ckpt_shard {
    char file[CKPT_NAME]; /* "shard-00002.h5", inside the checkpoint's folder */
    uint64_t bytes;
    uint64_t frame; /* XXH3-64 of the bytes outside all ranges, in file order */
};

struct manifest {
    int64_t step;       /* optimizer steps done */
    int64_t samples;    /* the data cursor: sequences consumed */
    int64_t generation; /* of the run that wrote it: fencing token of the lease */
    int32_t world;      /* ranks that wrote it */
    char *settings;     /* INI text, all settings as used */
    char *about;        /* one line: program version, host, device, libraries */
    struct ckpt_tensor *tensors;
    struct ckpt_range *ranges; /* by tensor, then begin */
    struct ckpt_shard *shards;
    int32_t tensor_count, range_count, shard_count;
    struct words names; /* of the tensors, in their order, once the manifest was read */
};

/* Number of blocks of a range. */
int64_t manifest_blocks(const struct ckpt_tensor *t, int64_t count);

/* JSON text with its checksum; caller frees with mem_free. */
kr_status manifest_print(const struct manifest *m, char **text);

/* KR_ERR_DATA with one line naming `source` and what is wrong.  On success the caller
 * frees *out with manifest_free. */
kr_status manifest_parse(struct manifest *out, const char *text, size_t bytes,
                         const char *source);

/* Read and parse FOLDER/manifest.json. */
kr_status manifest_read(struct manifest *out, const char *folder);
void manifest_free(struct manifest *m);

/* Index of a tensor of a manifest that was read, by name; -1: there is none. */
int32_t manifest_find(const struct manifest *m, const char *name);

#endif
