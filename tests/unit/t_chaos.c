/* t_chaos.c - what chaos reads out of journals and logs. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "scheduler/chaos_fault.h"
#include "scheduler/chaos_record.h"
#include "tests/check.h"

static bool near(double a, double b) { return fabs(a - b) < 1e-9; }

static void the_first_event_after_a_moment_is_found(void)
{
    static const char journal[] =
        "{\"time\": 10.5, \"event\": \"fault\", \"kind\": \"died\"}\n"
        "{\"time\": 11, \"event\": \"start\", \"generation\": 2}\n"
        "no json at all\n"
        "{\"time\": 12, \"event\": \"fault\"}\n"
        "{\"time\": 13, \"event\": \"running\"}\n"
        "{\"time\": 99, \"event\": \"fa"; /* cut */
    double t = -1;

    CHECK(chaos_event(journal, "fault", 0, &t) && near(t, 10.5));
    CHECK(chaos_event(journal, "fault", 10.5, &t) && near(t, 12));
    CHECK(chaos_event(journal, "running", 10.5, &t) && near(t, 13));
    t = -1;
    CHECK(!chaos_event(journal, "fault", 12, &t));
    CHECK(!chaos_event(journal, "end", 0, &t));
    CHECK(!chaos_event("", "fault", 0, &t));
    CHECK(near(t, -1)); /* written only when found */
}

/* Steps 1 2 3, back to 2: 2 and 3 are done again, their second doing counts. */
static void steps_done_again_are_lost_and_the_last_doing_counts(void)
{
    static const char log[] = "{\"step\":1,\"step_ms\":500,\"time\":100.5}\n"
                              "{\"step\":2,\"step_ms\":500,\"time\":101}\n"
                              "{\"event\":\"resume\",\"step\":1}\n"
                              "{\"step\":2,\"step_ms\":1000,\"time\":110}\n"
                              "{\"step\":3,\"step_ms\":250,\"time\":110.25}\n"
                              "{\"step\":3,\"step_ms\":500,\"time\":120}\n"
                              "{\"step\":4,\"step_m";
    struct chaos_steps s;

    CHECK_I64(chaos_steps(log, &s), ==, KR_OK);
    CHECK_I64(s.last, ==, 3);
    CHECK_I64(s.again, ==, 2);
    CHECK(near(s.useful, 0.5 + 1 + 0.5));
    CHECK(near(s.elapsed, 20));
}

static void a_run_without_faults_is_effective_throughout(void)
{
    char log[64 * 1500];
    int n = 0;
    struct chaos_steps s;

    for (int i = 1; i <= 1500; i++) /* more than one block of memory */
        n += snprintf(log + n, sizeof log - (size_t)n,
                      "{\"step\":%d,\"step_ms\":250,\"time\":%.2f}\n", i, i * 0.25);
    CHECK_I64(chaos_steps(log, &s), ==, KR_OK);
    CHECK_I64(s.last, ==, 1500);
    CHECK_I64(s.again, ==, 0);
    CHECK(near(s.useful, s.elapsed));
}

static void nonsense_is_no_step(void)
{
    static const char log[] =
        "{\"step\":-1,\"step_ms\":5}\n{\"step\":1e300,\"step_ms\":5}\n"
        "{\"step\":7}\n{\"step\":\"8\",\"step_ms\":5}\n[]\n\n";
    struct chaos_steps s;

    CHECK_I64(chaos_steps(log, &s), ==, KR_OK);
    CHECK_I64(s.last, ==, 0);
    CHECK(near(s.useful, 0) && near(s.elapsed, 0));
}

static void a_spread_is_least_median_most(void)
{
    double odd[] = { 3, 1, 2 }, even[] = { 4, 1, 3, 2 }, one[] = { 7 };
    struct chaos_spread s = chaos_spread(odd, 3);

    CHECK(near(s.least, 1) && near(s.median, 2) && near(s.most, 3));
    s = chaos_spread(even, 4);
    CHECK(near(s.least, 1) && near(s.median, 2) && near(s.most, 4));
    s = chaos_spread(one, 1);
    CHECK(near(s.least, 7) && near(s.median, 7) && near(s.most, 7));
}

static const char status[] = "{\"state\": \"running\", \"step\": 17, \"nodes\": "
                             "[{\"name\": \"n1\", \"agent_pid\": 5},"
                             "{\"name\": \"n2\", \"agent_pid\": 6}], \"ranks_now\": ["
                             "{\"rank\": 0, \"node\": \"n1\", \"pid\": 100}, {\"rank\": "
                             "1, \"node\": \"n2\", \"pid\": 101}]}";

static void a_victim_is_a_rank_that_runs(void)
{
    struct chaos_target t;

    CHECK(chaos_fault_target(status, 4, &t));
    CHECK_I64(t.pid, ==, 100);
    CHECK_I64(t.step, ==, 17);
    CHECK(chaos_fault_target(status, 7, &t));
    CHECK_I64(t.pid, ==, 101);
    CHECK_I64(t.agent_pid, ==, 6);
    CHECK(strcmp(t.node, "n2") == 0);
}

static void without_steps_there_is_no_victim(void)
{
    static const char *const none[] = {
        "",
        "{}",
        "{\"state\": \"running\", \"step\": 3, \"ranks_now\": []}",
        "{\"state\": \"starting\", \"step\": 3, \"ranks_now\": [{\"node\": \"n1\", "
        "\"pid\": 1}]}",
        "{\"state\": \"running\", \"step\": -1, \"ranks_now\": [{\"node\": \"n1\", "
        "\"pid\": 1}]}",
        "{\"state\": \"running\", \"step\": 3, \"ranks_now\": [{\"node\": \"n1\", "
        "\"pid\": 0}]}",
        "{\"state\": \"running\", \"step\": 3, \"ranks_now\": [{\"pid\": 1}]}",
    };
    struct chaos_target t = { .pid = 77 };

    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        CHECK(!chaos_fault_target(none[i], 0, &t));
    CHECK_I64(t.pid, ==, 77);
}

static void faults_are_lines_for_a_shell(void)
{
    struct chaos_target t = { .node = "n1", .pid = 100, .agent_pid = 5 };
    char line[CHAOS_LINE];

    CHECK(chaos_fault_line(CHAOS_RANK, &t, line));
    CHECK(strcmp(line, "p=100 a=5; kill -KILL $p") == 0);
    CHECK(chaos_fault_line(CHAOS_AGENT, &t, line));
    CHECK(strcmp(line, "p=100 a=5; kill -KILL $a") == 0);
    t.agent_pid = 0; /* never kill process 0: that is everybody */
    CHECK(!chaos_fault_line(CHAOS_AGENT, &t, line));
    CHECK(!chaos_fault_line(CHAOS_SUPERVISOR, &t, line));
}

static void lists_of_faults(void)
{
    uint32_t bits = 99;

    CHECK_I64(chaos_fault_parse("hang,rank", &bits), ==, KR_OK);
    CHECK_I64(bits, ==, 1 << CHAOS_RANK | 1 << CHAOS_HANG);
    CHECK_I64(chaos_fault_parse("node", &bits), ==, KR_OK);
    CHECK_I64(bits, ==, 1 << CHAOS_NODE);
    for (const char *const *bad =
             (const char *const[]){ "", "ran", "ranks", "rank,,hang", NULL };
         *bad; bad++)
        CHECK_I64(chaos_fault_parse(*bad, &bits), ==, KR_ERR_ARG);
    CHECK_I64(bits, ==, 1 << CHAOS_NODE);
}

int main(void)
{
    log_mute(true);
    RUN(a_victim_is_a_rank_that_runs);
    RUN(without_steps_there_is_no_victim);
    RUN(faults_are_lines_for_a_shell);
    RUN(lists_of_faults);
    RUN(the_first_event_after_a_moment_is_found);
    RUN(steps_done_again_are_lost_and_the_last_doing_counts);
    RUN(a_run_without_faults_is_effective_throughout);
    RUN(nonsense_is_no_step);
    RUN(a_spread_is_least_median_most);
    return check_done();
}
