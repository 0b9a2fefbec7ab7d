/* Choosing a token: what each knob keeps, and with which chance. */
#include "trainer/run/sample.h"

#include "base/log.h"
#include "base/rng.h"
#include "tests/check.h"

enum { N = 5 };
/* probabilities 0.4 0.3 0.2 0.1 and next to nothing, not in this order */
static const double chance[N] = { 0.2, 0.4, 1e-9, 0.3, 0.1 };

static int32_t draw(const struct sample_how *how, double u)
{
    double logits[N];
    int32_t out = -1;

    for (int i = 0; i < N; i++)
        logits[i] = 3 + log(chance[i]); /* a constant changes nothing */
    CHECK_I64(sample_token(logits, N, how, u, &out), ==, KR_OK);
    return out;
}

static void without_temperature_the_likeliest_is_taken(void)
{
    double equal[N] = { 1, 2, 2, 0, 2 };
    int32_t out = -1;

    CHECK_I64(draw(&(struct sample_how){ 0, 0, 1 }, 0.99), ==, 1);
    CHECK_I64(sample_token(equal, N, &(struct sample_how){ 0, 0, 1 }, 0.5, &out), ==,
              KR_OK);
    CHECK_I64(out, ==, 1); /* the first of equals */
}

/* Tokens stand in order of falling probability: 1, 3, 0, 4, 2. */
static void u_picks_by_the_running_sum(void)
{
    struct sample_how how = { 1, 0, 1 };

    CHECK_I64(draw(&how, 0), ==, 1);
    CHECK_I64(draw(&how, 0.39), ==, 1);
    CHECK_I64(draw(&how, 0.41), ==, 3);
    CHECK_I64(draw(&how, 0.69), ==, 3);
    CHECK_I64(draw(&how, 0.71), ==, 0);
    CHECK_I64(draw(&how, 0.91), ==, 4);
    CHECK_I64(draw(&how, 1 - 1e-16), ==, 2);
}

static void top_k_keeps_k(void)
{
    struct sample_how how = { 1, 2, 1 };

    CHECK_I64(draw(&how, 0.56), ==, 1); /* 0.4 / 0.7 = 0.571 */
    CHECK_I64(draw(&how, 0.58), ==, 3);
    CHECK_I64(draw(&how, 1 - 1e-16), ==, 3);
}

static void top_p_keeps_the_fewest_that_reach_it(void)
{
    struct sample_how how = { 1, 0, 0.65 };

    CHECK_I64(draw(&how, 1 - 1e-16), ==, 3);
    how.top_p = 0.75;
    CHECK_I64(draw(&how, 1 - 1e-16), ==, 0);
    how.top_p = 1e-6; /* at least one */
    CHECK_I64(draw(&how, 1 - 1e-16), ==, 1);
}

/* Temperature T raises probabilities to 1/T. */
static void temperature_sharpens_and_flattens(void)
{
    double total = 0;

    for (int i = 0; i < N; i++)
        total += sqrt(chance[i]);
    CHECK_I64(draw(&(struct sample_how){ 2, 0, 1 }, sqrt(0.4) / total - 1e-6), ==, 1);
    CHECK_I64(draw(&(struct sample_how){ 2, 0, 1 }, sqrt(0.4) / total + 1e-6), ==, 3);
    CHECK_I64(draw(&(struct sample_how){ 0.01, 0, 1 }, 0.9999), ==, 1);
}

static void frequencies_are_the_probabilities(void)
{
    enum { DRAWS = 20000 };
    int64_t seen[N] = { 0 };

    for (uint64_t i = 0; i < DRAWS; i++)
        seen[draw(&(struct sample_how){ 1, 0, 1 }, rng_uniform(1, RNG_TEST, 0, i))]++;
    for (int i = 0; i < N; i++)
        CHECK_NEAR((double)seen[i] / DRAWS, chance[i], 5 * 0.5 / sqrt(DRAWS));
}

static void quiet(enum log_level level, const char *text, void *arg)
{
    (void)level;
    (void)text;
    ++*(int *)arg;
}

static void logits_that_are_not_finite_are_refused(void)
{
    static const double bad[] = { NAN, INFINITY, -INFINITY };
    int lines = 0;

    log_capture(quiet, &lines);
    for (int i = 0; i < 3; i++) {
        double logits[N] = { 0, 1, bad[i], 0, 0 };
        int32_t out = 77;

        CHECK_I64(sample_token(logits, N, &(struct sample_how){ 1, 0, 1 }, 0.5, &out), ==,
                  KR_ERR_NUMERIC);
        CHECK_I64(out, ==, 77);
    }
    log_capture(NULL, NULL);
    CHECK_I64(lines, ==, 3);
}

int main(void)
{
    RUN(without_temperature_the_likeliest_is_taken);
    RUN(u_picks_by_the_running_sum);
    RUN(top_k_keeps_k);
    RUN(top_p_keeps_the_fewest_that_reach_it);
    RUN(temperature_sharpens_and_flattens);
    RUN(frequencies_are_the_probabilities);
    RUN(logits_that_are_not_finite_are_refused);
    return check_done();
}
