#include "base/launcher.h"

#include <stdlib.h>

/* In the order in which they are believed: Open MPI, PMIx, and MPICH's kin. */
static const char *const rank_names[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                          NULL };
static const char *const ranks_names[] = { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", NULL };
static const char *const local_names[] = { "OMPI_COMM_WORLD_LOCAL_RANK", NULL };

static int32_t first_of(const char *const *names, int32_t without)
{
    for (; *names; names++) {
        const char *value = getenv(*names);

        if (value) return (int32_t)strtol(value, NULL, 10);
    }
    return without;
}

bool launcher_found(void)
{
    /* a number alone is not enough of PMI: wrappers set it for processes of no group */
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") ||
           (getenv("PMI_RANK") && getenv("PMI_SIZE"));
}

int32_t launcher_rank(void) { return first_of(rank_names, -1); }
int32_t launcher_ranks(void) { return first_of(ranks_names, 1); }
int32_t launcher_local_rank(void) { return first_of(local_names, 0); }
const char *launcher_job(void) { return getenv("SLURM_JOB_ID"); }
