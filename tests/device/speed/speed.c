/*
 * speed.c - how fast a GPU's operations are; one table.
 * usage: speed [--small] [--rounds N] [DEVICE]      (default: cuda)
 *
 *   --small    tiny shapes, to see that the program works
 *   --rounds   blocks of calls of each thing, in turn with its rival (default 11)
 *
 * A row is the median over the rounds.  Products alternate between our kernels and
 * cuBLAS's own choice (not the best of cuBLASLt's algorithms); operations that move memory
 * are held against a copy, bytes counted once for each operand read and each written.
 * Operands are normal, never zeros.  FLOPs of attention count the causal half; the
 * backward counts 2.5 times the forward, whatever is computed twice.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"

enum { MOST_ROUNDS = 99, CHUNK = 1 << 16 };

static struct {
    bool small;
    int rounds;
} want = { false, 11 };

static struct kern_device *device;
static struct kern_queue *q;

static void must(kr_status st)
{
    if (st != KR_OK) exit(1);
}

/* ---- operands ------------------------------------------------------------------------- */

/* Normal numbers: one chunk of them, again and again. */
static struct kern_mat random_mat(int64_t rows, int64_t cols, enum kern_dtype type)
{
    static float normal[CHUNK];
    struct kern_mat m = kern_mat(NULL, rows, cols, type), wide;
    void *chunk = NULL;

    if (normal[0] == 0)
        for (int i = 0; i < CHUNK; i++)
            normal[i] = (float)rng_normal(1, RNG_TEST, 0, (uint64_t)i);
    must(kern_alloc(device, &m.at, (size_t)(rows * cols) * kern_dtype_bytes(type),
                    "operand"));
    must(kern_alloc(device, &chunk, sizeof normal, "operand"));
    must(kern_upload(q, chunk, normal, sizeof normal));
    wide = kern_mat(chunk, 1, CHUNK, KERN_F32);
    for (int64_t at = 0; at < rows * cols; at += CHUNK) {
        struct kern_mat to = kern_mat(m.at, 1, rows * cols, type);

        wide.cols = rows * cols - at < CHUNK ? rows * cols - at : CHUNK;
        must(kern_copy(q, kern_cols(to, at, wide.cols), wide));
    }
    must(kern_queue_sync(q));
    kern_free(device, chunk);
    return m;
}

static void drop(struct kern_mat m) { kern_free(device, m.at); }

/* ---- timing --------------------------------------------------------------------------- */

struct job {
    kr_status (*run)(const struct job *j);
    struct kern_mat m[6];
    struct kern_heads heads;
    struct kern_adamw adamw;
    int32_t *labels;
};

static double seconds(const struct job *j, int calls)
{
    double start;

    must(kern_queue_sync(q));
    start = clock_now();
    for (int i = 0; i < calls; i++)
        must(j->run(j));
    must(kern_queue_sync(q));
    return (clock_now() - start) / calls;
}

/* Calls that take about a fiftieth of a second. */
static int calls_of(const struct job *j)
{
    double once;

    (void)seconds(j, 1); /* loads the kernel */
    once = seconds(j, 2);
    return once > 0.02 ? 1 : want.small ? 1 : (int)(0.02 / once) + 1;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *t)
{
    qsort(t, (size_t)want.rounds, sizeof *t, by_size);
    return t[want.rounds / 2];
}

static double time_of(const struct job *j)
{
    double t[MOST_ROUNDS];
    int calls = calls_of(j);

    for (int r = 0; r < want.rounds; r++)
        t[r] = seconds(j, calls);
    return median(t);
}

/* ---- products ------------------------------------------------------------------------- */

static kr_status run_fwd(const struct job *j)
{
    return kern_linear_fwd(q, j->m[0], j->m[1], j->m[2], kern_none, false);
}
static kr_status run_bwd_x(const struct job *j)
{
    return kern_linear_bwd_x(q, j->m[1], j->m[0], j->m[2], false);
}
static kr_status run_bwd_w(const struct job *j)
{
    return kern_linear_bwd_w(q, j->m[3], kern_none, j->m[0], j->m[1], true);
}

/* Ours and the library's in turn; *library is NaN where there is none. */
static void duel(struct job *j, bool has_library, double *own, double *library)
{
    double mine[MOST_ROUNDS], theirs[MOST_ROUNDS];
    int calls = calls_of(j);

    for (int r = 0; r < want.rounds; r++) {
        must(kern_device_matmul(device, KERN_MATMUL_OWN));
        mine[r] = seconds(j, calls);
        if (!has_library) continue;
        must(kern_device_matmul(device, KERN_MATMUL_CUBLAS));
        theirs[r] = seconds(j, calls);
    }
    must(kern_device_matmul(device, KERN_MATMUL_OWN));
    *own = median(mine);
    *library = has_library ? median(theirs) : NAN;
}

static double products_of(int64_t n, int64_t o, int64_t i, const char *name,
                          bool has_library)
{
    static const struct {
        const char *name;
        kr_status (*run)(const struct job *j);
    } ways[] = { { "forward", run_fwd },
                 { "data grad", run_bwd_x },
                 { "weight grad", run_bwd_w } };
    enum kern_dtype type = kern_device_type(device), wide = kern_device_wide(device);
    struct job j = { .m = { random_mat(n, o, type), random_mat(n, i, type),
                            random_mat(o, i, type), random_mat(o, i, wide) } };
    double flops = 2.0 * (double)n * (double)o * (double)i, ratios = 1;

    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        double own, library;

        j.run = ways[w].run;
        duel(&j, has_library, &own, &library);
        ratios *= library / own;
        printf(
            "%-14s %-12s %7lld x %6lld x %6lld  %8.3f ms  %7.1f TFLOP/s  cuBLAS %7.1f  "
            "ratio %5.3f\n",
            name, ways[w].name, (long long)n, (long long)o, (long long)i, own * 1e3,
            flops / own / 1e12, flops / library / 1e12, library / own);
    }
    for (int k = 0; k < 4; k++)
        drop(j.m[k]);
    return ratios;
}

static void products(void)
{
    static const struct {
        const char *name;
        int64_t o, i;
    } layers[] = {
        { "gpt2 qkv", 2304, 768 },       { "gpt2 up", 3072, 768 },
        { "gpt2 down", 768, 3072 },      { "1.5B qkv", 4800, 1600 },
        { "1.5B up", 6400, 1600 },       { "1.5B down", 1600, 6400 },
        { "llama1b qkv", 3072, 2048 },   { "llama1b up", 16384, 2048 },
        { "llama1b down", 2048, 8192 },  { "llama8b qkv", 6144, 4096 },
        { "llama8b out", 4096, 4096 },   { "llama8b up", 28672, 4096 },
        { "llama8b down", 4096, 14336 },
    };
    bool has_library = kern_device_matmul(device, KERN_MATMUL_CUBLAS) == KR_OK;
    double ratios = 1;
    int count = 0;

    for (size_t k = 0; k < sizeof layers / sizeof *layers; k++, count += 3)
        ratios *= want.small ? products_of(40, 70, 50, layers[k].name, has_library)
                             : products_of(16384, layers[k].o, layers[k].i,
                                           layers[k].name, has_library);
    if (has_library)
        printf("products: geometric mean of the ratios %.3f\n", pow(ratios, 1.0 / count));
}

/* ---- attention ------------------------------------------------------------------------ */

static kr_status run_attention(const struct job *j)
{
    return kern_attention_fwd(q, j->m[0], j->m[1], j->m[2], &j->heads);
}
static kr_status run_attention_bwd(const struct job *j)
{
    return kern_attention_bwd(q, j->m[3], j->m[4], j->m[5], j->m[2], j->m[0], j->m[1],
                              &j->heads);
}

static void attention_of(int64_t heads, int64_t kv, int64_t dim, int64_t seq)
{
    enum kern_dtype type = kern_device_type(device), wide = kern_device_wide(device);
    int64_t rows = want.small    ? seq
                   : 16384 > seq ? 16384
                                 : seq,
            c = (heads + 2 * kv) * dim;
    struct job j = {
        .m = { random_mat(rows, heads * dim, type), random_mat(heads, rows, wide),
               random_mat(rows, c, type), random_mat(rows, c, type),
               random_mat(heads, rows, wide), random_mat(rows, heads * dim, type) },
        .heads = { .heads = heads,
                   .kv_heads = kv,
                   .head_dim = dim,
                   .seq = seq,
                   .scale = 1 / sqrt((double)dim) },
    };
    double flops = 4.0 * (double)(rows * heads * dim) * (double)seq / 2, forward,
           backward;

    j.run = run_attention;
    forward = time_of(&j);
    j.run = run_attention_bwd;
    backward = time_of(&j);
    printf(
        "attention %3lld/%lld heads of %3lld, T %5lld  forward %8.3f ms %6.1f TFLOP/s  "
        "backward %8.3f ms %6.1f TFLOP/s\n",
        (long long)heads, (long long)kv, (long long)dim, (long long)seq, forward * 1e3,
        flops / forward / 1e12, backward * 1e3, 2.5 * flops / backward / 1e12);
    for (int k = 0; k < 6; k++)
        drop(j.m[k]);
}

static void attention(void)
{
    static const int64_t lengths[] = { 2048, 4096, 8192, 16384 };

    for (int k = 0; k < 4; k++) {
        attention_of(want.small ? 2 : 64, want.small ? 1 : 8, 128,
                     want.small ? 40 : lengths[k]);
        attention_of(want.small ? 2 : 32, want.small ? 1 : 8, 64,
                     want.small ? 40 : lengths[k]);
    }
}

/* ---- memory --------------------------------------------------------------------------- */

static kr_status run_copy(const struct job *j) { return kern_copy(q, j->m[0], j->m[1]); }
static kr_status run_add(const struct job *j)
{
    return kern_add(q, j->m[0], j->m[1], j->m[2]);
}
static kr_status run_norm(const struct job *j)
{
    return kern_norm_fwd(q, KERN_RMSNORM, j->m[0], j->m[4], j->m[1], j->m[3], kern_none,
                         1e-5);
}
static kr_status run_norm_bwd(const struct job *j)
{
    return kern_norm_bwd(q, KERN_RMSNORM, j->m[0], true, j->m[5], kern_none, true,
                         j->m[1], j->m[2], j->m[3], j->m[4]);
}
static kr_status run_gelu(const struct job *j)
{
    return kern_act_fwd(q, KERN_GELU_TANH, j->m[0], j->m[1]);
}
static kr_status run_loss(const struct job *j)
{
    return kern_cross_entropy(q, j->m[4], j->m[0], j->m[1], j->labels, 1e-4);
}

/* Rows of `parts` operands of bf16 or fp32 are moved. */
static void moved(const char *name, kr_status (*run)(const struct job *), struct job *j,
                  double parts, double copy)
{
    double bytes = parts * (double)(j->m[0].rows * j->m[0].cols) *
                   (double)kern_dtype_bytes(j->m[0].type);
    double rate;

    j->run = run;
    rate = bytes / time_of(j) / 1e9;
    printf("%-20s (%lld, %lld)  %8.1f GB/s  %5.1f %% of copy\n", name,
           (long long)j->m[0].rows, (long long)j->m[0].cols, rate,
           copy > 0 ? 100 * rate / copy : 100.0);
}

static double copy_rate(struct job *j)
{
    double bytes = 2.0 * (double)(j->m[0].rows * j->m[0].cols) *
                   (double)kern_dtype_bytes(j->m[0].type);

    j->run = run_copy;
    return bytes / time_of(j) / 1e9;
}

static void labels_of(struct job *j, int64_t rows, int64_t vocab)
{
    int32_t *host = NULL;

    must(mem_alloc(&host, (size_t)rows, sizeof *host, "labels"));
    for (int64_t i = 0; i < rows; i++)
        host[i] = (int32_t)(i * 7919 % vocab);
    must(kern_alloc(device, &j->labels, (size_t)rows * sizeof *host, "labels"));
    must(kern_upload(q, j->labels, host, (size_t)rows * sizeof *host));
    must(kern_queue_sync(q));
    mem_free(host);
}

static void memory_of(int64_t rows, int64_t cols)
{
    enum kern_dtype type = kern_device_type(device), wide = kern_device_wide(device);
    struct job j = { .m = { random_mat(rows, cols, type), random_mat(rows, cols, type),
                            random_mat(rows, cols, type), random_mat(1, cols, type),
                            random_mat(2, rows, wide), random_mat(1, cols, wide) } };
    double copy = copy_rate(&j);

    printf("copy                 (%lld, %lld)  %8.1f GB/s\n", (long long)rows,
           (long long)cols, copy);
    moved("add", run_add, &j, 3, copy);
    moved("gelu", run_gelu, &j, 2, copy);
    moved("rms norm", run_norm, &j, 2, copy);
    moved("rms norm backward", run_norm_bwd, &j, 4, copy);
    labels_of(&j, rows, cols);
    j.m[4] = kern_rows(j.m[4], 0, 1);
    moved("cross entropy", run_loss, &j, 2, copy);
    kern_free(device, j.labels);
    for (int k = 0; k < 6; k++)
        drop(j.m[k]);
}

static kr_status run_adamw(const struct job *j)
{
    return kern_adamw(q, j->m[0], j->m[1], j->m[2], j->m[3],
                      kern_device_type(device) == KERN_BF16 ? j->m[4] : kern_none,
                      &j->adamw);
}

/* 28 bytes a parameter in fp32, 2 more for the bf16 copy. */
static void optimizer(void)
{
    int64_t n = want.small ? 5000 : 256 << 20;
    enum kern_dtype wide = kern_device_wide(device), type = kern_device_type(device);
    struct job j = { .run = run_adamw,
                     .m = { random_mat(1, n, wide), random_mat(1, n, wide),
                            random_mat(1, n, wide), random_mat(1, n, wide),
                            random_mat(1, n, type) },
                     .adamw = { 1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1, { 0 } } };
    double bytes = (double)n * (type == KERN_BF16 ? 30 : 28);
    double copy = copy_rate(&j), rate;

    j.run = run_adamw;
    must(kern_add(q, j.m[2], j.m[0], j.m[0])); /* what v is matters not to the time */
    rate = bytes / time_of(&j) / 1e9;
    printf("adamw                %lld parameters  %8.1f GB/s  %5.1f %% of copy\n",
           (long long)n, rate, 100 * rate / copy);
    for (int k = 0; k < 5; k++)
        drop(j.m[k]);
}

/* ---- main ----------------------------------------------------------------------------- */

static int measure(const char *name)
{
    char day[32];
    time_t now = time(NULL);

    if (kern_device_open(&device, name, 0, 1) != KR_OK) return 1;
    must(kern_queue_open(&q, device, KERN_QUEUE_COMPUTE));
    strftime(day, sizeof day, "%Y-%m-%d", gmtime(&now));
    printf("# %s, device %s: %s; median of %d\n", day, name, kern_device_describe(device),
           want.rounds);
    products();
    attention();
    memory_of(want.small ? 40 : 16384, want.small ? 64 : 4096);
    memory_of(want.small ? 40 : 8192, want.small ? 100 : 50304);
    optimizer();
    kern_queue_close(q);
    kern_device_close(device);
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = "cuda";

    log_setup("speed", -1);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--small") == 0)
            want.small = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            want.rounds = atoi(argv[++i]);
        else
            name = argv[i];
    }
    if (want.rounds < 1 || want.rounds > MOST_ROUNDS) {
        fprintf(stderr, "speed: --rounds: want 1 to %d\n", MOST_ROUNDS);
        return 2;
    }
    return measure(name);
}
