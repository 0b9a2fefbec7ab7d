/* t_history.c - nodes that failed often are known again, and placed last. */
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "scheduler/history.h"
#include "tests/check.h"

static void lines_are_counted_by_whole_names(void)
{
    static const char text[] =
        "1 n1 lost\n2 n10 lost\nhalf a li\n3 n1 n10 said so\nn1\n\n4 n1";

    CHECK_I64(history_count(text, "n1"), ==, 2); /* the last line was cut off */
    CHECK_I64(history_count(text, "n10"), ==, 1);
    CHECK_I64(history_count("", "n1"), ==, 0);
}

static void a_node_that_failed_often_is_placed_last(void)
{
    struct nodes n = { 0 };

    CHECK_I64(nodes_parse(&n, "a\nb\nc\n", "hosts"), ==, KR_OK);
    for (int32_t i = 0; i < n.count; i++)
        n.at[i].state = NODE_UP;
    history_add("a", "nothing heard");
    history_add("a", "nothing heard");
    history_warn(&n);
    CHECK_I64(n.at[0].faults, ==, 0); /* twice is chance */
    history_add("a", "memory: does not keep what is written");
    history_warn(&n);
    CHECK_I64(n.at[0].faults, ==, 3);
    CHECK_I64(nodes_place(&n, 2), ==, 2);
    CHECK_I64(n.at[0].ranks, ==, 0);
    CHECK_I64(n.at[1].first, ==, 0);
    nodes_free(&n);
}

static void only_the_newest_lines_count(void)
{
    struct nodes n = { 0 };

    for (int i = 0; i < 5000; i++)
        history_add("other", "lost");
    CHECK_I64(nodes_parse(&n, "a\nother\n", "hosts"), ==, KR_OK);
    history_warn(&n);
    CHECK_I64(n.at[0].faults, ==, 0);
    CHECK_I64(n.at[1].faults, >, 1000);
    nodes_free(&n);
}

static void without_a_place_for_it_nothing_fails(void)
{
    struct nodes n = { 0 };

    setenv("XDG_STATE_HOME", "/proc/nowhere", 1);
    CHECK_I64(nodes_parse(&n, "a\n", "hosts"), ==, KR_OK);
    history_add("a", "lost");
    history_warn(&n);
    CHECK_I64(n.at[0].faults, ==, 0);
    nodes_free(&n);
}

int main(void)
{
    char folder[] = "/tmp/kr-history.XXXXXX";

    if (!mkdtemp(folder)) return 2;
    setenv("XDG_STATE_HOME", folder, 1);
    log_mute(true);
    RUN(lines_are_counted_by_whole_names);
    RUN(a_node_that_failed_often_is_placed_last);
    RUN(only_the_newest_lines_count);
    RUN(without_a_place_for_it_nothing_fails);
    (void)fs_remove_tree(folder);
    return check_done();
}
