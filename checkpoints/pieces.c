/* pieces.c - sizes, and copies between a rank's pieces and one block of host memory. */
#include "checkpoints/pieces.h"

size_t piece_bytes(const struct ckpt_state *s, int32_t piece)
{
    const struct ckpt_piece *p = &s->pieces[piece];

    return (size_t)p->count * kern_dtype_bytes(s->tensors[p->tensor].type);
}

size_t pieces_bytes(const struct ckpt_state *s)
{
    size_t bytes = 0;

    for (int32_t i = 0; i < s->piece_count; i++)
        bytes += piece_bytes(s, i);
    return bytes;
}

uint64_t pieces_whole_bytes(const struct ckpt_state *s)
{
    uint64_t bytes = 0;

    for (int32_t i = 0; i < s->tensor_count; i++)
        bytes += (uint64_t)(s->tensors[i].rows * s->tensors[i].cols) *
                 kern_dtype_bytes(s->tensors[i].type);
    return bytes;
}

kr_status pieces_download(const struct ckpt_state *s, struct kern_queue *q, char *to)
{
    for (int32_t i = 0; i < s->piece_count; i++) {
        TRY(kern_download(q, to, s->pieces[i].at, piece_bytes(s, i)));
        to += piece_bytes(s, i);
    }
    return kern_queue_sync(q);
}

kr_status pieces_upload(const struct ckpt_state *s, struct kern_queue *q,
                        const char *from)
{
    for (int32_t i = 0; i < s->piece_count; i++) {
        TRY(kern_upload(q, s->pieces[i].at, from, piece_bytes(s, i)));
        from += piece_bytes(s, i);
    }
    return kern_queue_sync(q);
}
