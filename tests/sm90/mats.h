/*
 * mats.h - matrices for the tests of the Hopper kernels: random values, or NaN, in a frame
 * of NaNs.
 */
#ifndef TESTS_SM90_MATS_H
#define TESTS_SM90_MATS_H

#include <vector>

extern "C" {
#include "base/rng.h"
}
#include "tests/sm90/machine.h"

enum { FRAME = 64 }; /* bytes before and after; multiples of 16, also every ld */

struct mat {
    struct kern_mat m = {};
    std::vector<uint8_t> bytes;
};

static inline size_t mat_bytes(const struct kern_mat &m)
{
    return kern_dtype_bytes(m.type);
}

static inline struct mat mat_make(int64_t rows, int64_t cols, enum kern_dtype type)
{
    struct mat x;

    x.m = kern_mat(nullptr, rows, cols, type);
    x.m.ld = (cols + 8 + 7) / 8 * 8;
    x.bytes.assign((size_t)(rows * x.m.ld) * mat_bytes(x.m) + 2 * FRAME, 0xff);
    return x;
}

/* Vectors move when structs are copied: fix the pointer before use. */
static inline void mat_place(struct mat &x)
{
    if (!x.bytes.empty()) x.m.at = x.bytes.data() + FRAME;
}

static inline double mat_get(const struct mat &x, int64_t row, int64_t col)
{
    const uint8_t *at =
        x.bytes.data() + FRAME + (size_t)(row * x.m.ld + col) * mat_bytes(x.m);
    uint16_t half;
    float f;

    if (x.m.type == KERN_BF16) {
        memcpy(&half, at, 2);
        return m_bf16(half);
    }
    memcpy(&f, at, 4);
    return f;
}

static inline void mat_set(struct mat &x, int64_t row, int64_t col, double value)
{
    uint8_t *at = x.bytes.data() + FRAME + (size_t)(row * x.m.ld + col) * mat_bytes(x.m);
    uint16_t half = m_round((float)value);
    float f = (float)value;

    if (x.m.type == KERN_BF16)
        memcpy(at, &half, 2);
    else
        memcpy(at, &f, 4);
}

/* Normal values, `scale` wide. */
static inline struct mat mat_random(int64_t rows, int64_t cols, enum kern_dtype type,
                                    uint32_t seed, double scale)
{
    struct mat x = mat_make(rows, cols, type);

    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            mat_set(x, i, j,
                    scale * rng_normal(7, RNG_TEST, seed, (uint64_t)(i * cols + j)));
    return x;
}

/* Nothing but the matrix itself was written. */
static inline bool mat_framed(const struct mat &x)
{
    size_t elem = mat_bytes(x.m), row = (size_t)x.m.ld * elem;
    size_t used = (size_t)x.m.cols * elem, body = (size_t)x.m.rows * row;

    for (size_t i = 0; i < x.bytes.size(); i++) {
        bool inside = i >= FRAME && i < FRAME + body && (i - FRAME) % row < used;

        if (!inside && x.bytes[i] != 0xff) return false;
    }
    return true;
}

/* Every way in which the machine may order asynchronous work. */
template <class F> static inline void each_order(F run)
{
    for (int i = 0; i < 4; i++) {
        machine.late_copies = i & 1;
        machine.late_products = i >> 1 & 1;
        run();
    }
}

#endif
