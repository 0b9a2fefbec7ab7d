/* Random numbers: the published function, and distributions as promised. */
#include "base/rng.h"

#include <stdlib.h>

#include "tests/check.h"

/* Known answers of the paper's reference implementation (philox4x32, 10 rounds). */
static void philox_gives_the_published_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];

        rng_philox(out, known[i].counter, known[i].key);
        for (int w = 0; w < 4; w++)
            CHECK_I64(out[w], ==, known[i].want[w]);
    }
}

/* Every argument reaches the counter or the key. */
static void each_argument_changes_the_value(void)
{
    uint64_t base = rng_u64(1, 2, 3, 4);

    CHECK_I64(rng_u64(1, 2, 3, 4), ==, base);
    CHECK(rng_u64(2, 2, 3, 4) != base);
    CHECK(rng_u64(1 | 1ull << 40, 2, 3, 4) != base);
    CHECK(rng_u64(1, 3, 3, 4) != base);
    CHECK(rng_u64(1, 2, 4, 4) != base);
    CHECK(rng_u64(1, 2, 3, 5) != base);
    CHECK(rng_u64(1, 2, 3, 4 | 1ull << 40) != base);
}

enum { DRAWS = 200000 };

/* Means within 5 standard errors. */
static void uniform_numbers_fill_the_interval(void)
{
    double sum = 0, squares = 0;
    int64_t cells[16] = { 0 };

    for (uint64_t i = 0; i < DRAWS; i++) {
        double u = rng_uniform(7, RNG_TEST, 0, i);

        CHECK(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
        cells[(int)(u * 16)]++;
    }
    CHECK_NEAR(sum / DRAWS, 0.5, 5 * 0.2887 / sqrt(DRAWS));
    CHECK_NEAR(squares / DRAWS, 1.0 / 3, 5 * 0.2981 / sqrt(DRAWS));
    for (int i = 0; i < 16; i++)
        CHECK_NEAR((double)cells[i], DRAWS / 16.0, 5 * sqrt(DRAWS / 16.0));
}

static void normal_numbers_have_the_moments(void)
{
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;

    for (uint64_t i = 0; i < DRAWS; i++) {
        double x = rng_normal(7, RNG_TEST, 1, i);

        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    CHECK_NEAR(m1 / DRAWS, 0, 5 / sqrt(DRAWS));
    CHECK_NEAR(m2 / DRAWS, 1, 5 * sqrt(2.0 / DRAWS));
    CHECK_NEAR(m3 / DRAWS, 0, 5 * sqrt(15.0 / DRAWS));
    CHECK_NEAR(m4 / DRAWS, 3, 5 * sqrt(96.0 / DRAWS));
}

static void a_permutation_visits_everything_once(void)
{
    static const uint64_t sizes[] = { 1, 2, 3, 4, 5, 15, 16, 17, 63, 1000, 4097 };

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        char *seen = calloc(sizes[s], 1);

        for (uint64_t i = 0; i < sizes[s]; i++) {
            uint64_t at = rng_permute(9, RNG_TEST, 0, sizes[s], i);

            CHECK(at < sizes[s]);
            CHECK(at < sizes[s] && !seen[at]);
            seen[at] = 1;
        }
        free(seen);
    }
}

/* About one element in n stays in its place; neighbours are torn apart. */
static void a_permutation_mixes(void)
{
    enum { N = 10000 };
    int64_t fixed = 0, neighbours = 0;

    for (uint64_t i = 0; i + 1 < N; i++) {
        uint64_t a = rng_permute(9, RNG_TEST, 1, N, i);

        fixed += a == i;
        neighbours += rng_permute(9, RNG_TEST, 1, N, i + 1) == a + 1;
    }
    CHECK_I64(fixed, <, 12);
    CHECK_I64(neighbours, <, 12);
}

static void a_permutation_of_a_huge_range_stays_inside(void)
{
    const uint64_t n = ((uint64_t)1 << 62) - 3;

    for (uint64_t i = 0; i < 1000; i++)
        CHECK(rng_permute(9, RNG_TEST, 2, n, n - 1 - i) < n);
}

int main(void)
{
    RUN(philox_gives_the_published_answers);
    RUN(each_argument_changes_the_value);
    RUN(uniform_numbers_fill_the_interval);
    RUN(normal_numbers_have_the_moments);
    RUN(a_permutation_visits_everything_once);
    RUN(a_permutation_mixes);
    RUN(a_permutation_of_a_huge_range_stays_inside);
    return check_done();
}
