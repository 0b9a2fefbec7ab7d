/* t_plan.c - what a trainer takes is what the plan said, and a plan sees what would help. */
#include <stdlib.h>

#include "tests/check.h"
#include "trainer/run/plan.h"
#include "trainer/run/trainer.h"

static struct comm *group;

static void set(struct settings *s, const char *text)
{
    if (cfg_set(settings_table, s, text, "test") != KR_OK) abort();
}

static struct settings small(void)
{
    static const char *const list[] = { "model.layers=3", "model.dim=48",
                                        "model.heads=4",  "model.kv_heads=2",
                                        "model.ffn=64",   "model.context=32",
                                        "train.batch=6",  "train.micro_batch=2" };
    struct settings s;

    if (cfg_defaults(settings_table, &s) != KR_OK) abort();
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        set(&s, list[i]);
    return s;
}

static void check_true(const struct settings *s)
{
    struct shard_bytes state;
    struct trainer t;
    struct plan p;

    CHECK(plan_make(&p, s, 1) == KR_OK);
    CHECK(trainer_open(&t, s, group, true) == KR_OK);
    state = shard_bytes(t.shard);
    CHECK_I64(shard_bytes_sum(&p.state), ==, shard_bytes_sum(&state));
    CHECK_I64(p.model.bytes, ==, model_bytes(t.model));
    CHECK_I64(p.model.logits, <, p.model.bytes);
    trainer_close(&t);
}

static void a_trainer_takes_what_was_planned(void)
{
    static const char *const list[] = { "dist.shard=0",         "dist.shard=2",
                                        "dist.shard=3",         "run.precision=bf16",
                                        "train.recompute=full", "optim.moments=bf16",
                                        "train.grads=bf16",     "model.family=bloom",
                                        "model.kv_heads=0",     "lora.rank=3" };
    struct settings all = small();

    check_true(&all);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct settings one = small();

        set(&one, list[i]);
        set(&all, list[i]);
        if (i != 7) check_true(&one); /* bloom has no grouped heads */
    }
    check_true(&all);
    for (size_t i = 0; i < 4; i++) { /* every stage, and bf16, beside frozen weights */
        struct settings one = small();

        set(&one, "lora.rank=3");
        set(&one, list[i]);
        check_true(&one);
    }
}

/* What is frozen has no gradient, no moments and no wide copy. */
static void adapters_need_little_besides(void)
{
    struct settings s = small();
    struct plan full, lora;

    set(&s, "run.precision=bf16");
    CHECK(plan_make(&full, &s, 1) == KR_OK);
    set(&s, "lora.rank=2");
    CHECK(plan_make(&lora, &s, 1) == KR_OK);
    CHECK_I64(lora.state.weights, >, full.state.weights);
    CHECK_I64(5 * lora.state.master, <, full.state.master);
    CHECK_I64(5 * lora.state.moments, <, full.state.moments);
    CHECK_I64(5 * lora.state.gradients, <, full.state.gradients);
}

static size_t sum_with(const char *change, int32_t ranks)
{
    struct settings s = small();
    struct plan p = { 0 };

    set(&s, "model.layers=24");
    set(&s, "model.dim=512");
    set(&s, "model.ffn=2048");
    set(&s, "train.batch=256");
    if (change) set(&s, change);
    CHECK(plan_make(&p, &s, ranks) == KR_OK);
    return plan_sum(&p);
}

static void what_saves_memory_needs_less(void)
{
    static const char *const list[] = { "train.recompute=selective", "optim.moments=bf16",
                                        "train.grads=bf16", "dist.shard=2",
                                        "dist.reduce=library" };
    size_t plain = sum_with(NULL, 32);

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        CHECK_I64(sum_with(list[i], 32), <, plain);
    CHECK(sum_with("train.recompute=full", 32) <
          sum_with("train.recompute=selective", 32));
    CHECK(sum_with("dist.shard=3", 32) < sum_with("dist.shard=2", 32));
    CHECK(sum_with("dist.shard=0", 32) > plain);
    CHECK(sum_with(NULL, 64) < plain);
}

int main(void)
{
    struct comm_config config = { "self", 60, "" };

    if (comm_open(&group, &config) != KR_OK) return 2;
    RUN(a_trainer_takes_what_was_planned);
    RUN(adapters_need_little_besides);
    RUN(what_saves_memory_needs_less);
    comm_close(group);
    return check_done();
}
