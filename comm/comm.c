/*
 * comm.c - front doors: arguments are checked here, then work goes to one place.
 *
 * Before comm_bind that place is the caller's thread, after it the background queue, also
 * for the host collectives: so one thread is inside the back end, and all ranks see one
 * order.  Each call gets a number that is the same on all ranks, for error lines.
 */
#include "comm/comm.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/backend.h"
#include "comm/comm_fault.h"
#include "comm/part.h"
#include "kernels/kernels.h"

enum { HOST_MAX = 1 << 30 }; /* bytes of a host collective */

struct comm {
    struct comm_link *link;
    struct comm_fault fault;
    struct kern_device *device; /* NULL before comm_bind */
    struct kern_queue *queue;   /* NULL before comm_bind */
    atomic_bool dead;
    _Atomic double bytes, seconds; /* of queued collectives; one thread writes */
};

/* ---- opening and closing -------------------------------------------------------------- */

static const struct comm_ops *const backends[] = { &comm_self_ops, &comm_mpi_ops };

/* What Open MPI, any PMIx launcher, and those of MPICH's kin leave in the environment. */
static bool is_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") ||
           (getenv("PMI_RANK") && getenv("PMI_SIZE"));
}

static const struct comm_ops *find(const char *name)
{
    if (strcmp(name, "auto") == 0) return is_launched() ? &comm_mpi_ops : &comm_self_ops;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (strcmp(name, backends[i]->name) == 0) return backends[i];
    return NULL;
}

kr_status comm_open(struct comm **out, const struct comm_config *config)
{
    const struct comm_ops *ops = find(config->backend);
    struct comm *c = NULL;
    kr_status st;

    if (!ops)
        return KR_FAIL(KR_ERR_ARG, "comm backend \"%s\": want auto, self or mpi",
                       config->backend);
    if (!(config->limit > 0))
        return KR_FAIL(KR_ERR_ARG, "comm limit = %g s: want more than 0", config->limit);
    TRY(mem_alloc(&c, 1, sizeof *c, "group"));
    TRY_OR(st, comm_fault_parse(&c->fault, config->fault), done);
    TRY_OR(st, ops->open(&c->link, config->limit), done);
    c->link->ops = ops;
    *out = c;
done:
    if (st != KR_OK) mem_free(c);
    return st;
}

/* The naps of the waiting thread are shorter than the timer slack that threads are born
 * with (50 us). */
static kr_status sharpen_timer(void *arg)
{
    (void)arg;
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    return KR_OK;
}

kr_status comm_bind(struct comm *c, struct kern_device *d)
{
    struct kern_queue *q = NULL;

    if (c->queue) return KR_FAIL(KR_ERR_ARG, "this group is bound to a device already");
    if (c->link->ops->needs_host_memory && !kern_device_is_host(d))
        return KR_FAIL(KR_ERR_ARG, "the %s back end needs host memory, device %s has none",
                       c->link->ops->name, kern_device_name(d));
    TRY(kern_queue_open(&q, d, KERN_QUEUE_BACKGROUND));
    c->device = d;
    c->queue = q;
    return kern_device_is_host(d) ? kern_queue_call(q, sharpen_timer, NULL, 0) : KR_OK;
}

void comm_unbind(struct comm *c)
{
    kern_queue_close(c->queue);
    c->queue = NULL;
    c->device = NULL;
}

void comm_close(struct comm *c)
{
    if (!c) return;
    comm_unbind(c);
    mem_free(c->link->scratch);
    c->link->ops->close(c->link, !c->dead);
    mem_free(c);
}

_Noreturn void comm_abort(struct comm *c, int exit_code)
{
    if (!c) _exit(exit_code);
    c->link->ops->abort(c->link, exit_code);
}

int32_t comm_rank(const struct comm *c) { return c->link->rank; }
int32_t comm_size(const struct comm *c) { return c->link->size; }
int32_t comm_local_rank(const struct comm *c) { return c->link->local_rank; }
int32_t comm_local_size(const struct comm *c) { return c->link->local_size; }
int comm_threads(const struct comm *c) { return c->link->threads; }
const char *comm_describe(const struct comm *c) { return c->link->describe; }
struct kern_queue *comm_queue(struct comm *c) { return c->queue; }

void comm_totals(const struct comm *c, double *bytes, double *seconds)
{
    *bytes = c->bytes;
    *seconds = c->seconds;
}

/* ---- host collectives ----------------------------------------------------------------- */

/* One host collective; the operands of those below, in one struct. */
struct host_call {
    struct comm *c;
    const char *name;
    kr_status (*run)(struct comm_link *l, struct host_call *h);
    kr_status status; /* of this call; out */
    int32_t worst;
    const void *mine;
    void *all;
    size_t bytes;
};

static kr_status enter(struct comm *c, const char *name)
{
    if (c->dead) return KR_ERR_COMM; /* the line was written when it died */
    c->link->name = name;
    c->link->number++;
    return KR_OK;
}

/* A group that agreed on a failure lives on; one that lost its peers does not. */
static void host_run(struct host_call *h)
{
    h->status = enter(h->c, h->name);
    if (h->status == KR_OK) h->status = h->run(h->c->link, h);
    if (h->status == KR_ERR_COMM) h->c->dead = true;
}

static kr_status host_run_queued(void *arg)
{
    struct host_call *h = *(struct host_call **)arg;

    host_run(h);
    return h->status == KR_ERR_COMM ? KR_ERR_COMM : KR_OK;
}

static kr_status host_collective(struct host_call h)
{
    struct host_call *at = &h;

    if (h.c->queue && kern_device_is_host(h.c->device)) {
        TRY(kern_queue_call(h.c->queue, host_run_queued, &at, sizeof at));
        TRY(kern_queue_sync(h.c->queue));
    } else {
        host_run(&h);
    }
    return h.status;
}

static kr_status too_big(const char *name, size_t bytes)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %zu bytes, more than 1 GiB", name, bytes);
}

static kr_status link_agree(struct comm_link *l, kr_status mine)
{
    int32_t worst = mine;

    TRY(l->ops->agree(l, &worst));
    return (kr_status)worst;
}

static kr_status run_agree(struct comm_link *l, struct host_call *h)
{
    return l->ops->agree(l, &h->worst);
}

static kr_status agree_on(struct comm *c, int32_t *worst);

kr_status comm_agree(struct comm *c, kr_status mine)
{
    int32_t worst = mine;

    TRY(agree_on(c, &worst));
    return (kr_status)worst;
}
