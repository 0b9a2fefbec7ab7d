/* Sample order: an epoch visits disjoint windows once each, and nothing else matters. */
#include "trainer/data/order.h"

#include <stdlib.h>

#include "tests/check.h"

static const struct {
    int64_t tokens, seq;
} shapes[] = { { 2, 1 },      { 3, 1 },     { 9, 8 },     { 16, 8 },
               { 17, 8 },     { 24, 8 },    { 25, 8 },    { 1000, 999 },
               { 2001, 999 }, { 4096, 64 }, { 4097, 64 }, { 100000, 33 } };
enum { SHAPES = sizeof shapes / sizeof *shapes };

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void check_epoch(uint64_t seed, int64_t tokens, int64_t seq, int64_t epoch)
{
    int64_t n = order_epoch(tokens, seq), *firsts = malloc((size_t)n * sizeof *firsts);

    for (int64_t i = 0; i < n; i++)
        firsts[i] = order_first(seed, tokens, seq, epoch * n + i);
    qsort(firsts, (size_t)n, sizeof *firsts, by_value);
    CHECK_I64(firsts[0], >=, 0);
    CHECK_I64(firsts[0], <, seq);
    CHECK_I64(firsts[n - 1] + seq + 1, <=, tokens);
    for (int64_t i = 1; i < n; i++)
        CHECK_I64(firsts[i] - firsts[i - 1], ==, seq);
    free(firsts);
}

static void epoch_visits_disjoint_windows_once(void)
{
    for (int s = 0; s < SHAPES; s++)
        for (uint64_t seed = 0; seed < 3; seed++)
            for (int64_t epoch = 0; epoch < 4; epoch++)
                check_epoch(seed, shapes[s].tokens, shapes[s].seq, epoch);
}

/* What an epoch leaves out is less than two windows. */
static void epoch_uses_nearly_all_tokens(void)
{
    for (int s = 0; s < SHAPES; s++) {
        int64_t n = order_epoch(shapes[s].tokens, shapes[s].seq);

        CHECK_I64(n, >=, 1);
        CHECK_I64(shapes[s].tokens - n * shapes[s].seq, <, 2 * shapes[s].seq + 1);
    }
}

static void shortest_row_has_one_sample(void)
{
    for (int64_t seq = 1; seq < 70; seq++) {
        CHECK_I64(order_epoch(seq + 1, seq), ==, 1);
        for (int64_t n = 0; n < 5; n++)
            CHECK_I64(order_first(7, seq + 1, seq, n), ==, 0);
    }
}

static void sample_depends_on_its_number_only(void)
{
    int64_t back[600];

    for (int64_t n = 599; n >= 0; n--)
        back[n] = order_first(5, 10000, 50, n);
    for (int64_t n = 0; n < 600; n++)
        CHECK_I64(order_first(5, 10000, 50, n), ==, back[n]);
}

enum { TOKENS = 10000, SEQ = 50, WINDOWS = TOKENS / SEQ - 1 };

/* How many samples of an epoch visit the same window under two seeds. */
static int64_t same_windows(uint64_t seed_a, int64_t epoch_a, uint64_t seed_b,
                            int64_t epoch_b)
{
    int64_t same = 0;

    for (int64_t n = 0; n < WINDOWS; n++)
        same += order_first(seed_a, TOKENS, SEQ, epoch_a * WINDOWS + n) / SEQ ==
                order_first(seed_b, TOKENS, SEQ, epoch_b * WINDOWS + n) / SEQ;
    return same;
}

static void seeds_and_epochs_have_their_own_order(void)
{
    CHECK_I64(order_epoch(TOKENS, SEQ), ==, WINDOWS);
    CHECK_I64(same_windows(1, 0, 2, 0), <, 20);
    CHECK_I64(same_windows(1, 0, 1, 1), <, 20);
    CHECK_I64(same_windows(1, 0, 1ull << 40, 0), <, 20);
}

static void seeds_and_epochs_have_their_own_shift(void)
{
    int same_seed = 0, same_epoch = 0;

    for (int64_t e = 0; e < 100; e++) {
        int64_t shift = order_first(1, TOKENS, SEQ, e * WINDOWS) % SEQ;

        same_seed += shift == order_first(2, TOKENS, SEQ, e * WINDOWS) % SEQ;
        same_epoch += shift == order_first(1, TOKENS, SEQ, (e + 1) * WINDOWS) % SEQ;
    }
    CHECK_I64(same_seed, <, 15);
    CHECK_I64(same_epoch, <, 15);
}

/* Over epochs every token gets its turn, also those that one epoch's shift leaves out. */
static void epochs_reach_all_tokens(void)
{
    enum { FEW = 100, SHORT = 8 };
    char seen[FEW] = { 0 };

    for (int64_t n = 0; n < 200 * order_epoch(FEW, SHORT); n++)
        memset(seen + order_first(3, FEW, SHORT, n), 1, SHORT + 1);
    CHECK(memchr(seen, 0, sizeof seen - SHORT) == NULL);
}

static void far_samples_and_long_rows_stay_inside(void)
{
    const int64_t tokens = 1ll << 45, seq = 131072;

    for (int64_t n = 0; n < 1000; n++) {
        int64_t first = order_first(11, tokens, seq, n * 999999999937 + n);

        CHECK_I64(first, >=, 0);
        CHECK_I64(first + seq + 1, <=, tokens);
    }
}

int main(void)
{
    RUN(epoch_visits_disjoint_windows_once);
    RUN(epoch_uses_nearly_all_tokens);
    RUN(shortest_row_has_one_sample);
    RUN(sample_depends_on_its_number_only);
    RUN(seeds_and_epochs_have_their_own_order);
    RUN(seeds_and_epochs_have_their_own_shift);
    RUN(epochs_reach_all_tokens);
    RUN(far_samples_and_long_rows_stay_inside);
    return check_done();
}
