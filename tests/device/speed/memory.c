/* memory.c - operations that move memory, as a share of what a copy moves. */
#include <math.h>

#include "base/mem.h"
#include "tests/device/speed/speed.h"

/* m: result, x, dy, weight, stats or losses, gradient of the weight */
static kr_status run_copy(const struct job *j)
{
    return kern_copy(speed.q, j->m[0], j->m[1]);
}
static kr_status run_add(const struct job *j)
{
    return kern_add(speed.q, j->m[0], j->m[1], j->m[2]);
}
static kr_status run_gelu(const struct job *j)
{
    return kern_act_fwd(speed.q, KERN_GELU_TANH, j->m[0], j->m[1]);
}
static kr_status run_gelu_bwd(const struct job *j)
{
    return kern_act_bwd(speed.q, KERN_GELU_TANH, j->m[0], j->m[1], j->m[2]);
}
static kr_status run_norm(const struct job *j)
{
    return kern_norm_fwd(speed.q, KERN_RMSNORM, j->m[0], j->m[4], j->m[1], j->m[3],
                         kern_none, 1e-5);
}
static kr_status run_norm_bwd(const struct job *j)
{
    return kern_norm_bwd(speed.q, KERN_RMSNORM, j->m[0], true, j->m[5], kern_none, true,
                         j->m[1], j->m[2], j->m[3], j->m[4]);
}
static kr_status run_layer(const struct job *j)
{
    return kern_norm_fwd(speed.q, KERN_LAYERNORM, j->m[0], j->m[4], j->m[1], j->m[3],
                         kern_none, 1e-5);
}
static kr_status run_layer_bwd(const struct job *j)
{
    return kern_norm_bwd(speed.q, KERN_LAYERNORM, j->m[0], true, j->m[5], kern_none, true,
                         j->m[1], j->m[2], j->m[3], j->m[4]);
}
static kr_status run_loss(const struct job *j)
{
    return kern_cross_entropy(speed.q, kern_rows(j->m[4], 0, 1), j->m[0], j->m[1],
                              j->labels, 1e-4);
}

/* Matrices of the shape of the first that are read or written, each counted once. */
static const struct moved {
    const char *name;
    kr_status (*run)(const struct job *j);
    int reads, writes;
} list[] = {
    { "add", run_add, 2, 1 },
    { "gelu", run_gelu, 1, 1 },
    { "gelu backward", run_gelu_bwd, 2, 1 },
    { "rms norm", run_norm, 1, 1 },
    { "rms norm backward", run_norm_bwd, 3, 1 }, /* adds to dx */
    { "layer norm", run_layer, 1, 1 },
    { "layer norm backward", run_layer_bwd, 3, 1 },
};

static void tell(const char *name, struct job *j, int parts)
{
    double bytes = (double)parts * (double)(j->m[0].rows * j->m[0].cols) *
                   (double)kern_dtype_bytes(j->m[0].type);
    double rate = bytes / time_of(j);

    if (j->run == run_copy && rate > speed.copy) speed.copy = rate;
    printf("%-20s %6lld x %6lld  %8.1f GB/s  %5.1f %% of copy\n", name,
           (long long)j->m[0].rows, (long long)j->m[0].cols, rate / 1e9,
           100 * rate / speed.copy);
}

static void operations(int64_t rows, int64_t cols)
{
    const int64_t sets = sets_of((double)(rows * cols) * 4);
    struct job j = { .run = run_copy,
                     .m = { random_mat(sets, rows, cols, speed.type),
                            random_mat(sets, rows, cols, speed.type),
                            random_mat(sets, rows, cols, speed.type),
                            random_mat(sets, 1, cols, speed.type),
                            random_mat(sets, 2, rows, speed.wide),
                            random_mat(sets, 1, cols, speed.wide) },
                     .sets = sets };

    tell("copy", &j, 2);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        j.run = list[i].run;
        tell(list[i].name, &j, list[i].reads + list[i].writes);
    }
    for (int k = 0; k < 6; k++)
        drop(j.m[k]);
}

/* All different as far as there are so many, but for `often` of ten, which are number 0. */
static int32_t *labels_of(int64_t rows, int64_t vocab, int often)
{
    int32_t *host = NULL, *out = NULL;

    must(mem_alloc(&host, (size_t)rows, sizeof *host, "labels"));
    for (int64_t i = 0; i < rows; i++)
        host[i] = i * 7 % 10 < often ? 0 : (int32_t)(i * 7919 % vocab);
    must(kern_alloc(speed.device, &out, (size_t)rows * sizeof *host, "labels"));
    must(kern_upload(speed.q, out, host, (size_t)rows * sizeof *host));
    must(kern_queue_sync(speed.q));
    mem_free(host);
    return out;
}

static void cross_entropy(int64_t rows, int64_t vocab)
{
    struct job j = { .run = run_loss,
                     .m = { random_mat(1, rows, vocab, speed.type),
                            random_mat(1, rows, vocab, speed.type) },
                     .labels = labels_of(rows, vocab, 0) };

    j.m[4] = random_mat(1, 1, rows, speed.wide);
    tell("cross entropy", &j, 2);
    kern_free(speed.device, j.labels);
    drop(j.m[0]);
    drop(j.m[1]);
    drop(j.m[4]);
}

static kr_status run_embed_bwd(const struct job *j)
{
    return kern_embed_bwd(speed.q, j->m[0], kern_none, j->labels, j->m[1], j->m[1].rows,
                          NULL, true);
}

/* `often` of ten rows have one token, as in a text with much filling.  Bytes: what is read of
 * dx, and of the gradient what changes, twice. */
static void embedding(int64_t rows, int64_t vocab, int64_t cols, int often)
{
    struct job j = { .run = run_embed_bwd,
                     .m = { random_mat(1, vocab, cols, speed.wide),
                            random_mat(1, rows, cols, speed.type) },
                     .labels = labels_of(rows, vocab, often) };
    double changed = (double)rows * (10 - often) / 10 + (often > 0), rate;

    rate = (double)cols *
           ((double)rows * (double)kern_dtype_bytes(speed.type) +
            2 * changed * (double)kern_dtype_bytes(speed.wide)) /
           time_of(&j);
    printf("%-20s %6lld x %6lld  %8.1f GB/s  %5.1f %% of copy  %d %% one token\n",
           "embedding backward", (long long)rows, (long long)cols, rate / 1e9,
           100 * rate / speed.copy, 10 * often);
    kern_free(speed.device, j.labels);
    drop(j.m[0]);
    drop(j.m[1]);
}

static kr_status run_adamw(const struct job *j)
{
    return kern_adamw(speed.q, j->m[0], j->m[1], j->m[2], j->m[3],
                      speed.type != speed.wide ? j->m[4] : kern_none, &j->adamw);
}

/* Weights, moments and what the copy takes; moments and gradients in one type or the other. */
static void optimizer(int64_t n, enum kern_dtype kept)
{
    struct job j = { .run = run_adamw,
                     .m = { random_mat(1, 1, n, speed.wide), random_mat(1, 1, n, kept),
                            random_mat(1, 1, n, kept), random_mat(1, 1, n, kept),
                            random_mat(1, 1, n, speed.type) },
                     .adamw = { 1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1, { 0 } } };
    double wide = (double)kern_dtype_bytes(speed.wide), bytes, rate;

    bytes = (double)n *
            (2 * wide + 5 * (double)kern_dtype_bytes(kept) +
             (speed.type != speed.wide ? (double)kern_dtype_bytes(speed.type) : 0));
    must(kern_fill(speed.q, j.m[2], 0.01)); /* squares are not negative */
    rate = bytes / time_of(&j);
    printf("%-20s %lld parameters%s  %8.1f GB/s  %5.1f %% of copy\n", "adamw",
           (long long)n, kept == speed.wide ? "" : ", moments and gradients bf16",
           rate / 1e9, 100 * rate / speed.copy);
    for (int k = 0; k < 5; k++)
        drop(j.m[k]);
}

static kr_status run_checksum(const struct job *j)
{
    return kern_checksum(speed.q, j->m[1].at, j->m[0]);
}

static void checksum(int64_t n)
{
    struct job j = { .run = run_checksum,
                     .m = { random_mat(1, 1, n, speed.wide),
                            random_mat(1, 1, 8, speed.wide) } };
    double rate = (double)n * (double)kern_dtype_bytes(speed.wide) / time_of(&j);

    printf("%-20s %lld numbers  %8.1f GB/s  %5.1f %% of copy\n", "checksum", (long long)n,
           rate / 1e9, 100 * rate / speed.copy);
    drop(j.m[0]);
    drop(j.m[1]);
}

void measure_copy(void)
{
    const int64_t rows = speed.small ? 8 : 16384, cols = speed.small ? 64 : 4096;
    struct job j = { .run = run_copy,
                     .m = { random_mat(1, rows, cols, speed.type),
                            random_mat(1, rows, cols, speed.type) } };

    if (speed.copy == 0) tell("copy", &j, 2);
    drop(j.m[0]);
    drop(j.m[1]);
}

void speed_memory(void)
{
    printf("\nMemory: bytes of every operand read and written once; copy: the fastest so "
           "far\n");
    operations(speed.small ? 8 : 16384, speed.small ? 64 : 4096);
    operations(speed.small ? 8 : 32768, speed.small ? 72 : 768);
    cross_entropy(speed.small ? 8 : 8192, speed.small ? 104 : 50304);
    cross_entropy(speed.small ? 8 : 4096, speed.small ? 104 : 128256);
    for (int often = 0; often <= 9; often += 3)
        embedding(speed.small ? 300 : 16384, speed.small ? 104 : 50304,
                  speed.small ? 72 : 4096, often);
    optimizer(speed.small ? 5000 : 256 << 20, speed.wide);
    if (speed.wide == KERN_F32) optimizer(speed.small ? 5000 : 256 << 20, KERN_BF16);
    checksum(speed.small ? 5000 : 256 << 20);
}
