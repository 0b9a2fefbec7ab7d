/*
 * ranks.h - the group of a test on ranks.  It stays open from first to last: MPI starts once
 * per process.  Ranks above 0 show their output only if they fail.
 */
#ifndef TESTS_MPI_RANKS_H
#define TESTS_MPI_RANKS_H

#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "comm/part.h"
#include "tests/check.h"

static struct comm *group;
static int32_t rank, size;
static FILE *ranks_kept; /* output of this rank; NULL: it goes out at once */

#define CHECK_OK(call) CHECK_I64((call), ==, KR_OK)

static inline void *alloc(int64_t bytes)
{
    void *at = NULL;

    CHECK_OK(mem_alloc(&at, (size_t)bytes, 1, "test"));
    return at;
}

static inline kr_status sync_queue(struct comm *c)
{
    return kern_queue_sync(comm_queue(c));
}

static void ranks_open(const char *name)
{
    struct comm_config config = { "auto", 60, "" };

    if (comm_open(&group, &config) != KR_OK) exit(2);
    rank = comm_rank(group);
    size = comm_size(group);
    log_setup(name, rank);
    if (rank != 0 && (ranks_kept = tmpfile())) dup2(fileno(ranks_kept), STDOUT_FILENO);
}

/* The exit status of the test. */
static int ranks_close(void)
{
    int bad = check_done();
    char line[512];

    fflush(stdout);
    if (bad && ranks_kept) {
        rewind(ranks_kept);
        while (fgets(line, sizeof line, ranks_kept))
            fprintf(stderr, "[%d] %s", rank, line);
    }
    comm_close(group);
    return bad;
}

#endif
