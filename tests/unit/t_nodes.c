/* t_nodes.c - host files are read or refused; ranks keep their places. */
#include <stdlib.h>

#include "base/log.h"
#include "scheduler/nodes.h"
#include "tests/check.h"

static struct nodes n;

static void up(int32_t first, int32_t last)
{
    for (int32_t i = first; i <= last; i++)
        n.at[i].state = NODE_UP;
}

static void read_four(void)
{
    nodes_free(&n);
    if (nodes_parse(&n, "a slots=2\nb slots=2\nc slots=2\nd slots=2\n", "hosts") != KR_OK)
        abort();
}

static void host_files_of_open_mpi_are_read(void)
{
    nodes_free(&n);
    CHECK_I64(nodes_parse(&n,
                          "# my cluster\n n1.lan slots=4 max_slots=8 # fast\n\n"
                          "n2\tslots=2\r\nn3\nn1.lan slots=1",
                          "hosts"),
              ==, KR_OK);
    CHECK_I64(n.count, ==, 3);
    CHECK_STR(n.at[0].name, "n1.lan");
    CHECK_I64(n.at[0].slots, ==, 5);
    CHECK_I64(n.at[1].slots, ==, 2);
    CHECK_I64(n.at[2].slots, ==, 1);
    CHECK_I64(nodes_slots(&n), ==, 8);
}

static void bad_host_files_are_refused(void)
{
    static const char *const bad[] = {
        "",
        "# nothing\n",
        "a slots=0\n",
        "a slots=two\n",
        "a slots=3x\n",
        "a slots=\n",
        "a slots=99999\n",
        "-oProxy=x\n",
        "a;rm slots=1\n",
        "a b\n",
        "$(x)\n",
        "a slots=200\na slots=200\n",
    };

    read_four();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_I64(nodes_parse(&n, bad[i], "hosts"), ==, KR_ERR_ARG);
    CHECK_I64(n.count, ==, 4); /* unchanged */
}

static void ranks_lie_in_blocks(void)
{
    read_four();
    up(0, 3);
    CHECK_I64(nodes_place(&n, 5), ==, 5);
    CHECK_I64(n.at[0].first, ==, 0);
    CHECK_I64(n.at[1].first, ==, 2);
    CHECK_I64(n.at[2].ranks, ==, 1);
    CHECK_I64(n.at[3].place, ==, -1);
    CHECK_I64(nodes_spare(&n), ==, 1);
    CHECK_I64(nodes_of_rank(&n, 4), ==, 2);
    CHECK_I64(nodes_of_rank(&n, 5), ==, -1);
}

static void a_spare_takes_the_place_of_the_lost(void)
{
    int32_t order[4];

    read_four();
    up(0, 3);
    (void)nodes_place(&n, 6);
    n.at[0].state = NODE_AWAY;
    CHECK_I64(nodes_missing(&n), ==, 1);
    CHECK_I64(nodes_place(&n, 6), ==, 6);
    CHECK_I64(nodes_active(&n, order), ==, 3);
    CHECK_I64(order[0], ==, 3);
    CHECK_I64(order[1], ==, 1); /* the others keep their ranks */
    CHECK_I64(n.at[1].first, ==, 2);
    CHECK_I64(n.at[2].first, ==, 4);
    up(0, 0); /* back again: it is a spare now */
    CHECK_I64(nodes_place(&n, 6), ==, 6);
    CHECK_I64(n.at[0].place, ==, -1);
}

static void the_spare_with_fewer_faults_is_taken(void)
{
    nodes_free(&n);
    CHECK_I64(nodes_parse(&n, "a\nb\nc\n", "hosts"), ==, KR_OK);
    up(0, 2);
    (void)nodes_place(&n, 1);
    n.at[0].state = NODE_BAD;
    n.at[1].faults = 1;
    CHECK_I64(nodes_place(&n, 1), ==, 1);
    CHECK_I64(n.at[2].place, ==, 0);
}

static void a_bad_node_is_swapped_for_a_better_spare(void)
{
    read_four();
    up(0, 3);
    (void)nodes_place(&n, 6);
    n.at[1].faults = 3;
    CHECK(nodes_swap_out(&n, 1));
    CHECK_I64(nodes_place(&n, 6), ==, 6);
    CHECK_I64(n.at[3].first, ==, 2);
    CHECK_I64(n.at[1].ranks, ==, 0);
    n.at[3].faults = 3;
    CHECK(!nodes_swap_out(&n, 3)); /* no better one is there */
}

static void without_spares_the_rest_closes_up(void)
{
    read_four();
    up(0, 3);
    (void)nodes_place(&n, 8);
    n.at[1].state = NODE_AWAY;
    CHECK_I64(nodes_slots_up(&n), ==, 6);
    CHECK_I64(nodes_place(&n, 8), ==, 6);
    CHECK_I64(n.at[0].first, ==, 0);
    CHECK_I64(n.at[2].first, ==, 2);
    CHECK_I64(n.at[3].first, ==, 4);
    CHECK_I64(n.at[1].ranks, ==, 0);
    up(1, 1); /* it grows back, behind the others */
    CHECK_I64(nodes_place(&n, 8), ==, 8);
    CHECK_I64(n.at[1].first, ==, 6);
}

static void no_node_no_ranks(void)
{
    read_four();
    CHECK_I64(nodes_place(&n, 8), ==, 0);
}

int main(void)
{
    log_mute(true);
    RUN(host_files_of_open_mpi_are_read);
    RUN(bad_host_files_are_refused);
    RUN(ranks_lie_in_blocks);
    RUN(a_spare_takes_the_place_of_the_lost);
    RUN(the_spare_with_fewer_faults_is_taken);
    RUN(a_bad_node_is_swapped_for_a_better_spare);
    RUN(without_spares_the_rest_closes_up);
    RUN(no_node_no_ranks);
    nodes_free(&n);
    return check_done();
}
