/* t_ladder.c - each fault finds its rung, and no run climbs for ever. */
#include "scheduler/exitcode.h"
#include "scheduler/ladder.h"
#include "tests/check.h"

static struct ladder_move m;

/* 8 ranks on nodes that are all well, and a rank that was killed. */
static struct ladder_view usual(void)
{
    return (struct ladder_view){ .exit_code = -1,
                                 .attempts = 1,
                                 .attempts_max = 3,
                                 .ranks = 8,
                                 .slots_up = 8,
                                 .ranks_wanted = 8,
                                 .ranks_min = 1,
                                 .wait_max = 60 };
}

static enum ladder_rung rung_of(const struct ladder_view *v)
{
    ladder_next(v, &m);
    CHECK(m.why[0] != '\0');
    return m.rung;
}

static void a_killed_rank_starts_again_at_once(void)
{
    struct ladder_view v = usual();

    CHECK_I64(rung_of(&v), ==, LADDER_AGAIN);
    CHECK(m.seconds == 0);
}

static void a_lost_node_is_replaced(void)
{
    struct ladder_view v = usual();

    v.node_lost = true;
    v.missing = 1;
    v.spares = 2;
    v.slots_up = 10;
    CHECK_I64(rung_of(&v), ==, LADDER_SPARE);
}

static void without_spares_it_shrinks(void)
{
    struct ladder_view v = usual();

    v.node_lost = true;
    v.missing = 1;
    v.slots_up = 6;
    CHECK_I64(rung_of(&v), ==, LADDER_FEWER);
    v.ranks_min = 8; /* unless that is forbidden */
    CHECK_I64(rung_of(&v), ==, LADDER_WAIT);
    CHECK_NEAR(m.seconds, 60, 0);
    v.waited = 60;
    CHECK_I64(rung_of(&v), ==, LADDER_END);
    CHECK_I64(m.exit_code, ==, EXIT_NO_NODES);
    v.may_requeue = true;
    CHECK_I64(rung_of(&v), ==, LADDER_REQUEUE);
    CHECK_I64(m.exit_code, ==, EXIT_REQUEUE);
}

static void what_a_restart_cannot_cure_ends(void)
{
    static const int final[] = { EXIT_USAGE, EXIT_NO_CHECKPOINT };
    struct ladder_view v = usual();

    for (size_t i = 0; i < sizeof final / sizeof *final; i++) {
        v.exit_code = final[i];
        CHECK_I64(rung_of(&v), ==, LADDER_END);
        CHECK_I64(m.exit_code, ==, final[i]);
    }
    v.exit_code = EXIT_COMM;
    CHECK_I64(rung_of(&v), ==, LADDER_AGAIN);
    v.exit_code = 139;
    CHECK_I64(rung_of(&v), ==, LADDER_AGAIN);
}

static void attempts_without_a_step_end(void)
{
    struct ladder_view v = usual();

    v.attempts = 2;
    CHECK_I64(rung_of(&v), ==, LADDER_AGAIN);
    CHECK(m.seconds >= 1);
    v.attempts = 3;
    CHECK_I64(rung_of(&v), ==, LADDER_END);
    CHECK_I64(m.exit_code, ==, EXIT_CRASH_LOOP);
    v.node_lost = true; /* not the run's fault */
    CHECK_I64(rung_of(&v), ==, LADDER_AGAIN);
}

static void back_off_is_bounded(void)
{
    struct ladder_view v = usual();

    v.attempts_max = 1000;
    for (v.attempts = 1; v.attempts < 1000; v.attempts++) {
        double least;

        v.jitter = 0;
        (void)rung_of(&v);
        least = m.seconds;
        v.jitter = UINT64_MAX;
        (void)rung_of(&v);
        CHECK(least <= 30 && m.seconds <= 45 && m.seconds >= least);
    }
}

static void a_run_that_has_not_begun_waits_for_all(void)
{
    struct ladder_view v = usual();

    v.ranks = 0;
    v.missing = 0;
    v.slots_up = 4;
    v.ranks_min = 8;
    CHECK_I64(rung_of(&v), ==, LADDER_WAIT);
    v.slots_up = 8;
    CHECK_I64(rung_of(&v), ==, LADDER_FIRST);
}

int main(void)
{
    RUN(a_killed_rank_starts_again_at_once);
    RUN(a_lost_node_is_replaced);
    RUN(without_spares_it_shrinks);
    RUN(what_a_restart_cannot_cure_ends);
    RUN(attempts_without_a_step_end);
    RUN(back_off_is_bounded);
    RUN(a_run_that_has_not_begun_waits_for_all);
    return check_done();
}
