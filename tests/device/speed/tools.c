/* tools.c - operands, timing, rows of a peer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tests/device/speed/speed.h"

enum { CHUNK = 1000003 };       /* a prime: no two rows are alike */
static const double COLD = 2e8; /* bytes, three times what the cache of an H200 holds */

struct speed speed = { .rounds = 11 };

void must(kr_status st)
{
    if (st != KR_OK) exit(1);
}

/* One chunk of numbers, again and again. */
struct kern_mat random_mat(int64_t sets, int64_t rows, int64_t cols, enum kern_dtype type)
{
    static float normal[CHUNK];
    struct kern_mat m = kern_mat(NULL, rows, cols, type), wide;
    struct kern_mat flat = kern_mat(NULL, 1, sets * rows * cols, type);
    const int64_t most = flat.cols < CHUNK ? flat.cols : CHUNK;
    void *chunk = NULL;

    for (int64_t i = 0; i < most && (normal[0] == 0 || normal[most - 1] == 0); i++)
        normal[i] = (float)rng_normal(1, RNG_TEST, 0, (uint64_t)i);
    must(kern_alloc(speed.device, &m.at, (size_t)flat.cols * kern_dtype_bytes(type),
                    "operand"));
    must(kern_alloc(speed.device, &chunk, (size_t)most * sizeof *normal, "operand"));
    must(kern_upload(speed.q, chunk, normal, (size_t)most * sizeof *normal));
    wide = kern_mat(chunk, 1, most, KERN_F32);
    flat.at = m.at;
    for (int64_t at = 0; at < flat.cols; at += most) {
        wide.cols = flat.cols - at < most ? flat.cols - at : most;
        must(kern_copy(speed.q, kern_cols(flat, at, wide.cols), wide));
    }
    must(kern_queue_sync(speed.q));
    kern_free(speed.device, chunk);
    return m;
}

void drop(struct kern_mat m) { kern_free(speed.device, m.at); }

int64_t sets_of(double bytes)
{
    return speed.small ? 2 : bytes > COLD ? 1 : (int64_t)(COLD / bytes) + 1;
}

/* ---- timing --------------------------------------------------------------------------- */

/* The job on another set of operands than the call before. */
static kr_status run_next(const struct job *j)
{
    static int64_t turn;
    struct job now = *j;

    turn++;
    for (size_t k = 0; k < sizeof now.m / sizeof *now.m && j->sets > 1; k++)
        if (now.m[k].at)
            now.m[k] = kern_rows(now.m[k], turn % j->sets * now.m[k].rows, now.m[k].rows);
    return j->run(&now);
}

double seconds(const struct job *j, int calls)
{
    double start;

    must(kern_queue_sync(speed.q));
    start = clock_now();
    for (int i = 0; i < calls; i++)
        must(run_next(j));
    must(kern_queue_sync(speed.q));
    return (clock_now() - start) / calls;
}

int calls_of(const struct job *j)
{
    double once;

    (void)seconds(j, 1); /* loads the kernel */
    if (speed.small) return 1;
    once = seconds(j, 2);
    return once > 0.02 ? 1 : (int)(0.02 / once) + 1;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *t)
{
    qsort(t, (size_t)speed.rounds, sizeof *t, by_size);
    return t[speed.rounds / 2];
}

double time_of(const struct job *j)
{
    double t[MOST_ROUNDS];
    int calls = calls_of(j);

    for (int r = 0; r < speed.rounds; r++)
        t[r] = seconds(j, calls);
    return median(t);
}

void duel(const struct job *a, const struct job *b, double *time_a, double *time_b)
{
    double ta[MOST_ROUNDS], tb[MOST_ROUNDS];
    int calls = calls_of(a);

    (void)seconds(b, 1);
    for (int r = 0; r < speed.rounds; r++) { /* who begins alternates too */
        if (r % 2) tb[r] = seconds(b, calls);
        ta[r] = seconds(a, calls);
        if (r % 2 == 0) tb[r] = seconds(b, calls);
    }
    *time_a = median(ta);
    *time_b = median(tb);
}

/* ---- the peer ------------------------------------------------------------------------- */

double peer(const char *name)
{
    FILE *f = speed.peer ? fopen(speed.peer, "r") : NULL;
    char line[256], at[128];
    double value = NAN, here;

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%127s %lf", at, &here) == 2 && strcmp(at, name) == 0)
            value = here;
    if (f) (void)fclose(f);
    return value;
}
