/*
 * comm_mpi.c - MPI behind backend.h; the only file that includes mpi.h.
 *
 * Every wait is a nonblocking request, polled (patience.h).  Blocking MPI calls would spin
 * on the core that computes, and could not be bounded.
 *
 * MPI_Iallgather and MPI_Ibcast are as fast here as anything built from messages.
 */
#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/cores.h"
#include "comm/patience.h"
#include "comm/reduce.h"

/* Groups of this process that are open.  The one mutable global of comm/: MPI starts and
 * ends once per process, so the last group to close ends it. */
static int open_groups;

struct mpi_link {
    struct comm_link head;
    MPI_Comm comm;
};

static struct mpi_link *mpi_link(struct comm_link *l) { return (struct mpi_link *)l; }

_Static_assert(sizeof(MPI_Request) <= sizeof(void *), "comm_message keeps a request");

/* ---- errors --------------------------------------------------------------------------- */

static kr_status fail(const struct comm_link *l, const char *call, int error)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;

    MPI_Error_string(error, text, &len);
    return KR_FAIL(KR_ERR_COMM, "collective %llu (%s): %s: %s",
                   (unsigned long long)l->number, l->name, call, text);
}

#define MPI_TRY(l, call)                                          \
    do {                                                          \
        int error_ = (call);                                      \
        if (error_ != MPI_SUCCESS) return fail(l, #call, error_); \
    } while (0)

/* ---- waiting -------------------------------------------------------------------------- */

/* Wait for a call of the whole group. */
static kr_status finish(struct comm_link *l, MPI_Request *r)
{
    struct patience p = patience();

    for (int done = 0;;) {
        MPI_TRY(l, MPI_Test(r, &done, MPI_STATUS_IGNORE));
        if (done) return KR_OK;
        if (!linger(&p, l->limit))
            return KR_FAIL(KR_ERR_COMM,
                           "collective %llu (%s): some rank did not answer in %g s",
                           (unsigned long long)l->number, l->name, l->limit);
    }
}

static kr_status test(struct comm_link *l, struct comm_message *m, int *done)
{
    MPI_Request r;

    *done = 1;
    if (!m->request) return KR_OK;
    memcpy(&r, &m->request, sizeof r);
    MPI_TRY(l, MPI_Test(&r, done, MPI_STATUS_IGNORE));
    if (*done) m->request = NULL;
    return KR_OK;
}

/* Name the peers of the messages that are still under way. */
static kr_status blame(struct comm_link *l, struct comm_message *m, int64_t count)
{
    struct mem_text text = { 0 };
    int32_t last = -1, named = 0;
    kr_status st;

    for (int64_t i = 0; i < count; i++) {
        int done = 0;

        if (test(l, &m[i], &done) != KR_OK || done || m[i].peer == last) continue;
        last = m[i].peer;
        if (named++ < 8) mem_printf(&text, "%s %d", named > 1 ? "," : "", last);
    }
    st = KR_FAIL(KR_ERR_COMM, "collective %llu (%s): no answer in %g s from rank%s%s",
                 (unsigned long long)l->number, l->name, l->limit,
                 text.at ? text.at : " ?", named > 8 ? " and others" : "");
    mem_text_free(&text);
    return st;
}

/* All must end, so it does not matter that an early one is waited for before a later one:
 * each test drives all of them. */
static kr_status mpi_wait(struct comm_link *l, struct comm_message *m, int64_t count)
{
    struct patience p = patience();

    for (int64_t i = 0; i < count;) {
        int done = 0;

        TRY(test(l, &m[i], &done));
        if (done)
            i++;
        else if (!linger(&p, l->limit))
            return blame(l, m + i, count - i);
    }
    return KR_OK;
}

static kr_status mpi_start(struct comm_link *l, struct comm_message *m)
{
    MPI_Comm comm = mpi_link(l)->comm;
    MPI_Request r;

    if (m->is_out) {
        MPI_TRY(l, MPI_Isend(m->at, (int)m->bytes, MPI_BYTE, m->peer, 0, comm, &r));
        l->sent += (double)m->bytes;
    } else {
        MPI_TRY(l, MPI_Irecv(m->at, (int)m->bytes, MPI_BYTE, m->peer, 0, comm, &r));
    }
    memcpy(&m->request, &r, sizeof r);
    return KR_OK;
}

/* ---- calls of the whole group --------------------------------------------------------- */

static kr_status mpi_agree(struct comm_link *l, int32_t *worst)
{
    MPI_Request r;

    MPI_TRY(l, MPI_Iallreduce(MPI_IN_PLACE, worst, 1, MPI_INT32_T, MPI_MIN,
                              mpi_link(l)->comm, &r));
    return finish(l, &r);
}

enum { PIECE = 1 << 30 }; /* bytes; counts of MPI are int */

static kr_status mpi_broadcast(struct comm_link *l, void *at, int64_t bytes, int32_t root)
{
    for (int64_t begin = 0; begin < bytes; begin += PIECE) {
        int64_t left = bytes - begin;
        MPI_Request r;

        MPI_TRY(l, MPI_Ibcast((char *)at + begin, (int)(left < PIECE ? left : PIECE),
                              MPI_BYTE, root, mpi_link(l)->comm, &r));
        TRY(finish(l, &r));
    }
    if (l->size > 1) l->sent += (double)bytes; /* what a chain sends */
    return KR_OK;
}

static kr_status gather_piece(struct comm_link *l, const void *own, void *all, int bytes,
                              MPI_Datatype row)
{
    MPI_Request r;

    MPI_TRY(l, MPI_Iallgather(own, bytes, MPI_BYTE, all, 1, row, mpi_link(l)->comm, &r));
    return finish(l, &r);
}

/* `row` is a piece of a rank's chunk that steps a whole chunk from rank to rank, so a
 * chunk of any length may be gathered piece by piece. */
static kr_status gather_rows(struct comm_link *l, const void *own, void *all,
                             int64_t piece, int64_t bytes)
{
    MPI_Datatype plain, row;
    kr_status st;

    MPI_TRY(l, MPI_Type_contiguous((int)piece, MPI_BYTE, &plain));
    MPI_TRY(l, MPI_Type_create_resized(plain, 0, (MPI_Aint)bytes, &row));
    MPI_TRY(l, MPI_Type_commit(&row));
    st = gather_piece(l, own, all, (int)piece, row);
    MPI_Type_free(&row);
    MPI_Type_free(&plain);
    return st;
}

static kr_status mpi_all_gather(struct comm_link *l, const void *own, void *all,
                                int64_t bytes)
{
    bool in_place = own == (char *)all + l->rank * bytes;
    MPI_Request r;

    l->sent += (double)(l->size - 1) * (double)bytes;
    if (bytes <= PIECE) {
        MPI_TRY(l, MPI_Iallgather(in_place ? MPI_IN_PLACE : own, (int)bytes, MPI_BYTE,
                                  all, (int)bytes, MPI_BYTE, mpi_link(l)->comm, &r));
        return finish(l, &r);
    }
    for (int64_t begin = 0; begin < bytes; begin += PIECE) {
        int64_t left = bytes - begin;
        const char *from = in_place ? MPI_IN_PLACE : (const char *)own + begin;

        TRY(gather_rows(l, from, (char *)all + begin, left < PIECE ? left : PIECE,
                        bytes));
    }
    return KR_OK;
}

/* ---- joining -------------------------------------------------------------------------- */

/* What ranks tell each other when they meet. */
struct place {
    char node[256];
    uint64_t gpus; /* hash of CUDA_VISIBLE_DEVICES */
    cpu_set_t cores;
};

static kr_status start_mpi(const struct comm_link *l)
{
    int is_up = 0, is_over = 0, level = MPI_THREAD_SINGLE;

    MPI_Finalized(&is_over);
    if (is_over) return KR_FAIL(KR_ERR_COMM, "MPI has ended in this process");
    MPI_Initialized(&is_up);
    if (!is_up)
        MPI_TRY(l, MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level));
    else
        MPI_TRY(l, MPI_Query_thread(&level));
    if (level < MPI_THREAD_SERIALIZED)
        return KR_FAIL(KR_ERR_COMM, "this MPI has no MPI_THREAD_SERIALIZED");
    MPI_TRY(l, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    return KR_OK;
}

/* A communicator of our own, so that no message of anybody else can meet ours. */
static kr_status join(struct mpi_link *m)
{
    struct comm_link *l = &m->head;
    MPI_Request r;

    MPI_TRY(l, MPI_Comm_idup(MPI_COMM_WORLD, &m->comm, &r));
    TRY(finish(l, &r));
    MPI_TRY(l, MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN));
    MPI_TRY(l, MPI_Comm_rank(m->comm, &l->rank));
    MPI_TRY(l, MPI_Comm_size(m->comm, &l->size));
    return KR_OK;
}

/* Open MPI says "Open MPI v4.1.4, package: ...", others their own; the first part will do. */
static void describe(struct comm_link *l, int nodes)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "", *v;
    int len = 0;

    MPI_Get_library_version(version, &len);
    version[strcspn(version, ",\n")] = '\0';
    if ((v = strstr(version, " v"))) memmove(v + 1, v + 2, strlen(v + 2) + 1);
    snprintf(l->describe, sizeof l->describe, "mpi: %d rank%s on %d node%s, %.60s",
             l->size, l->size == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s", version);
}

/* Number of a rank's node: that of the first rank there, or the next. */
static int32_t number_node(struct comm_link *l, const struct place *all, int32_t r)
{
    for (int32_t s = r - 1; s >= 0; s--) /* neighbours in rank mostly share a node */
        if (strcmp(all[s].node, all[r].node) == 0) return l->node_of[s];
    return l->nodes++;
}

static void find_place(struct comm_link *l, const struct place *all)
{
    const struct place *mine = &all[l->rank];
    int sharing = 0;

    for (int32_t r = 0; r < l->size; r++) {
        l->node_of[r] = number_node(l, all, r);
        if (strcmp(all[r].node, mine->node) != 0) continue;
        l->local_size++;
        l->local_rank += r < l->rank;
        l->gpu_rank += r < l->rank && all[r].gpus == mine->gpus;
        sharing += CPU_EQUAL(&all[r].cores, &mine->cores) != 0;
    }
    l->threads = CPU_COUNT(&mine->cores) / sharing;
    if (l->threads < 1) l->threads = 1;
    describe(l, l->nodes);
}

static kr_status meet(struct comm_link *l)
{
    struct place *all = NULL, mine = { "", comm_visible_gpus(), { { 0 } } };
    kr_status st;

    memcpy(mine.node, l->node, sizeof mine.node);
    TRY(mem_alloc(&l->node_of, (size_t)l->size, sizeof *l->node_of, "nodes of ranks"));
    comm_cores(&mine.cores);
    TRY(mem_alloc(&all, (size_t)l->size, sizeof *all, "places of ranks"));
    st = mpi_all_gather(l, &mine, all, sizeof mine);
    if (st == KR_OK) find_place(l, all);
    mem_free(all);
    return st;
}

static kr_status mpi_open(struct comm_link **out, double limit)
{
    struct mpi_link *m = NULL;
    kr_status st;

    TRY(mem_alloc(&m, 1, sizeof *m, "group"));
    m->head = (struct comm_link){ .limit = limit, .name = "comm_open" };
    comm_node_here(m->head.node);
    TRY_OR(st, start_mpi(&m->head), done);
    TRY_OR(st, join(m), done);
    TRY_OR(st, meet(&m->head), done);
    m->head.sent = 0;
    open_groups++;
    *out = &m->head;
done:
    if (st != KR_OK) {
        mem_free(m->head.node_of);
        mem_free(m);
    }
    return st;
}

/* ---- leaving -------------------------------------------------------------------------- */

/* MPI_Finalize cannot be bounded, but it does not wait for long once all are here. */
static kr_status leave(struct mpi_link *m)
{
    struct comm_link *l = &m->head;
    MPI_Request r;

    l->name = "comm_close";
    MPI_TRY(l, MPI_Ibarrier(m->comm, &r));
    TRY(finish(l, &r));
    MPI_TRY(l, MPI_Comm_free(&m->comm));
    if (open_groups == 0) MPI_TRY(l, MPI_Finalize());
    return KR_OK;
}

static void mpi_close(struct comm_link *l, bool alive)
{
    open_groups--;
    if (alive) (void)leave(mpi_link(l)); /* it has logged why not; nothing else to do */
    mem_free(l);
}

enum { ABORT_SECONDS = 5 };

static void *abort_hard(void *exit_code)
{
    clock_sleep(ABORT_SECONDS);
    _exit((int)(intptr_t)exit_code);
}

/* The background thread may be inside MPI at this moment, and MPI may wait for it; then
 * the second thread ends the process, and the launcher the others. */
static void mpi_abort(struct comm_link *l, int exit_code)
{
    pthread_t thread;

    (void)l;
    fflush(NULL);
    if (pthread_create(&thread, NULL, abort_hard, (void *)(intptr_t)exit_code) == 0)
        MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

const struct comm_ops comm_mpi_ops = {
    .name = "mpi",
    .open = mpi_open,
    .close = mpi_close,
    .abort = mpi_abort,
    .agree = mpi_agree,
    .broadcast = mpi_broadcast,
    .all_gather = mpi_all_gather,
    .reduce_scatter = comm_reduce_direct,
    .reduce_tree = comm_reduce_canonical,
    .all_to_all = comm_exchange_direct,
    .start = mpi_start,
    .wait = mpi_wait,
};
