/* t_launcher.c - what launchers leave in the environment, each as it was seen to. */
#include <stdlib.h>

#include "base/launcher.h"
#include "tests/check.h"

static const struct {
    const char *of; /* for who reads this */
    const char *variables[4][2];
    bool found;
    int32_t rank, ranks, local_rank;
} cases[] = {
    { "no launcher", { { NULL } }, false, -1, 1, 0 },
    { "Open MPI",
      { { "OMPI_COMM_WORLD_RANK", "5" },
        { "OMPI_COMM_WORLD_SIZE", "8" },
        { "OMPI_COMM_WORLD_LOCAL_RANK", "1" },
        { "PMIX_RANK", "5" } },
      true,
      5,
      8,
      1 },
    { "PMIx", { { "PMIX_RANK", "3" } }, true, 3, 1, 0 },
    { "PMI", { { "PMI_RANK", "2" }, { "PMI_SIZE", "4" } }, true, 2, 4, 0 },
    { "a rank of PMI and no group", { { "PMI_RANK", "0" } }, false, 0, 1, 0 },
};

static void clear(void)
{
    static const char *const all[] = { "OMPI_COMM_WORLD_RANK",
                                       "OMPI_COMM_WORLD_SIZE",
                                       "OMPI_COMM_WORLD_LOCAL_RANK",
                                       "PMIX_RANK",
                                       "PMI_RANK",
                                       "PMI_SIZE",
                                       "SLURM_JOB_ID" };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        unsetenv(all[i]);
}

static void each_launcher_is_understood(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        clear();
        for (int v = 0; v < 4 && cases[i].variables[v][0]; v++)
            setenv(cases[i].variables[v][0], cases[i].variables[v][1], 1);
        CHECK(launcher_found() == cases[i].found);
        CHECK_I64(launcher_rank(), ==, cases[i].rank);
        CHECK_I64(launcher_ranks(), ==, cases[i].ranks);
        CHECK_I64(launcher_local_rank(), ==, cases[i].local_rank);
    }
}

static void a_job_of_slurm_has_a_number(void)
{
    clear();
    CHECK(!launcher_job());
    setenv("SLURM_JOB_ID", "4711", 1);
    CHECK_STR(launcher_job(), "4711");
}

int main(void)
{
    RUN(each_launcher_is_understood);
    RUN(a_job_of_slurm_has_a_number);
    return check_done();
}
