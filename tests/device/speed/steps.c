/*
 * steps.c - whole training steps: tokens a second, MFU, and where the time goes.
 *
 * Settings are those of a user who cares for speed: bf16, everything else as it comes, then
 * what saves memory until the plan says that it fits.  Data are random tokens.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/device/speed/speed.h"
#include "tests/device/speed/trace.h"
#include "trainer/run/plan.h"
#include "trainer/run/trainer.h"

enum { TOKENS = 1 << 20, STEPS = 5, MICRO_BATCHES = 4 };

static const struct model {
    const char *name;
    int family;
    int64_t layers, dim, heads, kv, ffn, vocab, context, micro_batch;
} models[] = {
    { "gpt2-124M", FAMILY_GPT2, 12, 768, 12, 12, 3072, 50257, 1024, 32 },
    { "llama-1.4B", FAMILY_LLAMA, 24, 2048, 16, 16, 5632, 32000, 2048, 8 },
    { "llama-8B", FAMILY_LLAMA, 32, 4096, 32, 8, 14336, 128256, 8192, 1 },
};
static const struct model tiny = { "tiny", FAMILY_LLAMA, 1, 64, 1, 1, 96, 96, 16, 1 };

/* From the fastest to the one that takes the least memory. */
static const struct saving {
    int recompute, storage, reduce;
    const char *about;
} savings[] = {
    { RECOMPUTE_NONE, STORAGE_FP32, REDUCE_CANONICAL, "as it comes" },
    { RECOMPUTE_SELECTIVE, STORAGE_FP32, REDUCE_CANONICAL, "recompute selective" },
    { RECOMPUTE_NONE, STORAGE_BF16, REDUCE_LIBRARY,
      "bf16 moments and gradients, one sum of them" },
    { RECOMPUTE_SELECTIVE, STORAGE_BF16, REDUCE_LIBRARY,
      "bf16 moments and gradients, one sum of them, recompute selective" },
    { RECOMPUTE_FULL, STORAGE_BF16, REDUCE_LIBRARY,
      "bf16 moments and gradients, one sum of them, recompute full" },
};

/* A nanoGPT file of random tokens. */
static void write_tokens(char path[FS_PATH], int64_t vocab)
{
    const int64_t below = vocab < 65536 ? vocab : 65536;
    uint16_t *tokens = NULL;

    must(fs_path(path, "%s/kilorank-speed-%d.bin",
                 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid()));
    must(mem_alloc(&tokens, TOKENS, sizeof *tokens, "random tokens"));
    for (uint64_t i = 0; i < TOKENS; i++)
        tokens[i] = (uint16_t)(rng_u64(1, RNG_TEST, 0, i) % (uint64_t)below);
    must(fs_replace(path, tokens, TOKENS * sizeof *tokens));
    mem_free(tokens);
}

static void set_up(struct settings *s, const struct model *m, const char *path)
{
    (void)cfg_defaults(settings_table, s);
    s->family = m->family;
    s->layers = m->layers;
    s->dim = m->dim;
    s->heads = m->heads;
    s->kv_heads = m->kv;
    s->ffn = m->ffn;
    s->vocab = m->vocab;
    s->context = m->context;
    s->micro_batch = m->micro_batch;
    s->batch = MICRO_BATCHES * m->micro_batch;
    s->held_out = 0;
    s->precision = speed.type == KERN_BF16 ? PRECISION_BF16 : PRECISION_FP32;
    s->hopper = (int)speed.hopper;
    snprintf(s->device, sizeof s->device, "cuda");
    snprintf(s->train, sizeof s->train, "%.170s", path);
}

/* The first saving with which it fits; NULL: none, and what the last one would take. */
static const struct saving *fit(struct settings *s, const char *device, double *gib)
{
    struct kern_memory there;
    struct plan plan;

    must(kern_device_memory(device, 0, &there));
    for (size_t i = 0; i < sizeof savings / sizeof *savings; i++) {
        s->recompute = savings[i].recompute;
        s->moments = s->grads = savings[i].storage;
        s->reduce = savings[i].reduce;
        must(plan_make(&plan, s, 1));
        *gib = (double)plan_sum(&plan) / (1 << 30);
        if (plan_sum(&plan) < there.available) return &savings[i];
    }
    return NULL;
}

/* ---- one model ------------------------------------------------------------------------ */

static double one_step(struct trainer *t, int64_t step)
{
    struct step_words out;
    struct step_stats stats;
    double start = clock_now();

    must(trainer_step(t, step, (struct step_words){ 0 }, &stats, &out));
    must(kern_queue_sync(t->q));
    return clock_now() - start;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median_step(struct trainer *t, int64_t *step)
{
    const int steps = speed.small ? 1 : STEPS;
    double time[STEPS];

    for (int i = 0; i < 2 && !speed.small; i++)
        (void)one_step(t, (*step)++); /* to warm up */
    for (int i = 0; i < steps; i++)
        time[i] = one_step(t, (*step)++);
    qsort(time, (size_t)steps, sizeof *time, by_size);
    return time[steps / 2];
}

static double least_time(const struct trace_row *r)
{
    return fmax(speed.peak > 0 ? r->flops / speed.peak : 0,
                speed.copy > 0 ? r->bytes / speed.copy : 0);
}

/* The step once more, operation by operation. */
static void time_by_operation(struct trainer *t, int64_t step, double whole)
{
    const struct trace_row *rows;
    double sum = 0, floors = 0;
    int count;

    trace_clear();
    trace_on(true);
    (void)one_step(t, step);
    trace_on(false);
    count = trace_rows(&rows);
    printf("  %-26s %6s %10s %7s %10s %10s\n", "operation", "calls", "ms", "% step",
           "floor ms", "floor/time");
    for (int i = 0; i < count; i++) {
        double least = least_time(&rows[i]);

        printf("  %-26s %6lld %10.3f %7.1f %10.3f %10.2f\n", rows[i].name,
               (long long)rows[i].calls, rows[i].seconds * 1e3,
               100 * rows[i].seconds / whole, least * 1e3, least / rows[i].seconds);
        sum += rows[i].seconds;
        floors += least;
    }
    printf("  %-26s %6s %10.3f %7.1f %10.3f\n", "all, one by one", "", sum * 1e3,
           100 * sum / whole, floors * 1e3);
}

static void tell(const struct model *m, const struct trainer *t, double time,
                 const char *about)
{
    double flops = model_flops_per_token(&t->shape, m->context);
    double tokens = (double)(t->set.batch * m->context) / time, theirs;
    char name[64];

    printf("%s, %lld x %lld tokens a micro-batch, %d of them; %s\n", m->name,
           (long long)m->micro_batch, (long long)m->context, MICRO_BATCHES, about);
    printf("  %.1f ms a step, %.0f tokens/s, %.4g FLOP a token, %.1f TFLOP/s", time * 1e3,
           tokens, flops, tokens * flops / 1e12);
    if (speed.peak > 0) printf(", MFU %.1f %%", 100 * tokens * flops / speed.peak);
    snprintf(name, sizeof name, "step-%s", m->name);
    theirs = peer(name);
    if (!isnan(theirs))
        printf("; PyTorch %.0f tokens/s, ratio %.2f", theirs, tokens / theirs);
    printf("\n");
}

static void one_model(const struct model *m, const char *device)
{
    struct comm_config self = { "self", 10, "" };
    const struct saving *saving;
    struct comm *c = NULL;
    struct settings set;
    struct trainer t;
    char path[FS_PATH];
    int64_t step = 0;
    double gib, time;

    write_tokens(path, m->vocab);
    set_up(&set, m, path);
    saving = fit(&set, device, &gib);
    if (!saving) {
        printf("%s does not fit: %.1f GiB at least\n", m->name, gib);
    } else {
        must(comm_open(&c, &self));
        must(settings_check_together(&set, c));
        must(trainer_open(&t, &set, c, true));
        must(trainer_open_data(&t));
        for (int32_t i = 0; i < t.params.count; i++) /* drawn in a third of the time */
            if (t.params.list[i].init == INIT_NORMAL)
                t.params.list[i].init = INIT_UNIFORM;
        must(trainer_init(&t));
        time = median_step(&t, &step);
        tell(m, &t, time, saving->about);
        time_by_operation(&t, step, time);
        trainer_close(&t);
        comm_close(c);
    }
    (void)fs_unlink(path);
}

void speed_steps(const char *device)
{
    printf(
        "\nSteps: FLOP a token = 6 N_mm + 6 L H D T (matrices that multiply, half of T x "
        "T); MFU = tokens/s x FLOP a token / peak");
    if (speed.peak > 0) printf(" of %.0f TFLOP/s", speed.peak / 1e12);
    printf("; median of %d.  Floor: FLOP / peak or bytes / copy rate, the greater\n",
           STEPS);
    measure_copy();
    if (speed.small) one_model(&tiny, device);
    for (size_t i = 0; i < sizeof models / sizeof *models && !speed.small; i++)
        if (!speed.model || strcmp(speed.model, models[i].name) == 0)
            one_model(&models[i], device);
}
