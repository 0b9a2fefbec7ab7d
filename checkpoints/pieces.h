/*
 * pieces.h - the state of a run as checkpoints and snapshots see it: named tensors and the
 * pieces of them that a rank stands for.
 */
#ifndef CKPT_PIECES_H
#define CKPT_PIECES_H

#include "checkpoints/manifest.h"

struct kern_queue;

/* Elements [begin, begin + count) of tensor number `tensor`, in device memory. */
struct ckpt_piece {
    int32_t tensor;
    int64_t begin, count;
    void *at;
};

/* What this rank holds.  tensors: the same list on all ranks; pieces: this rank's share.
 * Over all ranks the pieces tile every tensor exactly when saving; when loading, ranks
 * may ask for any ranges, also overlapping ones. */
struct ckpt_state {
    const struct ckpt_tensor *tensors;
    const struct ckpt_piece *pieces;
    int32_t tensor_count, piece_count;
};

/* Bytes of a piece; of all pieces; of all tensors. */
size_t piece_bytes(const struct ckpt_state *s, int32_t piece);
size_t pieces_bytes(const struct ckpt_state *s);
uint64_t pieces_whole_bytes(const struct ckpt_state *s);

/* [local] Copy the pieces, one after the other, out of device memory (to) or into it
 * (from) through q, and wait until that is done. */
kr_status pieces_download(const struct ckpt_state *s, struct kern_queue *q, char *to);
kr_status pieces_upload(const struct ckpt_state *s, struct kern_queue *q,
                        const char *from);

#endif
