/*
 * arena.h - many matrices in one block of device memory.
 *
 * A layout function takes matrices from an arena; it is run twice: with base NULL it only
 * counts bytes, then with the block that holds them all.
 */
#ifndef TRAIN_ARENA_H
#define TRAIN_ARENA_H

#include "kernels/kernels.h"

struct arena {
    char *base; /* NULL while counting */
    size_t used;
    enum kern_dtype type, wide; /* of the device */
};

enum { ARENA_ALIGN = 256 /* bytes */ };

static inline void *arena_bytes(struct arena *a, size_t bytes)
{
    void *at = a->base ? a->base + a->used : NULL;

    a->used += (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return at;
}

static inline struct kern_mat arena_typed(struct arena *a, int64_t rows, int64_t cols,
                                          enum kern_dtype type)
{
    size_t bytes = (size_t)(rows * cols) * kern_dtype_bytes(type);

    return kern_mat(arena_bytes(a, bytes), rows, cols, type);
}

static inline struct kern_mat arena_mat(struct arena *a, int64_t rows, int64_t cols)
{
    return arena_typed(a, rows, cols, a->type);
}

static inline struct kern_mat arena_wide(struct arena *a, int64_t rows, int64_t cols)
{
    return arena_typed(a, rows, cols, a->wide);
}

#endif
