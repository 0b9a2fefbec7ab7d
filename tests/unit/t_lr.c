/* Learning rates: the ends, the middle and the shape of each schedule. */
#include "trainer/run/lr.h"

#include "tests/check.h"

static const struct settings base = { .lr = 8, .min_lr = 2, .steps = 101, .warmup = 0 };

static struct settings with(int schedule, int64_t warmup, double share)
{
    struct settings s = base;

    s.schedule = schedule;
    s.warmup = warmup;
    s.decay_share = share;
    return s;
}

static void warmup_rises_in_equal_steps_to_the_full_rate(void)
{
    for (int schedule = SCHEDULE_COSINE; schedule <= SCHEDULE_CONSTANT; schedule++) {
        struct settings s = with(schedule, 10, 0.2);

        for (int64_t step = 0; step < 10; step++)
            CHECK_NEAR(lr_at(&s, step), 8 * (double)(step + 1) / 10, 1e-15);
        CHECK_NEAR(lr_at(&s, 10), 8, 1e-15);
    }
}

static void cosine_is_half_way_in_the_middle_and_ends_at_the_floor(void)
{
    struct settings s = with(SCHEDULE_COSINE, 0, 0);

    CHECK_NEAR(lr_at(&s, 0), 8, 1e-12);
    CHECK_NEAR(lr_at(&s, 25), 2 + 6 * (1 + sqrt(0.5)) / 2, 1e-12);
    CHECK_NEAR(lr_at(&s, 50), 5, 1e-12);
    CHECK_NEAR(lr_at(&s, 100), 2, 1e-12);
    CHECK_NEAR(lr_at(&s, 1000), 2, 1e-12); /* trained on beyond its steps */
}

static void wsd_holds_then_falls_in_a_line(void)
{
    struct settings s = with(SCHEDULE_WSD, 5, 20.0 / 101);

    for (int64_t step = 5; step <= 80; step++)
        CHECK_NEAR(lr_at(&s, step), 8, 1e-12);
    CHECK_NEAR(lr_at(&s, 90), 5, 1e-12);
    CHECK_NEAR(lr_at(&s, 100), 2, 1e-12);
}

static void constant_is_constant(void)
{
    struct settings s = with(SCHEDULE_CONSTANT, 0, 0.2);

    for (int64_t step = 0; step < 200; step += 7)
        CHECK_NEAR(lr_at(&s, step), 8, 0);
}

/* Degenerate runs: one step, all of it warm-up, no step to fall in. */
static void short_runs_have_a_finite_rate(void)
{
    for (int schedule = SCHEDULE_COSINE; schedule <= SCHEDULE_CONSTANT; schedule++)
        for (int64_t steps = 1; steps < 4; steps++)
            for (int64_t warmup = 0; warmup <= steps; warmup++)
                for (int64_t step = 0; step < steps; step++) {
                    struct settings s = with(schedule, warmup, 0.2);
                    double lr;

                    s.steps = steps;
                    lr = lr_at(&s, step);
                    CHECK(lr > 0 && lr <= 8);
                }
}

int main(void)
{
    RUN(warmup_rises_in_equal_steps_to_the_full_rate);
    RUN(cosine_is_half_way_in_the_middle_and_ends_at_the_floor);
    RUN(wsd_holds_then_falls_in_a_line);
    RUN(constant_is_constant);
    RUN(short_runs_have_a_finite_rate);
    return check_done();
}
