/* rope.c - rotate pairs of channels by the angle of their position. */
#include "kernels/cpu/ops.h"

static void turn_half(real *x, const real *cosine, const real *sine, int64_t half,
                      real sign)
{
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        real a = x[i], b = x[i + half], s = sign * sine[i];

        x[i] = a * cosine[i] - b * s;
        x[i + half] = b * cosine[i] + a * s;
    }
}

static void turn_interleaved(real *x, const real *cosine, const real *sine, int64_t half,
                             real sign)
{
    for (int64_t i = 0; i < half; i++) {
        real a = x[2 * i], b = x[2 * i + 1], s = sign * sine[i];

        x[2 * i] = a * cosine[i] - b * s;
        x[2 * i + 1] = b * cosine[i] + a * s;
    }
}

kr_status CPU(rope)(void *stream, struct kern_mat x, struct kern_mat table, int64_t heads,
                    int64_t head_dim, int64_t seq, enum kern_pairing pairing,
                    bool inverse)
{
    int64_t half = table.cols / 2;
    real sign = inverse ? -1 : 1;

#pragma omp parallel for num_threads(team(stream, x.rows *x.cols))
    for (int64_t n = 0; n < x.rows; n++) {
        const real *cosine = row(table, n % seq), *sine = cosine + half;

        for (int64_t h = 0; h < heads; h++) {
            real *at = row(x, n) + h * head_dim;

            if (pairing == KERN_ROPE_HALF)
                turn_half(at, cosine, sine, half, sign);
            else
                turn_interleaved(at, cosine, sine, half, sign);
        }
    }
    return KR_OK;
}
