/*
 * bench_matmul.c - `bench matmul`: the products of one GPT-2 124M step of 1024 tokens.
 *
 * Columns: ours (the library on one thread per block, kernels/cpu/matmul.c) and the
 * library on its own threads, interleaved; KILORANK_BLAS and OPENBLAS_CORETYPE choose the
 * library and its kernels, which a process can do only once: run the command again with
 * another choice to compare.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/cpu/blas.h"
#include "kernels/kernels.h"
#include "trainer/run/bench.h"

enum { MAX_ROUNDS = 1000, HEAD = 50257, ROWS = 1024, HEAD_ROWS = 256 };

/* y = x w^T, dx = dy w, dw = dy^T x for a linear layer of `in` to `out` channels. */
static const struct {
    const char *name;
    int64_t in, out;
} layers[] = {
    { "qkv", 768, 2304 },      { "attention out", 768, 768 },   { "mlp up", 768, 3072 },
    { "mlp down", 3072, 768 }, { "head, 256 rows", 768, HEAD },
};
static const char *const ways[] = { "forward", "backward x", "backward w" };

struct product {
    int64_t n, in, out;
    float *x, *y, *w;
};

static kr_status ours(struct kern_queue *q, const struct product *p, int way)
{
    struct kern_mat x = kern_mat(p->x, p->n, p->in, KERN_F32);
    struct kern_mat y = kern_mat(p->y, p->n, p->out, KERN_F32);
    struct kern_mat w = kern_mat(p->w, p->out, p->in, KERN_F32);

    if (way == 0) return kern_linear_fwd(q, y, x, w, kern_none, kern_none);
    if (way == 1) return kern_linear_bwd_x(q, x, y, w, false);
    return kern_linear_bwd_w(q, w, kern_none, y, x, false);
}

static void theirs(const struct product *p, int way)
{
    if (way == 0)
        cpu_gemm(false, true, p->n, p->out, p->in, 1, p->x, p->in, p->w, p->in, 0, p->y,
                 p->out);
    else if (way == 1)
        cpu_gemm(false, false, p->n, p->in, p->out, 1, p->y, p->out, p->w, p->in, 0, p->x,
                 p->in);
    else
        cpu_gemm(true, false, p->out, p->in, p->n, 1, p->y, p->out, p->x, p->in, 0, p->w,
                 p->in);
}

static kr_status row(struct kern_queue *q, const struct product *p, int way, int threads,
                     int64_t rounds, const char *name)
{
    double mine[MAX_ROUNDS], other[MAX_ROUNDS], flop, a, b;

    for (int64_t i = -1; i < rounds; i++) {
        double start = clock_now(), middle;

        TRY(ours(q, p, way));
        middle = clock_now();
        blas_set_threads(threads);
        theirs(p, way);
        blas_set_threads(1);
        if (i < 0) continue;
        mine[i] = middle - start;
        other[i] = clock_now() - middle;
    }
    flop = 2.0 * (double)p->n * (double)p->in * (double)p->out;
    a = flop / bench_median(mine, rounds) / 1e9;
    b = flop / bench_median(other, rounds) / 1e9;
    printf("%-16s %-12s %10.1f %12.1f %8.3f\n", name, ways[way], a, b, a / b);
    return KR_OK;
}

/* All products of layer number i. */
static kr_status layer(struct kern_queue *q, int i, int threads, int64_t rounds)
{
    struct product p = { layers[i].out == HEAD ? HEAD_ROWS : ROWS,
                         layers[i].in,
                         layers[i].out,
                         NULL,
                         NULL,
                         NULL };
    kr_status st;

    TRY_OR(st, mem_alloc(&p.x, (size_t)(p.n * p.in), sizeof *p.x, "matrices"), done);
    TRY_OR(st, mem_alloc(&p.y, (size_t)(p.n * p.out), sizeof *p.y, "matrices"), done);
    TRY_OR(st, mem_alloc(&p.w, (size_t)(p.out * p.in), sizeof *p.w, "matrices"), done);
    for (int way = 0; way < 3 && st == KR_OK; way++)
        st = row(q, &p, way, threads, rounds, layers[i].name);
done:
    mem_free(p.x);
    mem_free(p.y);
    mem_free(p.w);
    return st;
}

static kr_status table(struct kern_device *d, struct kern_queue *q, int threads,
                       int64_t rounds)
{
    kr_status st = KR_OK;

    printf("%s\nfp32, median of %lld interleaved rounds; GFLOP/s: 2 rows inputs outputs "
           "/ time\n\n",
           kern_device_describe(d), (long long)rounds);
    printf("%-16s %-12s %10s %12s %8s\n", "layer", "", "ours", "own threads", "ratio");
    for (size_t i = 0; i < sizeof layers / sizeof *layers && st == KR_OK; i++)
        st = layer(q, (int)i, threads, rounds);
    return st;
}

kr_status bench_matmul(struct comm *c, const struct bench_args *a)
{
    int threads = a->threads > 0 ? (int)a->threads : comm_threads(c);
    struct kern_device *d = NULL;
    struct kern_queue *q = NULL;
    kr_status st;

    TRY(kern_device_open(&d, "cpu", 0, threads));
    st = kern_queue_open(&q, d, KERN_QUEUE_COMPUTE);
    if (st == KR_OK) st = table(d, q, threads, a->rounds);
    kern_queue_close(q);
    kern_device_close(d);
    return st;
}
