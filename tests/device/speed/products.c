/* products.c - the matrix products of models, against the best of cuBLASLt. */
#include <math.h>

#include "tests/device/speed/lt.h"

struct layer {
    const char *name;
    int64_t o, i;
};

static const struct layer layers[] = {
    { "gpt2-124M qkv", 2304, 768 },  { "gpt2-124M out", 768, 768 },
    { "gpt2-124M up", 3072, 768 },   { "gpt2-124M down", 768, 3072 },
    { "gpt2-1.5B qkv", 4800, 1600 }, { "gpt2-1.5B out", 1600, 1600 },
    { "gpt2-1.5B up", 6400, 1600 },  { "gpt2-1.5B down", 1600, 6400 },
    { "llama-1B qkv", 3072, 2048 },  { "llama-1B out", 2048, 2048 },
    { "llama-1B up", 16384, 2048 },  { "llama-1B down", 2048, 8192 },
    { "llama-8B qkv", 6144, 4096 },  { "llama-8B out", 4096, 4096 },
    { "llama-8B up", 28672, 4096 },  { "llama-8B down", 4096, 14336 },
};

/* m: y, x, w, dw */
static kr_status forward(const struct job *j)
{
    return kern_linear_fwd(speed.q, j->m[0], j->m[1], j->m[2], kern_none, kern_none);
}
static kr_status data_grad(const struct job *j)
{
    return kern_linear_bwd_x(speed.q, j->m[1], j->m[0], j->m[2], false);
}
static kr_status weight_grad(const struct job *j)
{
    return kern_linear_bwd_w(speed.q, j->m[3], kern_none, j->m[0], j->m[1], true);
}
/* m, as lt_best got them: c, a, b */
static kr_status rival(const struct job *j)
{
    return lt_run(j->other, j->m[0].at, j->m[1].at, j->m[2].at);
}

/* Which of m are c, a and b of the product. */
static const struct way {
    const char *name;
    kr_status (*run)(const struct job *j);
    int c, a, b;
    bool ta, tb, add;
} ways[] = {
    { "forward", forward, 0, 1, 2, false, true, false },
    { "data grad", data_grad, 1, 0, 2, false, false, false },
    { "weight grad", weight_grad, 3, 0, 1, true, false, true },
};
enum { WAYS = sizeof ways / sizeof *ways };

/* Of the ratios so far. */
static struct {
    double logs, least;
    int count;
} sum = { 0, INFINITY, 0 };

static void one(const char *name, const struct way *way, struct job *j, bool has_rival)
{
    const struct kern_mat *m = j->m;
    double flops = 2.0 * (double)m[0].rows * (double)m[2].rows * (double)m[2].cols, own;
    double theirs = NAN;
    struct lt_product *best = NULL;
    int tried = 0;

    j->run = way->run;
    if (has_rival)
        best = lt_best(m[way->c], m[way->a], way->ta, m[way->b], way->tb, way->add,
                       j->sets, &tried);
    if (best) {
        struct job other = { .run = rival,
                             .m = { m[way->c], m[way->a], m[way->b] },
                             .sets = j->sets,
                             .other = best };

        duel(j, &other, &own, &theirs);
        sum.logs += log(theirs / own);
        sum.least = fmin(sum.least, theirs / own);
        sum.count++;
    } else {
        own = time_of(j);
    }
    printf("%-15s %-11s %6lld x %5lld x %5lld  %9.3f ms %7.1f TFLOP/s", name, way->name,
           (long long)m[0].rows, (long long)m[2].rows, (long long)m[2].cols, own * 1e3,
           flops / own / 1e12);
    if (best)
        printf("   best of %2d: %7.1f  ratio %5.3f", tried, flops / theirs / 1e12,
               theirs / own);
    printf("\n");
    lt_drop(best);
}

static void layer(const struct layer *l, int64_t n, bool has_rival)
{
    const double kept = (double)(n * (l->o + l->i) + l->o * l->i);
    const int64_t sets = sets_of(kept * (double)kern_dtype_bytes(speed.type));
    struct job j = { .m = { random_mat(sets, n, l->o, speed.type),
                            random_mat(sets, n, l->i, speed.type),
                            random_mat(sets, l->o, l->i, speed.type),
                            random_mat(sets, l->o, l->i, speed.wide) },
                     .sets = sets };

    for (int w = 0; w < WAYS; w++)
        one(l->name, &ways[w], &j, has_rival);
    for (int k = 0; k < 4; k++)
        drop(j.m[k]);
}

void speed_products(void)
{
    static const struct layer tiny = { "tiny", 70, 50 };
    const char *rivals = speed.small ? NULL : lt_open();

    printf("\nProducts: N tokens x outputs x inputs; FLOP = 2 N O I; rival: %s\n",
           rivals ? rivals : "none");
    if (speed.small) layer(&tiny, 40, false);
    for (int64_t n = 16384; n <= 32768 && !speed.small; n *= 2)
        for (size_t k = 0; k < sizeof layers / sizeof *layers; k++)
            layer(&layers[k], n, rivals != NULL);
    if (sum.count)
        printf("%d ratios: geometric mean %.3f, least %.3f\n", sum.count,
               exp(sum.logs / sum.count), sum.least);
    if (rivals) lt_close();
}
