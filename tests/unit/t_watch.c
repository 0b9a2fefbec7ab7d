/* t_watch.c - what beats tell, in simulated time: no fault is missed, no health is a fault. */
#include <stdlib.h>
#include <time.h>

#include "scheduler/pulse.h"
#include "scheduler/watch.h"
#include "tests/check.h"

/* A cluster whose ranks take a step of `pace` seconds each, all together. */
enum { PER_NODE = 8, NODES_MOST = 128 };
static struct watch w;
static struct wire_beat beat;
static int32_t nodes, ranks;
static double now, pace;
static int64_t steps;
static bool is_dead_node[NODES_MOST];
static int32_t dead_rank, stuck_rank; /* -1: none */
static double slow_rank_factor;       /* of rank 1 */
static double compute_share;          /* of a step */
static struct watch_verdict v;

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

static void build(int32_t node_count)
{
    watch_close(&w);
    nodes = node_count;
    ranks = nodes * PER_NODE;
    now = 1000;
    pace = 0.5;
    steps = 0;
    dead_rank = stuck_rank = -1;
    v.kind = WATCH_FINE;
    slow_rank_factor = 1;
    compute_share = 0.8;
    memset(is_dead_node, 0, sizeof is_dead_node);
    must(watch_open(&w, nodes, ranks, 5));
    for (int32_t i = 0; i < nodes; i++)
        watch_node(&w, i, true, now);
    watch_begin(&w, 1, ranks, now);
}

/* Rank r waits in the gradients' exchange, unless it is the one that is stuck before it. */
static struct wire_rank state(int32_t r, double age)
{
    struct wire_rank s = { .rank = r,
                           .pid = 100 + r,
                           .is_alive = r != dead_rank,
                           .exit_code = -1,
                           .phase = PULSE_REDUCING,
                           .step = steps,
                           .age = age,
                           .entered = (uint64_t)steps + 1,
                           .left = (uint64_t)steps,
                           .compute_seconds = compute_share * pace,
                           .wait_seconds = (1 - compute_share) * pace };

    if (r == 1) s.compute_seconds *= slow_rank_factor;
    if (r == stuck_rank) {
        s.entered--;
        s.phase = PULSE_COMPUTING;
    }
    strcpy(s.entered_name, "grads");
    return s;
}

static void beat_of(int32_t node, double age)
{
    beat.generation = 1;
    beat.count = PER_NODE;
    for (int32_t i = 0; i < PER_NODE; i++)
        beat.ranks[i] = state(node * PER_NODE + i, age);
    watch_beat(&w, node, &beat, now);
}

/* One second: steps are made unless something stops them; the first verdict, if any. */
static enum watch_kind second(void)
{
    bool runs = stuck_rank < 0 && dead_rank < 0;
    static double part;

    now += 1;
    part = runs ? part + 1 / pace : 0;
    steps += (int64_t)part;
    part -= (double)(int64_t)part;
    for (int32_t i = 0; i < nodes; i++)
        if (!is_dead_node[i]) beat_of(i, 0);
    watch_judge(&w, now, &v);
    return v.kind;
}

/* Seconds until a verdict, at most `most`. */
static int until(enum watch_kind kind, int most)
{
    for (int s = 1; s <= most; s++) {
        enum watch_kind k = second();

        if (k == kind) return s;
        if (k != WATCH_FINE) return -1;
    }
    return most + 1;
}

static void an_hour_of_health_is_silent(void)
{
    build(2);
    CHECK_I64(until(WATCH_FINE, 0), ==, 1);
    for (int s = 0; s < 3600; s++)
        CHECK_I64(second(), ==, WATCH_FINE);
    CHECK_NEAR(watch_step_median(&w), 0.5, 1e-9);
    CHECK_I64(w.step, ==, steps);
}

static void a_dead_rank_is_named_at_once(void)
{
    build(2);
    (void)until(WATCH_SLOW, 20);
    dead_rank = 11;
    CHECK_I64(until(WATCH_DIED, 5), ==, 1);
    CHECK_I64(v.rank, ==, 11);
    CHECK_I64(v.node, ==, 1);
    CHECK_I64(second(), ==, WATCH_FINE); /* said once */
}

static void a_rank_that_left_a_code_is_mpiruns_to_tell(void)
{
    build(1);
    (void)second();
    beat.ranks[2] = state(2, 0);
    beat.ranks[2].is_alive = false;
    beat.ranks[2].exit_code = 5;
    watch_beat(&w, 0, &beat, now);
    watch_judge(&w, now, &v);
    CHECK_I64(v.kind, ==, WATCH_FINE);
}

static void a_silent_node_is_lost_in_five_seconds(void)
{
    build(4);
    (void)until(WATCH_SLOW, 10);
    is_dead_node[2] = true;
    stuck_rank = 16; /* the others wait for it */
    CHECK_I64(until(WATCH_SILENT, 10), ==, 6);
    CHECK_I64(v.node, ==, 2);
}

static void time_that_was_lost_here_is_no_silence(void)
{
    build(4);
    (void)until(WATCH_SLOW, 10);
    now += 30; /* this process stood still */
    watch_forgive(&w, 30);
    watch_judge(&w, now, &v);
    CHECK_I64(v.kind, ==, WATCH_FINE);
    CHECK_I64(second(), ==, WATCH_FINE);
}

static void a_hang_is_noticed_in_two_steps_and_five_seconds(void)
{
    build(2);
    pace = 2;
    (void)until(WATCH_SLOW, 60);
    stuck_rank = 5;
    CHECK_I64(until(WATCH_STUCK, 100), <=, 2 * 2 + 5 + 2);
    CHECK_I64(v.rank, ==, 5); /* not the fifteen that wait */
    CHECK_I64(v.node, ==, 0);
    CHECK(strstr(v.why, "has not entered") != NULL);
}

/* In whatever phase it was stopped: that of saving has minutes. */
static void a_stopped_process_is_the_culprit(void)
{
    build(1);
    (void)until(WATCH_SLOW, 20);
    beat.generation = 1;
    beat.count = PER_NODE;
    for (int s = 0; s < 9 && v.kind != WATCH_STUCK; s++) {
        now += 1;
        for (int32_t i = 0; i < PER_NODE; i++) {
            beat.ranks[i] = state(i, 0);
            beat.ranks[i].state = i == 6 ? 'T' : 'R';
            beat.ranks[i].phase = PULSE_SAVING;
        }
        watch_beat(&w, 0, &beat, now);
        watch_judge(&w, now, &v);
    }
    CHECK_I64(v.rank, ==, 6);
    CHECK(strstr(v.why, "stopped") != NULL);
}

static void slow_steps_are_no_hang(void)
{
    build(1);
    pace = 100;
    for (int s = 0; s < 2000; s++)
        CHECK_I64(second(), ==, WATCH_FINE);
}

static void the_first_step_may_take_long(void)
{
    build(1);
    pace = 1e9; /* not one step */
    CHECK_I64(until(WATCH_STUCK, 1000), >, 100);
    CHECK(w.said.kind == WATCH_STUCK);
}

static void ranks_that_never_start_are_a_fault(void)
{
    build(2);
    is_dead_node[1] = true;
    for (int s = 0; s < 600 && v.kind != WATCH_STUCK; s++) {
        now += 1;
        beat_of(0, 0);
        beat.generation = 0;
        watch_beat(&w, 1, &beat, now); /* the agent lives, its ranks do not come */
        watch_judge(&w, now, &v);
    }
    CHECK_I64(v.kind, ==, WATCH_STUCK);
    CHECK(strstr(v.why, "8 of 16 ranks") != NULL);
}

static void saving_may_take_long(void)
{
    build(1);
    (void)until(WATCH_SLOW, 20);
    for (int s = 0; s < 200; s++) {
        now += 1;
        beat.generation = 1;
        beat.count = PER_NODE;
        for (int32_t i = 0; i < PER_NODE; i++) {
            beat.ranks[i] = state(i, 0);
            beat.ranks[i].phase = i == 0 ? PULSE_SAVING : PULSE_REDUCING;
        }
        watch_beat(&w, 0, &beat, now);
        watch_judge(&w, now, &v);
        CHECK_I64(v.kind, ==, WATCH_FINE);
    }
}

static void a_straggler_is_named_after_fifty_steps(void)
{
    int took;

    build(1);
    (void)until(WATCH_SLOW, 20);
    slow_rank_factor = 1.2;
    took = until(WATCH_SLOW, 100);
    CHECK_I64(took, >=, 25); /* 50 steps of half a second */
    CHECK_I64(took, <=, 27);
    CHECK_I64(v.rank, ==, 1);
    for (int s = 0; s < 100; s++)
        CHECK_I64(second(), ==, WATCH_FINE); /* said once */
}

static void slow_for_a_moment_is_nothing(void)
{
    build(1);
    for (int s = 0; s < 400; s++) {
        slow_rank_factor = s % 20 < 15 ? 1.5 : 1;
        CHECK_I64(second(), ==, WATCH_FINE);
    }
}

static void slow_but_for_a_step_now_and_then_is_slow(void)
{
    build(1);
    (void)until(WATCH_SLOW, 20);
    for (int s = 0; s < 60 && v.kind != WATCH_SLOW; s++) {
        slow_rank_factor = s % 10 == 9 ? 1 : 1.2;
        (void)second();
    }
    CHECK_I64(v.kind, ==, WATCH_SLOW);
    CHECK_I64(v.rank, ==, 1);
}

static void slow_in_what_is_little_of_a_step_is_nothing(void)
{
    build(1);
    compute_share = 0.05;
    slow_rank_factor = 1.5;
    for (int s = 0; s < 400; s++)
        CHECK_I64(second(), ==, WATCH_FINE);
}

static void an_old_generation_proves_life_and_no_more(void)
{
    build(1);
    (void)second();
    beat.generation = 0;
    beat.ranks[0].is_alive = false;
    now += 4;
    watch_beat(&w, 0, &beat, now);
    now += 4;
    watch_judge(&w, now, &v);
    CHECK_I64(v.kind, ==, WATCH_FINE);
}

/* 1,024 ranks: an hour of beats, one node lost; within a hundredth of a core. */
static void a_thousand_ranks_cost_little(void)
{
    clock_t start = clock();

    build(128);
    for (int s = 0; s < 60; s++)
        CHECK_I64(second(), ==, WATCH_FINE);
    is_dead_node[77] = true;
    stuck_rank = 77 * PER_NODE;
    CHECK_I64(until(WATCH_SILENT, 10), <=, 6);
    CHECK_I64(v.node, ==, 77);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 6); /* of 66 s */
}

int main(void)
{
    RUN(an_hour_of_health_is_silent);
    RUN(a_dead_rank_is_named_at_once);
    RUN(a_rank_that_left_a_code_is_mpiruns_to_tell);
    RUN(a_silent_node_is_lost_in_five_seconds);
    RUN(time_that_was_lost_here_is_no_silence);
    RUN(a_hang_is_noticed_in_two_steps_and_five_seconds);
    RUN(a_stopped_process_is_the_culprit);
    RUN(slow_steps_are_no_hang);
    RUN(the_first_step_may_take_long);
    RUN(ranks_that_never_start_are_a_fault);
    RUN(saving_may_take_long);
    RUN(a_straggler_is_named_after_fifty_steps);
    RUN(slow_for_a_moment_is_nothing);
    RUN(slow_but_for_a_step_now_and_then_is_slow);
    RUN(slow_in_what_is_little_of_a_step_is_nothing);
    RUN(an_old_generation_proves_life_and_no_more);
    RUN(a_thousand_ranks_cost_little);
    watch_close(&w);
    return check_done();
}
