/*
 * comm.c - the life of a group, and who its ranks are.
 *
 * Before comm_bind collectives run on the caller's thread, after it on a background queue,
 * also those of the host: so one thread is inside the back end, and all ranks see one
 * order.  Each call gets a number that is the same on all ranks, for error lines.
 */
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/launcher.h"
#include "base/mem.h"
#include "comm/comm_parts.h"

/* ---- opening and closing -------------------------------------------------------------- */

/* What dist.comm may be; auto is nccl between GPUs. */
static const struct {
    const char *name;
    const struct comm_ops *ops; /* NULL: mpi if launched, else self */
    enum comm_wish wish;
} kinds[] = {
    { "auto", NULL, COMM_AUTO },
    { "self", &comm_self_ops, COMM_AUTO },
    { "mpi", &comm_mpi_ops, COMM_STAGED },
    { "nccl", &comm_mpi_ops, COMM_NCCL },
};

static kr_status choose(struct comm *c, const struct comm_ops **ops, const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(name, kinds[i].name) != 0) continue;
        c->wish = kinds[i].wish;
        *ops = kinds[i].ops;
        if (!*ops) *ops = launcher_found() ? &comm_mpi_ops : &comm_self_ops;
        return KR_OK;
    }
    return KR_FAIL(KR_ERR_ARG, "dist.comm = %s: want auto, self, mpi or nccl", name);
}

kr_status comm_open(struct comm **out, const struct comm_config *config)
{
    const struct comm_ops *ops = NULL;
    struct comm *c = NULL;
    kr_status st;

    if (!(config->limit > 0))
        return KR_FAIL(KR_ERR_ARG, "comm limit = %g s: want more than 0", config->limit);
    TRY(mem_alloc(&c, 1, sizeof *c, "group"));
    pthread_mutex_init(&c->telling, NULL);
    TRY_OR(st, choose(c, &ops, config->backend), done);
    TRY_OR(st, comm_fault_parse(&c->fault, config->fault), done);
    TRY_OR(st, ops->open(&c->link, config->limit), done);
    c->link->ops = ops;
    *out = c;
done:
    if (st != KR_OK) mem_free(c);
    return st;
}

void comm_watch(struct comm *c, const struct comm_watch *watch) { c->watch = *watch; }

/* The naps of the waiting thread are shorter than the timer slack that threads are born
 * with (50 us). */
static kr_status sharpen_timer(void *arg)
{
    (void)arg;
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    return KR_OK;
}

/* A thread of its own for what MPI does on host memory while NCCL has the stream. */
static kr_status open_talk(struct comm *c)
{
    TRY(kern_device_open(&c->host, "cpu", 0, 1));
    TRY(kern_queue_open(&c->talk, c->host, KERN_QUEUE_BACKGROUND));
    return kern_queue_call(c->talk, sharpen_timer, NULL, 0);
}

static void append(struct comm *c, const char *text)
{
    size_t used = strlen(c->link->describe);

    snprintf(c->link->describe + used, sizeof c->link->describe - used, ", %s", text);
}

static kr_status bind_gpus(struct comm *c)
{
    struct comm_listener listener = { comm_gpu_over, comm_gpu_died, c };

    if (c->wish == COMM_STAGED) {
        c->talk = c->queue;
        append(c, "GPU memory through the host");
        return comm_stage_open(&c->stage, c->queue);
    }
    TRY(comm_nccl_open(&c->gpu, c->link, c->queue, &listener));
    append(c, c->gpu->describe);
    return open_talk(c);
}

kr_status comm_bind(struct comm *c, struct kern_device *d)
{
    bool is_host = kern_device_is_host(d);
    kr_status st;

    if (c->queue) return KR_FAIL(KR_ERR_ARG, "this group is bound to a device already");
    if (c->wish == COMM_NCCL && is_host)
        return KR_FAIL(KR_ERR_ARG,
                       "dist.comm = nccl is for GPUs, and this rank computes "
                       "on device %s; set dist.comm = auto",
                       kern_device_name(d));
    TRY(kern_queue_open(&c->queue, d, KERN_QUEUE_BACKGROUND));
    c->device = d;
    if (is_host) {
        c->talk = c->queue;
        st = kern_queue_call(c->queue, sharpen_timer, NULL, 0);
    } else {
        st = comm_size(c) > 1 ? bind_gpus(c) : KR_OK;
    }
    if (st == KR_ERR_COMM) c->dead = true;
    if (st != KR_OK) comm_unbind(c);
    return st;
}

void comm_unbind(struct comm *c)
{
    if (c->gpu && !c->dead) (void)kern_queue_sync(c->queue); /* it may die meanwhile */
    if (c->gpu) c->gpu->ops->close(c->gpu, !c->dead);
    if (c->talk != c->queue) kern_queue_close(c->talk);
    kern_queue_close(c->queue);
    comm_stage_close(c->stage);
    kern_device_close(c->host);
    c->gpu = NULL;
    c->talk = c->queue = NULL;
    c->stage = NULL;
    c->host = c->device = NULL;
}

void comm_close(struct comm *c)
{
    if (!c) return;
    comm_unbind(c);
    mem_free(c->link->scratch);
    mem_free(c->link->node_of);
    c->link->ops->close(c->link, !c->dead);
    pthread_mutex_destroy(&c->telling);
    mem_free(c);
}

_Noreturn void comm_abort(struct comm *c, int exit_code)
{
    if (c) c->link->ops->abort(c->link, exit_code);
    _exit(exit_code);
}

int32_t comm_rank(const struct comm *c) { return c->link->rank; }
int32_t comm_size(const struct comm *c) { return c->link->size; }
int32_t comm_local_rank(const struct comm *c) { return c->link->local_rank; }
int32_t comm_local_size(const struct comm *c) { return c->link->local_size; }
int32_t comm_gpu_rank(const struct comm *c) { return c->link->gpu_rank; }
int32_t comm_nodes(const struct comm *c) { return c->link->nodes; }
int32_t comm_node(const struct comm *c, int32_t rank)
{
    return c->link->node_of ? c->link->node_of[rank] : 0;
}
const char *comm_node_name(const struct comm *c) { return c->link->node; }
int comm_threads(const struct comm *c) { return c->link->threads; }
const char *comm_describe(const struct comm *c) { return c->link->describe; }
struct kern_queue *comm_queue(struct comm *c) { return c->queue; }
double comm_sent(const struct comm *c) { return (double)c->bytes; }

/* ---- one collective ------------------------------------------------------------------- */

static void tell(struct comm *c, void (*whom)(void *, uint64_t, const char *),
                 uint64_t *newest, uint64_t number, const char *name)
{
    if (!whom) return;
    pthread_mutex_lock(&c->telling);
    if (number > *newest) {
        *newest = number;
        whom(c->watch.self, number, name);
    }
    pthread_mutex_unlock(&c->telling);
}

kr_status comm_enter(struct comm *c, struct comm_link *l, uint64_t number,
                     const char *name)
{
    if (c->dead) return KR_ERR_COMM; /* the line was written when it died */
    l->name = name;
    l->number = number;
    return KR_OK;
}

void comm_tell_enter(struct comm *c, const struct comm_link *l)
{
    tell(c, c->watch.enter, &c->entered, l->number, l->name);
}

void comm_tell_leave(struct comm *c, uint64_t number, const char *name)
{
    tell(c, c->watch.leave, &c->left, number, name);
}

/* ---- what the NCCL link says, from its own thread -------------------------------------- */

void comm_gpu_over(void *self, uint64_t number, const char *name)
{
    comm_tell_leave(self, number, name);
}

void comm_gpu_died(void *self)
{
    struct comm *c = self;

    c->dead = true;
    kern_queue_fail(c->queue, KR_ERR_COMM);
}
