/* lab.c - tensors with patterns around them. */
#include "tests/device/lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/mem.h"
#include "base/rng.h"

enum { PATTERN = 0xff /* NaN in every type */, MARGIN = 256 /* bytes at both ends */ };

static void must(kr_status st)
{
    if (st == KR_OK) return;
    printf("# the lab itself failed: %s\n", kr_status_text(st));
    exit(99);
}

enum kern_dtype lab_type(const struct lab *l)
{
    return kern_device_type(l->side[0].device);
}
enum kern_dtype lab_wide(const struct lab *l)
{
    return kern_device_wide(l->side[0].device);
}

int64_t lab_draw(struct lab *l, int64_t below)
{
    return (int64_t)(rng_u64(l->seed, RNG_TEST, 0, l->drawn++) % (uint64_t)below);
}

bool lab_flip(struct lab *l) { return lab_draw(l, 2) == 1; }

int64_t lab_dim(struct lab *l)
{
    static const int64_t awkward[] = { 1, 7, 31, 64, 65, 127, 128, 129 };
    int64_t n = lab_draw(l, 3);

    if (n == 0)
        n = awkward[lab_draw(l, 8)];
    else if (n == 1)
        n = 8 * (1 + lab_draw(l, l->most / 8));
    else
        n = 1 + lab_draw(l, l->most);
    return n < l->most ? n : l->most;
}

/* ---- elements ------------------------------------------------------------------------- */

static double get(enum kern_dtype type, const unsigned char *at, int64_t i)
{
    union {
        double d;
        float f;
        uint16_t h;
    } v;
    size_t size = kern_dtype_bytes(type);

    memcpy(&v, at + (size_t)i * size, size);
    return type == KERN_F64   ? v.d
           : type == KERN_F32 ? (double)v.f
                              : (double)bf16_value(v.h);
}

static void put(enum kern_dtype type, unsigned char *at, int64_t i, double x)
{
    union {
        double d;
        float f;
        uint16_t h;
    } v;
    size_t size = kern_dtype_bytes(type);

    if (type == KERN_F64) v.d = x;
    if (type == KERN_F32) v.f = (float)x;
    if (type == KERN_BF16) v.h = bf16_round((float)x);
    memcpy(at + (size_t)i * size, &v, size);
}

/* ---- tensors -------------------------------------------------------------------------- */

static void fill_box(struct lab *l, struct lab_tensor *t, double mean, double size)
{
    const uint64_t first = l->drawn;

#pragma omp parallel for num_threads(l->threads)
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t j = 0; j < t->cols; j++) {
            double x =
                rng_normal(l->seed, RNG_TEST, 1, first + (uint64_t)(i * t->cols + j));

            put(t->type, t->image, t->lead + i * t->ld + j, mean + size * x);
        }
    l->drawn += (uint64_t)(t->rows * t->cols);
}

int lab_tensor(struct lab *l, enum lab_use use, enum kern_dtype type, int64_t rows,
               int64_t cols, double mean, double size)
{
    struct lab_tensor *t = &l->t[l->count];
    bool ragged = rows > 1 && l->ragged;
    size_t elem = kern_dtype_bytes(type);

    t->use = use;
    t->type = type;
    t->rows = rows;
    t->cols = cols;
    t->ld = ragged ? cols + lab_draw(l, 4) : rows > 1 ? (cols + 7) / 8 * 8 : cols;
    t->lead = (int64_t)(MARGIN / elem) + (ragged ? lab_draw(l, 3) : 0);
    t->bytes = ((size_t)(t->lead + (rows - 1) * t->ld + cols) * elem) + MARGIN;
    must(mem_alloc(&t->image, t->bytes, 1, "image"));
    memset(t->image, PATTERN, t->bytes);
    if (use == LAB_IN || use == LAB_CHANGE) fill_box(l, t, mean, size);
    for (int s = 0; s < 2; s++) {
        must(kern_alloc(l->side[s].device, &t->at[s], t->bytes, "tensor"));
        must(mem_alloc(&t->result[s], t->bytes, 1, "result"));
    }
    return l->count++;
}

struct kern_mat lab_mat(const struct lab *l, int side, int number)
{
    const struct lab_tensor *t = &l->t[number < 0 ? 0 : number];
    struct kern_mat m = kern_none;

    if (number < 0) return m;
    m = kern_mat((char *)t->at[side] + (size_t)t->lead * kern_dtype_bytes(t->type),
                 t->rows, t->cols, t->type);
    m.ld = t->ld;
    return m;
}

void lab_ints(struct lab *l, int number, int64_t count, int64_t below, bool ignore)
{
    int32_t *at = NULL;

    must(mem_alloc(&at, (size_t)count, sizeof *at, "integers"));
    for (int64_t i = 0; i < count; i++)
        at[i] =
            ignore && lab_draw(l, 10) == 0 ? KERN_IGNORE : (int32_t)lab_draw(l, below);
    l->ints_host[number] = at;
    for (int s = 0; s < 2; s++) {
        must(kern_alloc(l->side[s].device, &l->ints[number][s],
                        (size_t)count * sizeof *at, "integers"));
        must(kern_upload(l->side[s].q, l->ints[number][s], at,
                         (size_t)count * sizeof *at));
        must(kern_queue_sync(l->side[s].q));
    }
}

void lab_slopes(struct lab *l, int64_t heads)
{
    float at[64];

    for (int64_t i = 0; i < heads; i++)
        at[i] = exp2f(-8.0f * (float)(i + 1) / (float)heads);
    for (int s = 0; s < 2; s++) {
        must(kern_alloc(l->side[s].device, &l->slopes[s], (size_t)heads * sizeof *at,
                        "slopes"));
        must(kern_upload(l->side[s].q, l->slopes[s], at, (size_t)heads * sizeof *at));
        must(kern_queue_sync(l->side[s].q));
    }
}

void lab_adopt(struct lab *l, int number)
{
    struct lab_tensor *t = &l->t[number];

    must(kern_download(l->side[1].q, t->image, t->at[1], t->bytes));
    must(kern_queue_sync(l->side[1].q));
}

void lab_send(struct lab *l, int side)
{
    for (int i = 0; i < l->count; i++)
        must(
            kern_upload(l->side[side].q, l->t[i].at[side], l->t[i].image, l->t[i].bytes));
}

void lab_fetch(struct lab *l, int side)
{
    for (int i = 0; i < l->count; i++)
        must(kern_download(l->side[side].q, l->t[i].result[side], l->t[i].at[side],
                           l->t[i].bytes));
    must(kern_queue_sync(l->side[side].q));
}

/* ---- comparing ------------------------------------------------------------------------ */

#define SMALL 0.05 /* operands are about 1 */

/* Do the bytes outside the box, or all of an input, still have their first values? */
static bool is_intact(const struct lab_tensor *t)
{
    size_t elem = kern_dtype_bytes(t->type), from = 0;

    if (t->use == LAB_IN) return memcmp(t->image, t->result[0], t->bytes) == 0;
    for (int64_t i = 0; i <= t->rows; i++) {
        size_t to = i < t->rows ? (size_t)(t->lead + i * t->ld) * elem : t->bytes;

        if (memcmp(t->image + from, t->result[0] + from, to - from) != 0) return false;
        from = to + (size_t)t->cols * elem;
    }
    return true;
}

/* What is typically less than SMALL came out of larger numbers that cancelled. */
static double typical_of(const struct lab_tensor *t)
{
    double size = 0;

    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t j = 0; j < t->cols; j++) {
            double b = get(t->type, t->result[1], t->lead + i * t->ld + j);

            size += isnan(b) ? 0 : b * b;
        }
    return fmax(sqrt(size / (double)(t->rows * t->cols)), SMALL);
}

/* |out - ref| / |ref|, and no element may be off by more than 32 times that of a typical
 * one: a lost row in a large matrix must not drown. */
static double distance(const struct lab_tensor *t)
{
    double apart = 0, worst = 0, typical;

    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t j = 0; j < t->cols; j++) {
            int64_t k = t->lead + i * t->ld + j;
            double a = get(t->type, t->result[0], k), b = get(t->type, t->result[1], k);
            double d = fabs(a - b);

            if (isnan(a) || isnan(b)) return NAN;
            apart += d * d;
            worst = d > worst ? d : worst;
        }
    if (apart == 0) return 0;
    typical = typical_of(t);
    apart = sqrt(apart / (double)(t->rows * t->cols)) / typical;
    worst = worst / typical / 32;
    return apart > worst ? apart : worst;
}

/* The elements that are off: their number and box, and the first. */
struct off {
    int64_t count, row[2], col[2], first_row, first_col;
    double got, want;
};

static struct off off_of(const struct lab_tensor *t, double most)
{
    struct off o = { .row = { t->rows, -1 }, .col = { t->cols, -1 } };

    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t j = 0; j < t->cols; j++) {
            int64_t k = t->lead + i * t->ld + j;
            double a = get(t->type, t->result[0], k), b = get(t->type, t->result[1], k);

            if (fabs(a - b) <= most || a == b) continue;
            if (o.count++ == 0) o.first_row = i, o.first_col = j, o.got = a, o.want = b;
            o.row[0] = i < o.row[0] ? i : o.row[0];
            o.row[1] = i > o.row[1] ? i : o.row[1];
            o.col[0] = j < o.col[0] ? j : o.col[0];
            o.col[1] = j > o.col[1] ? j : o.col[1];
        }
    return o;
}

void lab_explain(const struct lab *l, double tol)
{
    for (int i = 0; i < l->count; i++) {
        const struct lab_tensor *t = &l->t[i];
        struct off o;

        if (t->use == LAB_IN) continue;
        o = off_of(t, tol * typical_of(t));
        if (o.count == 0) continue;
        printf("# operand %d (%lld, %lld): %lld elements are off, rows %lld to %lld, "
               "columns "
               "%lld to %lld; (%lld, %lld) is %g, wanted %g\n",
               i, (long long)t->rows, (long long)t->cols, (long long)o.count,
               (long long)o.row[0], (long long)o.row[1], (long long)o.col[0],
               (long long)o.col[1], (long long)o.first_row, (long long)o.first_col, o.got,
               o.want);
    }
}

/* Of a tensor of one element: 0, or infinite. */
static double other_bits(const struct lab_tensor *t)
{
    size_t elem = kern_dtype_bytes(t->type), at = (size_t)t->lead * elem;

    return memcmp(t->result[0] + at, t->result[1] + at, elem) == 0 ? 0 : INFINITY;
}

double lab_error(const struct lab *l)
{
    double worst = 0;

    for (int i = 0; i < l->count; i++) {
        double d;

        if (!is_intact(&l->t[i])) return INFINITY;
        if (l->t[i].use == LAB_IN) continue;
        d = l->t[i].use == LAB_BITS ? other_bits(&l->t[i]) : distance(&l->t[i]);
        if (isnan(d)) return d;
        worst = d > worst ? d : worst;
    }
    return worst;
}

bool lab_same_bits(const struct lab *l, int number, const unsigned char *other)
{
    return memcmp(l->t[number].result[0], other, l->t[number].bytes) == 0;
}

void lab_clear(struct lab *l)
{
    for (int i = 0; i < l->count; i++) {
        mem_free(l->t[i].image);
        for (int s = 0; s < 2; s++) {
            kern_free(l->side[s].device, l->t[i].at[s]);
            mem_free(l->t[i].result[s]);
        }
    }
    for (int i = 0; i < LAB_INTS; i++) {
        mem_free(l->ints_host[i]);
        l->ints_host[i] = NULL;
        for (int s = 0; s < 2; s++) {
            kern_free(l->side[s].device, l->ints[i][s]);
            l->ints[i][s] = NULL;
        }
    }
    for (int s = 0; s < 2; s++) {
        kern_free(l->side[s].device, l->slopes[s]);
        l->slopes[s] = NULL;
    }
    memset(l->t, 0, sizeof l->t);
    l->count = 0;
    l->slack = 0;
}
