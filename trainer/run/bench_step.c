/*
 * bench_step.c - `bench step`: GPT-2 124M, 4 sequences of 256 tokens, random data.
 *
 * Model FLOP/s = tokens/s * (6 N_mm + 6 L H D T), family.h.  The machine's own rate is
 * the matrix library on a square product with all threads of all ranks, measured between
 * the steps of the same run.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "trainer/run/bench.h"
#include "trainer/run/trainer.h"

enum { SQUARE = 2048, TOKENS = 65536 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* A nanoGPT file of random tokens, at `path`. */
static kr_status write_tokens(char path[FS_PATH])
{
    uint16_t *tokens = NULL;
    kr_status st;

    TRY(fs_path(path, "/tmp/kilorank-bench-%d.bin", (int)getpid()));
    TRY(mem_alloc(&tokens, TOKENS, sizeof *tokens, "random tokens"));
    for (uint64_t i = 0; i < TOKENS; i++)
        tokens[i] = (uint16_t)(rng_u64(1, RNG_TEST, 0, i) % 50257);
    st = fs_replace(path, tokens, TOKENS * sizeof *tokens);
    mem_free(tokens);
    return st;
}

static void gpt2_settings(struct settings *s, const struct bench_args *a)
{
    (void)cfg_defaults(settings_table, s);
    s->family = FAMILY_GPT2;
    s->layers = 12;
    s->dim = 768;
    s->heads = 12;
    s->ffn = 3072;
    s->vocab = 50257;
    s->context = 256;
    s->batch = 4;
    s->threads = a->threads;
}

struct square {
    struct kern_mat a, b, c;
    void *at;
};

static kr_status open_square(struct square *s, struct trainer *t)
{
    enum kern_dtype type = kern_device_type(t->device);
    size_t bytes = (size_t)SQUARE * SQUARE * kern_dtype_bytes(type);

    TRY(kern_alloc(t->device, &s->at, 3 * bytes, "a square product"));
    s->a = kern_mat(s->at, SQUARE, SQUARE, type);
    s->b = kern_mat((char *)s->at + bytes, SQUARE, SQUARE, type);
    s->c = kern_mat((char *)s->at + 2 * bytes, SQUARE, SQUARE, type);
    TRY(kern_fill(t->q, s->a, 0.5));
    return kern_fill(t->q, s->b, 0.25);
}

/* FLOP/s of all ranks at once, as the steps run. */
static kr_status run_square(struct trainer *t, const struct square *s, double *rate)
{
    double start;

    TRY(comm_agree(t->comm, KR_OK));
    start = clock_now();
    for (int i = 0; i < 4; i++)
        TRY(kern_linear_fwd(t->q, s->c, s->a, s->b, kern_none, kern_none));
    TRY(kern_queue_sync(t->q));
    TRY(comm_agree(t->comm, KR_OK));
    *rate =
        4 * 2.0 * SQUARE * SQUARE * SQUARE * comm_size(t->comm) / (clock_now() - start);
    return KR_OK;
}

static kr_status measure(struct trainer *t, const struct square *s, int64_t rounds,
                         double *steps, double *squares, double *exposed)
{
    struct step_stats stats;

    for (int64_t i = -1; i < rounds; i++) { /* the first is to warm up */
        double stalled = kern_queue_stalled(t->q), start = clock_now(), rate;

        TRY(trainer_step(t, i + 1, (struct step_words){ 0 }, &stats, NULL));
        if (i >= 0) steps[i] = clock_now() - start;
        if (i >= 0) exposed[i] = kern_queue_stalled(t->q) - stalled;
        TRY(run_square(t, s, &rate));
        if (i >= 0) squares[i] = rate;
    }
    return KR_OK;
}

static void print(const struct trainer *t, int64_t rounds, double *steps, double *squares,
                  double *exposed)
{
    double flops = model_flops_per_token(&t->shape, t->set.context);
    double tokens = (double)(t->set.batch * t->set.context);
    double seconds = bench_median(steps, rounds), square = bench_median(squares, rounds);
    double rate = tokens / seconds * flops;
    bool bf16 = kern_device_type(t->device) == KERN_BF16;

    printf("GPT-2 124M, %lld x %lld tokens, %s, %s\n%s\n", (long long)t->set.batch,
           (long long)t->set.context, bf16 ? "bf16" : "fp32", comm_describe(t->comm),
           kern_device_describe(t->device));
    printf(
        "model FLOP per token = 6 N_mm + 6 L H D T = %.4g; N_mm: weights that multiply\n"
        "model rate = FLOP per token x tokens/s; ratio = model rate / matrix library\n\n",
        flops);
    printf("%-34s %12s\n", "median of the rounds", "");
    printf("%-34s %9.1f ms\n", "step", 1e3 * seconds);
    printf("%-34s %9.1f ms\n", "of it waiting for communication",
           1e3 * bench_median(exposed, rounds));
    printf("%-34s %9.0f tokens/s\n", "speed", tokens / seconds);
    printf("%-34s %9.1f GFLOP/s\n", "model rate", rate / 1e9);
    printf("%-34s %9.1f GFLOP/s\n", "matrix library, 2048^3, all ranks", square / 1e9);
    printf("%-34s %9.3f\n", "ratio", rate / square);
}

kr_status bench_step(struct comm *c, const struct bench_args *a)
{
    double *numbers = NULL;
    struct trainer t = { 0 };
    struct square square = { 0 };
    struct settings set;
    char path[FS_PATH];
    kr_status st;

    gpt2_settings(&set, a);
    set.micro_batch = set.batch / comm_size(c) > 0 ? set.batch / comm_size(c) : 1;
    TRY(settings_check_together(&set, c));
    TRY(write_tokens(path));
    snprintf(set.train, sizeof set.train, "%.170s", path);
    set.held_out = 0;
    TRY_OR(st, mem_alloc(&numbers, 3 * (size_t)a->rounds, sizeof *numbers, "times"),
           done);
    TRY_OR(st, trainer_open(&t, &set, c, true), done);
    TRY_OR(st, trainer_open_data(&t), done);
    TRY_OR(st, trainer_init(&t), done);
    TRY_OR(st, open_square(&square, &t), done);
    TRY_OR(st,
           measure(&t, &square, a->rounds, numbers, numbers + a->rounds,
                   numbers + 2 * a->rounds),
           done);
    if (comm_rank(c) == 0)
        print(&t, a->rounds, numbers, numbers + a->rounds, numbers + 2 * a->rounds);
done:
    if (square.at) kern_free(t.device, square.at);
    trainer_close(&t);
    mem_free(numbers);
    (void)fs_unlink(path);
    return st;
}
