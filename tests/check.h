/*
 * check.h - a test program in one header.
 *
 * A test is a static void function named after the behaviour it proves; main RUNs each
 * and returns check_done().  A failing check prints both values and the place, and the
 * test goes on, so one run shows all that is wrong.  Output is TAP.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int check_bad_here, check_cases, check_bad_cases;

#define CHECK(cond)                                                      \
    do {                                                                 \
        if (!(cond)) {                                                   \
            printf("# %s:%d: %s is false\n", __FILE__, __LINE__, #cond); \
            check_bad_here++;                                            \
        }                                                                \
    } while (0)

#define CHECK_I64(a, op, b)                                                      \
    do {                                                                         \
        int64_t a_ = (int64_t)(a), b_ = (int64_t)(b);                            \
        if (!(a_ op b_)) {                                                       \
            printf("# %s:%d: %s %s %s (%" PRId64 " vs %" PRId64 ")\n", __FILE__, \
                   __LINE__, #a, #op, #b, a_, b_);                               \
            check_bad_here++;                                                    \
        }                                                                        \
    } while (0)

/* |a - b| <= tol; NaN fails. */
#define CHECK_NEAR(a, b, tol)                                                           \
    do {                                                                                \
        double a_ = (double)(a), b_ = (double)(b), t_ = (double)(tol);                  \
        if (!(fabs(a_ - b_) <= t_)) {                                                   \
            printf("# %s:%d: %s = %.12g, want %.12g within %.3g\n", __FILE__, __LINE__, \
                   #a, a_, b_, t_);                                                     \
            check_bad_here++;                                                           \
        }                                                                               \
    } while (0)

#define CHECK_STR(a, b)                                                                \
    do {                                                                               \
        const char *a_ = (a), *b_ = (b);                                               \
        if (strcmp(a_, b_) != 0) {                                                     \
            printf("# %s:%d: %s is \"%s\", want \"%s\"\n", __FILE__, __LINE__, #a, a_, \
                   b_);                                                                \
            check_bad_here++;                                                          \
        }                                                                              \
    } while (0)

#define RUN(fn)                                                                     \
    do {                                                                            \
        check_bad_here = 0;                                                         \
        fn();                                                                       \
        printf("%sok %d - %s\n", check_bad_here ? "not " : "", ++check_cases, #fn); \
        fflush(stdout);                                                             \
        check_bad_cases += check_bad_here != 0;                                     \
    } while (0)

static inline int check_done(void)
{
    printf("1..%d\n", check_cases);
    return check_bad_cases != 0;
}

#endif
