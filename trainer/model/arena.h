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
    enum kern_dtype type;
};

enum { ARENA_ALIGN = 256 /* bytes */ };

static inline void *arena_bytes(struct arena *a, size_t bytes)
{
    void *at = a->base ? a->base + a->used : NULL;

    a->used += (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return at;
}

static inline struct kern_mat arena_mat(struct arena *a, int64_t rows, int64_t cols)
{
    size_t bytes = (size_t)(rows * cols) * kern_dtype_bytes(a->type);

    return kern_mat(arena_bytes(a, bytes), rows, cols, a->type);
}

#endif
