/*
 * rig.h - a small run to save and load: tensors whose every element is a function of
 * (seed, tensor, element), on the CPU device with the self comm.  Included by the tests
 * of checkpoints.
 */
#ifndef TESTS_RIG_H
#define TESTS_RIG_H

#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "checkpoints/ckpt.h"
#include "tests/check.h"

enum { RIG_TENSORS = 4 };

static const struct ckpt_tensor rig_small[RIG_TENSORS] = {
    { "weight/embed.token", 37, 21, KERN_F32 },
    { "weight/norm.gain", 1, 333, KERN_F32 },
    { "weight/half", 9, 13, KERN_BF16 },
    { "adam_m/embed.token", 37, 21, KERN_F64 },
};

struct rig {
    struct comm *comm;
    struct kern_device *device;
    struct kern_queue *q;
    struct ckpt_tensor tensors[RIG_TENSORS];
    struct ckpt_piece pieces[RIG_TENSORS * 4];
    struct ckpt_state state;
};

/* Byte number i of a tensor in the state of `seed`. */
static inline char rig_byte(uint64_t seed, int32_t tensor, int64_t i)
{
    uint64_t word = rng_u64(seed, RNG_TEST, (uint32_t)tensor, (uint64_t)i / 8);

    return (char)(word >> 8 * (i % 8));
}

static inline int64_t rig_elem(const struct rig *r, const struct ckpt_piece *p)
{
    return (int64_t)kern_dtype_bytes(r->tensors[p->tensor].type);
}

/* Give every piece the bytes of state `seed`, or zeros for seed 0. */
static inline void rig_fill(struct rig *r, uint64_t seed)
{
    for (int32_t i = 0; i < r->state.piece_count; i++) {
        const struct ckpt_piece *p = &r->pieces[i];
        int64_t elem = rig_elem(r, p);

        for (int64_t b = 0; b < p->count * elem; b++)
            ((char *)p->at)[b] =
                seed ? rig_byte(seed, p->tensor, p->begin * elem + b) : 0;
    }
}

/* Bytes that differ from the state of `seed`. */
static inline int64_t rig_wrong(const struct rig *r, uint64_t seed)
{
    int64_t wrong = 0;

    for (int32_t i = 0; i < r->state.piece_count; i++) {
        const struct ckpt_piece *p = &r->pieces[i];
        int64_t elem = rig_elem(r, p);

        for (int64_t b = 0; b < p->count * elem; b++)
            wrong += ((char *)p->at)[b] != rig_byte(seed, p->tensor, p->begin * elem + b);
    }
    return wrong;
}

static inline void rig_must(kr_status st)
{
    if (st != KR_OK) {
        printf("# the rig itself failed: %s\n", kr_status_text(st));
        exit(99);
    }
}

static inline void rig_add_piece(struct rig *r, int32_t tensor, int64_t begin,
                                 int64_t end)
{
    struct ckpt_piece *p = &r->pieces[r->state.piece_count];

    if (begin >= end) return;
    *p = (struct ckpt_piece){ .tensor = tensor, .begin = begin, .count = end - begin };
    rig_must(kern_alloc(r->device, &p->at, (size_t)(p->count * rig_elem(r, p)), "test"));
    r->state.piece_count++;
}

/* This rank's share: each tensor is cut at `size - 1` places that depend on `awkward`:
 * ragged, inside rows, and with one rank left empty where that is possible. */
static inline void rig_split(struct rig *r, int32_t rank, int32_t size, int awkward)
{
    for (int32_t t = 0; t < RIG_TENSORS; t++) {
        int64_t n = r->tensors[t].rows * r->tensors[t].cols, at[65] = { 0 };

        for (int32_t i = 1; i < size; i++) {
            int64_t gap = (n - at[i - 1]) / (2 + (i * 7 + t + awkward) % 5);

            at[i] = at[i - 1] + ((i + t) % 3 == awkward % 3 ? 0 : gap);
        }
        at[size] = n;
        rig_add_piece(r, t, at[rank], at[rank + 1]);
    }
}

/* Open with `comm` (NULL: an own self comm); no pieces yet. */
static inline void rig_open(struct rig *r, const struct ckpt_tensor *tensors)
{
    *r = (struct rig){ 0 };
    rig_must(kern_device_open(&r->device, "cpu", 0, 1));
    rig_must(kern_queue_open(&r->q, r->device, KERN_QUEUE_COMPUTE));
    memcpy(r->tensors, tensors, sizeof r->tensors);
    r->state.tensors = r->tensors;
    r->state.tensor_count = RIG_TENSORS;
    r->state.pieces = r->pieces;
}

static inline void rig_close(struct rig *r)
{
    for (int32_t i = 0; i < r->state.piece_count; i++)
        kern_free(r->device, r->pieces[i].at);
    kern_queue_close(r->q);
    kern_device_close(r->device);
}

/* As the trainer resumes: from the newest that loads.  *step: its number, -1 if there is
 * nothing to load. */
static inline kr_status rig_load(struct ckpt *k, struct rig *r, int64_t *step)
{
    for (;;) {
        struct ckpt_info info;
        kr_status st;

        TRY(ckpt_next(k, &info));
        *step = info.step;
        if (info.step < 0) return KR_OK;
        mem_free(info.settings);
        rig_fill(r, 0);
        st = ckpt_read(k, r->q, &r->state);
        if (st != KR_ERR_DATA && st != KR_ERR_IO) return st;
    }
}

static inline void rig_folder(char out[FS_PATH], const char *name)
{
    const char *base = getenv("TMPDIR");

    rig_must(fs_path(out, "%s/kilorank-%s-XXXXXX", base ? base : "/tmp", name));
    if (!mkdtemp(out)) rig_must(KR_ERR_IO);
}

#endif
