/*
 * t_shard.c - memory of a shard is what its plan says, in every stage and type; stage 3
 * gathers the next unit while this one is in use.
 */
/* RANKS: 1 2 3 4 */
#include "tests/mpi/ranks.h"
#include "trainer/run/shard.h"

static struct params params;
static struct model_shape shape = {
    .family = &families[FAMILY_LLAMA],
    .layers = 3,
    .dim = 64,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .ffn = 96,
    .vocab = 300,
    .context = 16,
    .rope_theta = 1e4,
};

/* A shard on a device of its own. */
struct rig {
    struct kern_device *device;
    struct kern_queue *q;
    struct shard *shard;
};

static void rig_open(struct rig *r, const char *device, const struct shard_config *c)
{
    if (kern_device_open(&r->device, device, 0, 1) ||
        kern_queue_open(&r->q, r->device, KERN_QUEUE_COMPUTE) ||
        comm_bind(group, r->device) || shard_open(&r->shard, &params, group, r->q, c))
        abort();
}

static void rig_close(struct rig *r)
{
    if (kern_queue_sync(comm_queue(group)) || kern_queue_sync(r->q)) abort();
    shard_close(r->shard);
    kern_queue_close(r->q);
    comm_unbind(group);
    kern_device_close(r->device);
}

static void check_plan(const char *device, const struct shard_config *c)
{
    struct rig r;
    struct shard_bytes got, want;

    rig_open(&r, device, c);
    got = shard_bytes(r.shard);
    want = shard_plan(&params, size, c, kern_device_type(r.device),
                      kern_device_wide(r.device));
    CHECK_I64(got.weights, ==, want.weights);
    CHECK_I64(got.master, ==, want.master);
    CHECK_I64(got.gradients, ==, want.gradients);
    CHECK_I64(got.moments, ==, want.moments);
    CHECK_I64(got.moving, ==, want.moving);
    rig_close(&r);
}

static void every_shard_takes_what_its_plan_says(void)
{
    for (int stage = 0; stage <= 3; stage++)
        for (int variant = 0; variant < 8; variant++) {
            struct shard_config c = {
                .stage = stage,
                .canonical = variant != 3,
                .train = variant != 7,
                .leaves = 6,
                .moments = variant & 1 ? KERN_BF16 : KERN_F32,
                .grads = variant & 2 && variant != 3 ? KERN_BF16 : KERN_F32,
            };

            check_plan(variant & 4 ? "cpu16" : "cpu", &c);
        }
}

/* The same beside frozen units, of which only the model's weights are held. */
static void a_shard_of_adapters_takes_what_its_plan_says(void)
{
    struct params whole = params;
    struct model_shape adapted = shape;

    adapted.lora = (struct lora){ 4, 8, lora_sites(shape.family) };
    CHECK(params_build(&params, &adapted) == KR_OK);
    every_shard_takes_what_its_plan_says();
    params_free(&params);
    params = whole;
}

/* Each stage holds less than the one before, from three ranks on. */
static void each_stage_saves_memory(void)
{
    size_t before = 0;

    for (int stage = 0; stage <= 3; stage++) {
        struct shard_config c = { stage, true, true, 64, KERN_F32, KERN_F32, 1 };
        struct model_shape deep = shape;
        struct shard_bytes b;
        struct params p;
        size_t sum;

        deep.layers = 32;
        deep.dim = 512;
        deep.ffn = 2048;
        CHECK(params_build(&p, &deep) == KR_OK);
        b = shard_plan(&p, 16, &c, KERN_BF16, KERN_F32);
        sum = shard_bytes_sum(&b);
        CHECK(stage == 0 || sum < before);
        before = sum;
        params_free(&p);
    }
}

static double sent(void)
{
    if (kern_queue_sync(comm_queue(group))) abort();
    return comm_sent(group);
}

/* What this rank sends when the unit is gathered. */
static double gather_bytes(int unit)
{
    return (double)((size - 1) * part_chunk(params.unit_len[unit], size)) * sizeof(float);
}

static void use(const struct weights *w, int unit)
{
    void *flat = NULL;

    CHECK(w->acquire(w->self, unit, &flat) == KR_OK && flat);
    w->release(w->self, unit);
}

/* The first pass learns the order; in the next each unit is there before it is asked for,
 * the last ones still are when the pass turns around, and at its end comes what another
 * pass of the step would begin with. */
static void the_next_unit_is_gathered_ahead(void)
{
    struct shard_config c = { 3, true, true, 4, KERN_F32, KERN_F32, 1 };
    const struct weights *w;
    struct rig r;
    double before;

    rig_open(&r, "cpu", &c);
    w = shard_weights(r.shard);
    for (int pass = 0; pass < 2; pass++) {
        CHECK(shard_publish(r.shard, false) == KR_OK);
        shard_leaf(r.shard, 0);
        for (int u = 0; u < params.units; u++) {
            before = sent();
            use(w, u);
            if (pass == 0) CHECK_NEAR(sent() - before, gather_bytes(u), 0);
            if (pass == 1 && u > 0 && u + 1 < params.units)
                CHECK_NEAR(sent() - before, gather_bytes(u + 1), 0);
        }
        before = sent();
        use(w, params.units - 2);
        CHECK_NEAR(sent() - before, pass == 1 && size < c.leaves ? gather_bytes(0) : 0,
                   0);
    }
    rig_close(&r);
}

static void too_many_units_at_a_time_are_refused(void)
{
    struct shard_config c = { 3, true, true, 4, KERN_F32, KERN_F32, 1 };
    const struct weights *w;
    struct rig r;
    void *flat;

    rig_open(&r, "cpu", &c);
    w = shard_weights(r.shard);
    log_mute(true);
    CHECK(w->acquire(w->self, 0, &flat) == KR_OK);
    CHECK(w->acquire(w->self, 1, &flat) == KR_OK);
    CHECK(w->acquire(w->self, 2, &flat) == KR_ERR_ARG);
    CHECK(w->grads(w->self, 0, &flat, &(bool){ false }) == KR_OK);
    CHECK(w->grads(w->self, 1, &flat, &(bool){ false }) == KR_OK);
    CHECK(w->grads(w->self, 2, &flat, &(bool){ false }) == KR_ERR_ARG);
    log_mute(false);
    w->release(w->self, 0);
    w->release(w->self, 1);
    rig_close(&r);
}

int main(void)
{
    ranks_open("t_shard");
    if (params_build(&params, &shape) != KR_OK) comm_abort(group, 2);
    RUN(every_shard_takes_what_its_plan_says);
    RUN(a_shard_of_adapters_takes_what_its_plan_says);
    RUN(each_stage_saves_memory);
    RUN(the_next_unit_is_gathered_ahead);
    RUN(too_many_units_at_a_time_are_refused);
    params_free(&params);
    return ranks_close();
}
