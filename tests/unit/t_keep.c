/* t_keep.c - when snapshots are due, and what a spike is: from numbers that all ranks have. */
#include <string.h>

#include "tests/check.h"
#include "trainer/run/interval.h"
#include "trainer/run/judge.h"

static struct settings settings(const char *every, double mttf_hours)
{
    struct settings s = { .snapshot_mttf = mttf_hours };

    snprintf(s.snapshot_every, sizeof s.snapshot_every, "%s", every);
    return s;
}

static void the_formula_is_that_of_young(void)
{
    CHECK_I64(interval_steps(0.05, 5, 7.9 * 3600), ==, 10); /* sqrt(2844) = 53 s */
    CHECK_I64(interval_steps(0.05, 53.4, 7.9 * 3600), ==, 1);
    CHECK_I64(interval_steps(0, 1, 3600), ==, 1);
    CHECK_I64(interval_steps(1e9, 1e-9, 1e9), ==, 1000000000);
}

/* Loss of time to stalls and to work done again, of one interval against others. */
static void another_interval_loses_more(void)
{
    double stall = 0.2, mttf = 3600, best = (double)interval_steps(stall, 1, mttf);
    double at_best = stall / best + best / 2 / mttf;

    for (double factor = 0.25; factor <= 4; factor *= 2) {
        double other = best * factor;

        CHECK(stall / other + other / 2 / mttf >= at_best * 0.9999);
    }
}

static void a_number_is_taken_as_it_is(void)
{
    struct settings s = settings("4", 8), off = settings("0", 8);
    struct interval i;

    interval_begin(&i, &s, 2);
    for (int64_t done = 3; done < 20; done++)
        CHECK(interval_due(&i, done) == (done % 4 == 0));
    interval_begin(&i, &off, 0);
    CHECK(!interval_due(&i, 4));
}

/* The slowest rank and the longest stall count, whoever asks. */
static void all_ranks_decide_alike_from_what_all_told(void)
{
    struct settings s = settings("auto", 1);
    struct step_words words[2] = { { .step_seconds = 1, .stall = 0.1 },
                                   { .step_seconds = 2, .stall = 0.5 } };
    struct interval i;
    int64_t done = 100;

    interval_begin(&i, &s, done);
    while (!interval_due(&i, ++done))
        interval_learn(&i, words, 2);
    CHECK_I64(done, ==, 103);
    interval_taken(&i, done);
    CHECK(!interval_due(&i, done + 1));
    interval_learn(&i, words, 2);
    CHECK(!interval_due(&i, done + 29)); /* sqrt(2 * 0.5 * 3600) / 2 = 30 */
    CHECK(interval_due(&i, done + 30));
    words[0] = words[1],
    words[1] = (struct step_words){ .step_seconds = 1, .stall = 0.1 };
    interval_begin(&i, &s, 100);
    interval_learn(&i, words, 2);
    interval_taken(&i, 103);
    interval_learn(&i, words, 2);
    CHECK(!interval_due(&i, 132) && interval_due(&i, 133));
}

static void a_spike_stands_out_and_noise_does_not(void)
{
    struct judge j = { 0 };
    double by = 0;
    int alarms = 0;

    for (int i = 0; i < 400; i++) /* falls, with noise of 0.05 */
        alarms += judge_is_spike(&j, 3 - i * 0.004 + 0.05 * sin(i * 12.9898), 6, &by);
    CHECK_I64(alarms, ==, 0);
    CHECK(judge_is_spike(&j, 4, 6, &by) && by > 6);
    CHECK(judge_is_spike(&j, 4, 6, &by));  /* it has not moved the mean */
    CHECK(!judge_is_spike(&j, 4, 0, &by)); /* not looked for */
    memset(&j, 0, sizeof j);
    CHECK(!judge_is_spike(&j, 1, 6, &by) && !judge_is_spike(&j, 1000, 6, &by));
}

int main(void)
{
    RUN(the_formula_is_that_of_young);
    RUN(another_interval_loses_more);
    RUN(a_number_is_taken_as_it_is);
    RUN(all_ranks_decide_alike_from_what_all_told);
    RUN(a_spike_stands_out_and_noise_does_not);
    return check_done();
}
