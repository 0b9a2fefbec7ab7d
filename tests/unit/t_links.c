/* t_links.c - which links would hold a run up, and a probe over a real socket. */
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "scheduler/links.h"
#include "scheduler/probe.h"
#include "tests/check.h"

static double room[8];

static void a_node_is_known_by_its_better_link(void)
{
    struct link_speed a = { 1e6, 1e-3 }, b = { 5e8, 2e-3 }, none = { 0, 0 }, out;

    out = links_better(a, b);
    CHECK_NEAR(out.rate, 5e8, 0);
    CHECK_NEAR(out.round_trip, 1e-3, 0);
    CHECK_NEAR(links_better(none, a).rate, 1e6, 0);
    CHECK_NEAR(links_better(a, none).round_trip, 1e-3, 0);
}

static void what_is_normal_comes_from_those_that_have_a_link(void)
{
    const struct link_speed all[] = {
        { 1e9, 1e-4 }, { 0, 0 }, { 9e8, 2e-4 }, { 8e8, 3e-4 }
    };
    struct link_speed normal = links_median(all, 4, room);

    CHECK_NEAR(normal.rate, 9e8, 0);
    CHECK_NEAR(normal.round_trip, 2e-4, 0);
    CHECK_NEAR(links_median(all + 1, 1, room).rate, 0, 0);
}

static void bad_is_far_from_normal(void)
{
    static const struct {
        struct link_speed is;
        int32_t times;
        bool is_bad;
    } cases[] = {
        { { 1e9, 1e-4 }, LINKS_IDLE, false },  { { 3e8, 1e-4 }, LINKS_IDLE, false },
        { { 1e8, 1e-4 }, LINKS_IDLE, true },   { { 1e8, 1e-4 }, LINKS_BUSY, false },
        { { 1e7, 1e-4 }, LINKS_BUSY, true },   { { 0, 0 }, LINKS_BUSY, true },
        { { 1e9, 15e-3 }, LINKS_IDLE, false }, { { 1e9, 30e-3 }, LINKS_IDLE, true },
    };
    const struct link_speed normal = { 1e9, 1e-4 }, unknown = { 0, 0 };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_I64(links_is_bad(cases[i].is, normal, cases[i].times), ==, cases[i].is_bad);
    CHECK(!links_is_bad((struct link_speed){ 1, 1 }, unknown, LINKS_IDLE));
}

/* ---- a probe ------------------------------------------------------------------------ */

static struct probe prober;
static double rate, round_trip;
static int told;

static void done(void *owner, double trip, double bytes)
{
    uv_timer_t *timer = owner;

    told++;
    round_trip = trip;
    rate = bytes;
    uv_stop(timer->loop);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
    probe_tick(&prober, clock_now());
}

static void nothing(struct link *l) { (void)l; }
static void no_answer(struct link *l, const struct wire_message *m) { (void)l, (void)m; }
static void over(struct link *l, const char *why) { (void)l, (void)why; }

/* Against a door that echoes, one that says nothing, and none. */
static void a_probe_tells_once_whoever_answers(void)
{
    static const struct link_events mute = { nothing, no_answer, over };
    static struct probe other;
    static struct door silent;
    struct wire_token token = { { 1, 2, 3 } };
    struct link *up = NULL;
    uv_loop_t loop;
    uv_timer_t timer;
    int port;

    uv_loop_init(&loop);
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_tick, 0, 10);
    CHECK_I64(door_open(&silent, &loop, "127.0.0.1", &token, &mute, NULL), ==, KR_OK);
    CHECK_I64(link_connect(&up, &loop, "127.0.0.1", silent.port, &token, &mute, NULL), ==,
              KR_OK);
    uv_run(&loop, UV_RUN_ONCE);
    port = probe_listen(&other, &loop, up);
    CHECK_I64(port, >, 0);
    probe_start(&prober, &loop, "127.0.0.1", port, &token, done, &timer);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_I64(told, ==, 1);
    CHECK(rate > 1e6 && round_trip > 0 && round_trip < 1);

    probe_start(&prober, &loop, "127.0.0.1", silent.port, &token, done, &timer);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_I64(told, ==, 2);
    CHECK_NEAR(rate, 0, 0);

    probe_start(&prober, &loop, "127.0.0.1", 1, &token, done, &timer);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_I64(told, ==, 3);
    CHECK_NEAR(rate, 0, 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    RUN(a_node_is_known_by_its_better_link);
    RUN(what_is_normal_comes_from_those_that_have_a_link);
    RUN(bad_is_far_from_normal);
    RUN(a_probe_tells_once_whoever_answers);
    return check_done();
}
