/*
 * t_step.c - what a training step asks of the GPU: how many launches, and that the host
 * waits for it once, in the exchange; and what a save does.  On the emulated GPU, which
 * counts.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "tests/check.h"
#include "tests/emu/emu.h"
#include "trainer/run/best.h"
#include "trainer/run/keep.h"
#include "trainer/run/plan.h"

enum { TOKENS = 1024 };

static char data[FS_PATH], folder[FS_PATH], shm[FS_PATH];

/* A model of that many layers on one rank, and steps of that many micro-batches. */
struct run {
    struct comm *comm;
    struct trainer t;
};

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

static struct settings small(int family, int64_t layers, int64_t leaves)
{
    struct settings s;

    (void)cfg_defaults(settings_table, &s);
    s.family = family;
    s.layers = layers;
    s.dim = 16; /* as small as can be: launches do not depend on it */
    s.heads = s.kv_heads = 1;
    s.ffn = 16;
    s.vocab = 32;
    s.context = 4;
    s.batch = leaves;
    s.micro_batch = 1;
    s.threads = 1;
    s.held_out = 0;
    snprintf(s.device, sizeof s.device, "cuda");
    snprintf(s.train, sizeof s.train, "%.200s", data);
    return s;
}

static void open_with(struct run *r, struct settings *s)
{
    struct comm_config self = { "self", 10, "" };

    must(comm_open(&r->comm, &self));
    must(settings_check_together(s, r->comm));
    must(trainer_open(&r->t, s, r->comm, true));
    must(trainer_open_data(&r->t));
    must(trainer_init(&r->t));
}

static void open_run(struct run *r, int family, int64_t layers, int64_t leaves)
{
    struct settings s = small(family, layers, leaves);

    open_with(r, &s);
}

static void close_run(struct run *r)
{
    trainer_close(&r->t);
    comm_close(r->comm);
}

/* Calls in the second step: the first one takes memory. */
struct counts {
    int64_t of[EMU_CALLS];
};

static struct counts second_step(int family, int64_t layers, int64_t leaves)
{
    struct step_words out;
    struct step_stats stats;
    struct counts c = { 0 };
    struct run r;

    open_run(&r, family, layers, leaves);
    for (int64_t step = 0; step < 2; step++) {
        for (int i = 0; i < EMU_CALLS; i++)
            c.of[i] = -emu_count((enum emu_call)i);
        must(trainer_step(&r.t, step, (struct step_words){ 0 }, &stats, &out));
        for (int i = 0; i < EMU_CALLS; i++)
            c.of[i] += emu_count((enum emu_call)i);
    }
    close_run(&r);
    return c;
}

static void the_host_waits_once_in_a_step(void)
{
    struct counts one = second_step(FAMILY_LLAMA, 2, 1),
                  three = second_step(FAMILY_LLAMA, 2, 3);

    CHECK_I64(one.of[EMU_SYNC], ==, 1);
    CHECK_I64(three.of[EMU_SYNC], ==, 1);
    CHECK_I64(three.of[EMU_MEMORY], ==, 0);
    CHECK_I64(three.of[EMU_COPY], ==, 3 + 2); /* micro-batches; losses and squares */
}

/* Launches of a layer: of each micro-batch, and once a step. */
static void launches(const char *name, int family, int64_t most, int64_t most_once)
{
    int64_t a = second_step(family, 1, 2).of[EMU_LAUNCH],
            b = second_step(family, 2, 2).of[EMU_LAUNCH],
            c = second_step(family, 1, 4).of[EMU_LAUNCH],
            d = second_step(family, 2, 4).of[EMU_LAUNCH];
    int64_t each = (d - c - (b - a)) / 2, once = b - a - 2 * each;

    printf("# %s: launches of a layer: %lld a micro-batch, %lld a step; beside the "
           "layers %lld and %lld\n",
           name, (long long)each, (long long)once, (long long)((c - a) / 2 - each),
           (long long)(2 * a - c - once));
    CHECK_I64(each, <=, most);
    CHECK_I64(once, <=, most_once);
}

static void a_layer_takes_few_launches(void)
{
    launches("gpt2", FAMILY_GPT2, 33, 9);
    launches("llama", FAMILY_LLAMA, 27, 4);
}

/* The first one neither: its memory was taken before. */
static void a_save_waits_for_nothing(void)
{
    struct ckpt_config config = { .run = folder, .keep = 2, .async = true };
    struct step_words out;
    struct step_stats stats;
    struct state state;
    struct ckpt *k;
    struct run r;
    bool saved = false;
    int64_t copies, waits, memory;

    open_run(&r, FAMILY_LLAMA, 1, 1);
    must(ckpt_open(&k, r.comm, &config));
    must(state_open(&state, &r.t));
    must(ckpt_reserve(k, r.t.q, &state.view));
    for (int64_t step = 0; step < 2; step++) {
        must(trainer_step(&r.t, step, (struct step_words){ 0 }, &stats, &out));
        must(ckpt_wait(k, NULL));
        copies = emu_count(EMU_COPY);
        waits = emu_count(EMU_SYNC);
        memory = emu_count(EMU_MEMORY);
        must(ckpt_save(k, r.t.q, &state.view, step + 1, step + 1, ""));
        CHECK_I64(emu_count(EMU_COPY) - copies, ==, state.view.piece_count);
        CHECK_I64(emu_count(EMU_SYNC) - waits, ==, 0);
        CHECK_I64(emu_count(EMU_MEMORY) - memory, ==, 0);
    }
    must(ckpt_wait(k, &saved));
    CHECK(saved);
    ckpt_close(k);
    state_close(&state);
    close_run(&r);
}

/* ---- the memory plan ------------------------------------------------------------------ */

/* While one of the frozen units is loaded, the longest, its masters are there. */
static void begin_load(struct run *r)
{
    const struct params *p = &r->t.params;
    int most = 0;

    for (int i = 1; i < p->frozen; i++)
        if (p->unit_len[i] > p->unit_len[most]) most = i;
    if (p->frozen) must(shard_fill(r->t.shard, most));
}

/* A step, a snapshot, a save and one of the best, and what they have taken. */
static void use(struct run *r)
{
    struct ckpt_config config = { .run = folder, .keep = 2, .async = true };
    struct resumed from = { .step = 0 };
    struct step_words out;
    struct step_stats stats;
    struct state state;
    struct keep keep;
    struct best *best;
    struct ckpt *k;
    struct plan p;
    bool kept;

    must(plan_make(&p, &r->t.set, 1));
    must(ckpt_open(&k, r->comm, &config));
    must(state_open(&state, &r->t));
    must(keep_open(&keep, &r->t, &state, folder, ckpt_generation(k)));
    must(keep_start(&keep, &from));
    must(best_open(&best, &r->t, folder, ""));
    must(trainer_step(&r->t, 0, (struct step_words){ 0 }, &stats, &out));
    must(keep_take(&keep, 1));
    CHECK_I64(keep.taken, ==, 1);
    must(ckpt_save(k, r->t.q, &state.view, 1, 1, ""));
    must(best_offer(best, 1, 1.0, "", &kept));
    must(ckpt_wait(k, NULL));
    CHECK(kept);
    begin_load(r);
    CHECK_I64(emu_device_bytes().now, ==, plan_sum(&p));
    CHECK_I64(emu_pinned_bytes().now, ==, p.pinned);
    best_close(best);
    keep_close(&keep, true);
    ckpt_close(k);
    state_close(&state);
    (void)fs_remove_tree(folder);
}

/* Each way has another operation that keeps the most. */
static void a_step_and_its_copies_take_what_was_planned(void)
{
    static const char *const list[] = { "model.ffn=2048",       "model.vocab=8000",
                                        "run.precision=fp32",   "model.family=gpt2",
                                        "model.family=bloom",   "lora.rank=2",
                                        "train.recompute=full", "optim.moments=bf16",
                                        "kernels.hopper=on" };

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct settings s = small(FAMILY_LLAMA, 1, 1);
        struct run r;

        must(cfg_set(settings_table, &s, "snapshot.every=1", "test"));
        must(cfg_set(settings_table, &s, "checkpoint.best=true", "test"));
        snprintf(s.snapshot_dir, sizeof s.snapshot_dir, "%.200s", shm);
        must(cfg_set(settings_table, &s, list[i], "test"));
        if (s.hopper) s.dim = 64;
        if (s.lora_rank) snprintf(s.init, sizeof s.init, "never read here");
        CHECK_I64(emu_device_bytes().now, ==, 0);
        open_with(&r, &s);
        use(&r);
        close_run(&r);
    }
    CHECK_I64(emu_device_bytes().now, ==, 0);
    CHECK_I64(emu_pinned_bytes().now, ==, 0);
}

/* A GPU that is not known may be a Hopper, whose attention keeps sums of dQ; in fp32 it is
 * not asked. */
static void attention_of_hopper_is_planned_for(void)
{
    const struct kern_call call = { .operation = KERN_CALL_ATTENTION_BWD,
                                    .rows = 5 * 200,
                                    .heads = 3,
                                    .head_dim = 64,
                                    .seq = 200 };
    struct kern_whose whose = { KERN_MATMUL_OWN, KERN_HOPPER_OFF };
    size_t off, on;

    must(kern_device_scratch("cuda", &whose, &call, &off));
    whose.hopper = KERN_HOPPER_AUTO;
    must(kern_device_scratch("cuda", &whose, &call, &on));
    CHECK_I64(off, ==, 0);
    CHECK_I64(on, >, 5 * 200 * 3 * 64 * 4);
    must(kern_device_scratch("cuda32", &whose, &call, &on));
    CHECK_I64(on, ==, 0);
}

int main(void)
{
    static uint16_t tokens[TOKENS];

    log_setup("t_step", -1);
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = (uint16_t)(i * 37 % 32);
    must(fs_path(data, "%s/t_step-%d.bin", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
                 (int)getpid()));
    must(fs_path(folder, "%s.run", data));
    must(fs_path(shm, "%s.shm", data));
    must(fs_mkdirs(shm));
    must(fs_replace(data, tokens, sizeof tokens));
    RUN(the_host_waits_once_in_a_step);
    RUN(a_layer_takes_few_launches);
    RUN(a_save_waits_for_nothing);
    RUN(a_step_and_its_copies_take_what_was_planned);
    RUN(attention_of_hopper_is_planned_for);
    (void)fs_unlink(data);
    (void)fs_remove_tree(folder);
    (void)fs_remove_tree(shm);
    return check_done();
}
