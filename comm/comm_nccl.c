/*
 * comm_nccl.c - NCCL behind backend.h: collectives on a GPU's stream.
 *
 * The communicator does not block: its calls return at once, and may still be at work when
 * they do (ncclInProgress), so each is polled until NCCL has taken it.  What is on the
 * stream nobody waits for here.  A thread watches it: NCCL's own errors, and collectives
 * that take longer than the limit.  Then the group is dead, the communicator is aborted so
 * that its kernels end and whoever waits for the stream goes on, and reads the failure as
 * the queue's status.  An abort may hang too; after a while the process ends without it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "comm/flights.h"
#include "comm/nccl_lib.h"
#include "comm/patience.h"
#include "comm/reduce.h"
#include "scheduler/exitcode.h"

enum { ABORT_SECONDS = 10 }; /* or the limit, if that is shorter */

static const double nap = 5e-3; /* seconds, of the watching thread */

/* Memory that NCCL knows. */
struct known {
    void *at, *handle;
};

struct nccl_link {
    struct comm_link head;
    struct comm_link *host; /* MPI between the same ranks */
    struct nccl lib;
    ncclComm_t comm;
    cudaStream_t stream;
    bool in_group; /* ncclGroupStart was called */
    struct comm_listener listener;
    struct flights flights;
    struct known *known;
    size_t known_count, known_room;

    pthread_mutex_t lock; /* of calls into NCCL, so that none is made after an abort */
    atomic_flag is_told;
    atomic_bool dead, closing, is_aborted;
    bool has_watcher;
    pthread_t watcher;
};

static struct nccl_link *nccl_link(struct comm_link *l) { return (struct nccl_link *)l; }

/* ---- failing -------------------------------------------------------------------------- */

static void die(struct nccl_link *n)
{
    n->dead = true;
    if (n->listener.died) n->listener.died(n->listener.self);
    flights_give_up(&n->flights);
}

/* The first failure makes the line, and only then others hear of it: they may end the
 * process. */
static kr_status fail(struct nccl_link *n, uint64_t number, const char *name,
                      const char *what)
{
    if (atomic_flag_test_and_set(&n->is_told)) return KR_ERR_COMM;
    (void)KR_FAIL(KR_ERR_COMM, "collective %llu (%s): %s", (unsigned long long)number,
                  name, what);
    die(n);
    return KR_ERR_COMM;
}

static kr_status late(struct nccl_link *n, uint64_t number, const char *name)
{
    char text[96];

    snprintf(text, sizeof text, "NCCL: some rank did not answer in %g s", n->head.limit);
    return fail(n, number, name, text);
}

static bool begin_call(struct nccl_link *n)
{
    pthread_mutex_lock(&n->lock);
    if (!n->dead) return true;
    pthread_mutex_unlock(&n->lock);
    return false;
}

static kr_status broken(struct nccl_link *n, uint64_t number, const char *name,
                        const char *call, ncclResult_t r)
{
    char text[512], more[300] = "";

    if (begin_call(n)) {
        snprintf(more, sizeof more, "%s", n->lib.GetLastError(n->comm));
        pthread_mutex_unlock(&n->lock);
    }
    more[strcspn(more, "\n")] = '\0';
    snprintf(text, sizeof text, "%s: %s%s%s", call, n->lib.GetErrorString(r),
             *more ? ": " : "", more);
    return fail(n, number, name, text);
}

/* ---- calls ---------------------------------------------------------------------------- */

/* What NCCL is at; ncclSuccess where nobody cares any more. */
static ncclResult_t progress(struct nccl_link *n)
{
    ncclResult_t now = ncclSuccess, r;

    if (!begin_call(n)) return ncclSuccess;
    r = n->lib.CommGetAsyncError(n->comm, &now);
    pthread_mutex_unlock(&n->lock);
    return r == ncclSuccess ? now : r;
}

/* After a call that begin_call allowed: wait until NCCL has taken it. */
static kr_status end_call(struct nccl_link *n, ncclResult_t r, const char *call)
{
    struct patience p = patience();

    pthread_mutex_unlock(&n->lock);
    while (r == ncclInProgress && !n->in_group) {
        if (!linger(&p, n->head.limit)) return late(n, n->head.number, n->head.name);
        r = progress(n);
    }
    if (n->dead) return KR_ERR_COMM;
    if (r == ncclSuccess || r == ncclInProgress) return KR_OK;
    return broken(n, n->head.number, n->head.name, call, r);
}

/* args in parentheses. */
#define NCCL_DO(n, name, args) \
    (begin_call(n) ? end_call(n, (n)->lib.name args, "nccl" #name) : KR_ERR_COMM)

/* ---- the watching thread -------------------------------------------------------------- */

static void *abort_comm(void *arg)
{
    struct nccl_link *n = arg;

    pthread_mutex_lock(&n->lock);
    if (n->comm) (void)n->lib.CommAbort(n->comm);
    pthread_mutex_unlock(&n->lock);
    n->is_aborted = true;
    return NULL;
}

/* Are the communicator, and the stream, free?  Kernels of NCCL end when it is aborted. */
static bool is_free(struct nccl_link *n)
{
    struct flight x;
    double seconds;

    while (flights_take(&n->flights, &x))
        ;
    return n->is_aborted && !flights_oldest(&n->flights, &x, &seconds);
}

static void tear_down(struct nccl_link *n)
{
    double limit = n->head.limit < ABORT_SECONDS ? n->head.limit : ABORT_SECONDS;
    struct patience p = patience();
    pthread_t helper;

    if (pthread_create(&helper, NULL, abort_comm, n) == 0) {
        pthread_detach(helper);
        while (!is_free(n) && linger(&p, limit))
            ;
    }
    if (n->is_aborted && is_free(n)) return;
    (void)KR_FAIL(KR_ERR_COMM,
                  "NCCL is not rid of its last collectives %g s after the abort: this "
                  "process ends",
                  limit);
    n->host->ops->abort(n->host, EXIT_COMM);
}

/* One look; false: something is wrong, and its line written. */
static bool look(struct nccl_link *n)
{
    struct flight x = { .name = "none under way" };
    double seconds = 0;
    ncclResult_t r;

    while (flights_take(&n->flights, &x))
        n->listener.over(n->listener.self, x.number, x.name);
    r = progress(n);
    (void)flights_oldest(&n->flights, &x, &seconds);
    if (r != ncclSuccess && r != ncclInProgress)
        (void)broken(n, x.number, x.name, "NCCL", r);
    else if (seconds > n->head.limit)
        (void)late(n, x.number, x.name);
    return !n->dead;
}

static void *watch(void *arg)
{
    struct nccl_link *n = arg;

    while (look(n)) {
        if (n->closing) return NULL;
        clock_sleep(nap);
    }
    tear_down(n);
    return NULL;
}

/* Signals are for the main thread. */
static kr_status start_watcher(struct nccl_link *n)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&n->watcher, NULL, watch, n);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) return KR_FAIL(KR_ERR_COMM, "cannot start a thread: %s", strerror(error));
    n->has_watcher = true;
    return KR_OK;
}

/* ---- collectives ---------------------------------------------------------------------- */

static kr_status nccl_depart(struct comm_link *l)
{
    return flights_depart(&nccl_link(l)->flights, l->number, l->name);
}

static kr_status nccl_land(struct comm_link *l)
{
    return flights_land(&nccl_link(l)->flights);
}

static ncclDataType_t type_of(enum kern_dtype type)
{
    static const ncclDataType_t types[] = {
        [KERN_F32] = ncclFloat32, [KERN_F64] = ncclFloat64, [KERN_BF16] = ncclBfloat16
    };

    return types[type];
}

static kr_status nccl_broadcast(struct comm_link *l, void *at, int64_t bytes,
                                int32_t root)
{
    struct nccl_link *n = nccl_link(l);

    l->sent += (double)bytes; /* what a chain sends */
    return NCCL_DO(n, Broadcast,
                   (at, at, (size_t)bytes, ncclInt8, root, n->comm, n->stream));
}

static kr_status nccl_all_gather(struct comm_link *l, const void *own, void *all,
                                 int64_t bytes)
{
    struct nccl_link *n = nccl_link(l);

    l->sent += (double)(l->size - 1) * (double)bytes;
    return NCCL_DO(n, AllGather, (own, all, (size_t)bytes, ncclInt8, n->comm, n->stream));
}

static kr_status nccl_reduce_scatter(struct comm_link *l, void *all, void *own,
                                     int64_t chunk, enum kern_dtype type)
{
    struct nccl_link *n = nccl_link(l);

    l->sent += (double)(l->size - 1) * (double)chunk * (double)kern_dtype_bytes(type);
    return NCCL_DO(n, ReduceScatter,
                   (all, own, (size_t)chunk, type_of(type), ncclSum, n->comm, n->stream));
}

static kr_status nccl_all_reduce(struct comm_link *l, void *all, int64_t chunk,
                                 enum kern_dtype type)
{
    struct nccl_link *n = nccl_link(l);

    l->sent += 2.0 * (l->size - 1) * (double)chunk * (double)kern_dtype_bytes(type);
    return NCCL_DO(n, AllReduce,
                   (all, all, (size_t)(chunk * l->size), type_of(type), ncclSum, n->comm,
                    n->stream));
}

/* A message joins the group that is open; waiting ends the group. */
static kr_status nccl_start(struct comm_link *l, struct comm_message *m)
{
    struct nccl_link *n = nccl_link(l);

    if (!n->in_group) {
        TRY(NCCL_DO(n, GroupStart, ()));
        n->in_group = true;
    }
    if (!m->is_out)
        return NCCL_DO(n, Recv,
                       (m->at, (size_t)m->bytes, ncclInt8, m->peer, n->comm, n->stream));
    if (m->peer != l->rank) l->sent += (double)m->bytes;
    return NCCL_DO(n, Send,
                   (m->at, (size_t)m->bytes, ncclInt8, m->peer, n->comm, n->stream));
}

static kr_status nccl_wait(struct comm_link *l, struct comm_message *m, int64_t count)
{
    struct nccl_link *n = nccl_link(l);

    (void)m, (void)count;
    n->in_group = false;
    return NCCL_DO(n, GroupEnd, ());
}

/* Also the chunk that stays here is a message. */
static kr_status nccl_all_to_all(struct comm_link *l, const void *all, void *got,
                                 int64_t bytes)
{
    for (int32_t i = 0; i < l->size; i++) {
        int32_t from = (l->rank - i + l->size) % l->size, to = (l->rank + i) % l->size;
        struct comm_message in = { (char *)got + from * bytes, bytes, NULL, from, false };
        struct comm_message out = { (char *)(uintptr_t)all + to * bytes, bytes, NULL, to,
                                    true };

        TRY(nccl_start(l, &in));
        TRY(nccl_start(l, &out));
    }
    return nccl_wait(l, NULL, 0);
}

/* ---- registered memory ---------------------------------------------------------------- */

static void nccl_enlist(struct comm_link *l, void *at, int64_t bytes)
{
    struct nccl_link *n = nccl_link(l);
    struct known k = { .at = at };

    if (mem_grow(&n->known, &n->known_room, n->known_count + 1, sizeof *n->known,
                 "registered memory") != KR_OK)
        return;
    if (!begin_call(n)) return;
    /* no success is no harm: NCCL then copies as it does with other memory */
    if (n->lib.CommRegister(n->comm, at, (size_t)bytes, &k.handle) == ncclSuccess &&
        k.handle)
        n->known[n->known_count++] = k;
    pthread_mutex_unlock(&n->lock);
}

static void forget(struct nccl_link *n, size_t i)
{
    struct known k = n->known[i];

    n->known[i] = n->known[--n->known_count];
    if (!begin_call(n)) return;
    (void)n->lib.CommDeregister(n->comm, k.handle);
    pthread_mutex_unlock(&n->lock);
}

static void nccl_delist(struct comm_link *l, void *at)
{
    struct nccl_link *n = nccl_link(l);

    for (size_t i = 0; i < n->known_count; i++)
        if (n->known[i].at == at) {
            forget(n, i);
            return;
        }
}

/* ---- joining and leaving -------------------------------------------------------------- */

/* Everyone leaves with the worst status. */
static kr_status agree(struct comm_link *host, kr_status mine)
{
    int32_t worst = mine;

    TRY(host->ops->agree(host, &worst));
    return (kr_status)worst;
}

static kr_status share_id(struct nccl_link *n, ncclUniqueId *id)
{
    ncclResult_t r;
    kr_status st = KR_OK;

    if (n->head.rank == 0 && (r = n->lib.GetUniqueId(id)) != ncclSuccess)
        st = broken(n, 0, "comm_bind", "ncclGetUniqueId", r);
    TRY(agree(n->host, st));
    return n->host->ops->broadcast(n->host, id, sizeof *id, 0);
}

static kr_status join(struct nccl_link *n)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id = { { 0 } };

    TRY(share_id(n, &id));
    config.blocking = 0;
    return NCCL_DO(n, CommInitRankConfig,
                   (&n->comm, n->head.size, id, n->head.rank, &config));
}

/* Who has failed lets go at once, so that the others need not run into the limit. */
static kr_status join_together(struct nccl_link *n)
{
    kr_status st = join(n);

    if (st != KR_OK) die(n);
    if (st != KR_OK) tear_down(n);
    return agree(n->host, st);
}

static void free_link(struct nccl_link *n)
{
    flights_close(&n->flights);
    comm_adder_close(&n->head.adder);
    if (n->head.scratch) kern_free(kern_queue_device(n->head.queue), n->head.scratch);
    pthread_mutex_destroy(&n->lock);
    mem_free(n->known);
    mem_free(n);
}

/* In good order: all ranks are here. */
static kr_status leave(struct nccl_link *n)
{
    n->head.name = "comm_unbind";
    TRY(NCCL_DO(n, CommFinalize, (n->comm)));
    (void)n->lib.CommDestroy(n->comm); /* nobody is left to ask it anything */
    return KR_OK;
}

static void nccl_close(struct comm_link *l, bool alive)
{
    struct nccl_link *n = nccl_link(l);

    if (!alive) die(n);
    n->closing = true;
    if (n->has_watcher) pthread_join(n->watcher, NULL);
    while (n->known_count > 0)
        forget(n, 0);
    if (!n->is_aborted && (n->dead || leave(n) != KR_OK)) tear_down(n);
    free_link(n);
}

static const struct comm_ops nccl_ops = {
    .name = "nccl",
    .is_later = true,
    .close = nccl_close,
    .broadcast = nccl_broadcast,
    .all_gather = nccl_all_gather,
    .reduce_scatter = nccl_reduce_scatter,
    .all_reduce = nccl_all_reduce,
    .reduce_tree = comm_reduce_gpu,
    .all_to_all = nccl_all_to_all,
    .start = nccl_start,
    .wait = nccl_wait,
    .depart = nccl_depart,
    .land = nccl_land,
    .enlist = nccl_enlist,
    .delist = nccl_delist,
};

/* What all ranks lack only the first one says. */
static kr_status check_library(struct nccl_link *n)
{
    bool is_first = n->head.rank == 0;
    int32_t first = is_first ? nccl_open(&n->lib) : KR_OK;

    TRY(n->host->ops->broadcast(n->host, &first, sizeof first, 0));
    if (first != KR_OK) return (kr_status)first;
    TRY(agree(n->host, is_first ? KR_OK : nccl_open(&n->lib)));
    snprintf(n->head.describe, sizeof n->head.describe, "NCCL %s", n->lib.version);
    return KR_OK;
}

kr_status comm_nccl_open(struct comm_link **out, struct comm_link *host,
                         struct kern_queue *q, const struct comm_listener *listener)
{
    struct nccl_link *n = NULL;
    kr_status st;
    int device; /* is the current one of this thread, which NCCL goes by */

    TRY(mem_alloc(&n, 1, sizeof *n, "NCCL"));
    n->head = (struct comm_link){ .ops = &nccl_ops,
                                  .rank = host->rank,
                                  .size = host->size,
                                  .limit = host->limit,
                                  .name = "comm_bind",
                                  .queue = q,
                                  .segment = COMM_SEGMENT };
    host->name = n->head.name;
    n->host = host;
    n->stream = kern_queue_native(q, &device);
    pthread_mutex_init(&n->lock, NULL);
    TRY_OR(st, flights_open(&n->flights, q), done);
    TRY_OR(st, comm_adder_open(&n->head.adder, kern_queue_device(q)), done);
    TRY_OR(st, check_library(n), done);
    TRY_OR(st, join_together(n), done);
    n->listener = *listener;
    TRY_OR(st, start_watcher(n), done);
    *out = &n->head;
done:
    if (st != KR_OK) nccl_close(&n->head, false);
    return st;
}
