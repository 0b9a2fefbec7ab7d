/* Metrics in Prometheus's text format. */
#include "base/prom.h"

#include <math.h>

#include "tests/check.h"

static void a_metric_is_told_before_its_samples(void)
{
    struct mem_text t = { 0 };

    prom_put(&t, "kilorank_step", "Steps done.", PROM_COUNTER, "runs/a", 300);
    CHECK_STR(t.at, "# HELP kilorank_step Steps done.\n# TYPE kilorank_step counter\n"
                    "kilorank_step{run=\"runs/a\"} 300\n");
    mem_text_free(&t);
}

static void labels_are_escaped(void)
{
    struct mem_text t = { 0 };

    prom_sample(&t, "x", "a\"b\\c\nd", "node", "n1", 0.5);
    CHECK_STR(t.at, "x{run=\"a\\\"b\\\\c\\nd\",node=\"n1\"} 0.5\n");
    mem_text_free(&t);
}

static void numbers_that_are_none_have_names(void)
{
    struct mem_text t = { 0 };

    prom_sample(&t, "x", "r", NULL, NULL, NAN);
    prom_sample(&t, "x", "r", NULL, NULL, INFINITY);
    prom_sample(&t, "x", "r", NULL, NULL, -INFINITY);
    CHECK_STR(t.at, "x{run=\"r\"} NaN\nx{run=\"r\"} +Inf\nx{run=\"r\"} -Inf\n");
    mem_text_free(&t);
}

int main(void)
{
    RUN(a_metric_is_told_before_its_samples);
    RUN(labels_are_escaped);
    RUN(numbers_that_are_none_have_names);
    return check_done();
}
