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
    struct comm_watch watch;       /* enter == NULL: nobody */
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
        return KR_FAIL(KR_ERR_ARG, "dist.comm = %s: want auto, self or mpi",
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

void comm_watch(struct comm *c, const struct comm_watch *watch) { c->watch = *watch; }

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
        return KR_FAIL(KR_ERR_ARG,
                       "the %s back end needs host memory, device %s has none",
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
    mem_free(c->link->node_of);
    c->link->ops->close(c->link, !c->dead);
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
int32_t comm_nodes(const struct comm *c) { return c->link->nodes; }
int32_t comm_node(const struct comm *c, int32_t rank)
{
    return c->link->node_of ? c->link->node_of[rank] : 0;
}
const char *comm_node_name(const struct comm *c) { return c->link->node; }
int comm_threads(const struct comm *c) { return c->link->threads; }
const char *comm_describe(const struct comm *c) { return c->link->describe; }
struct kern_queue *comm_queue(struct comm *c) { return c->queue; }

void comm_totals(const struct comm *c, double *bytes, double *seconds)
{
    *bytes = c->bytes;
    *seconds = c->seconds;
}

/* ---- host collectives ----------------------------------------------------------------- */

/* One host collective, with the operands of all of them. */
struct host_call {
    struct comm *c;
    const char *name;
    kr_status (*run)(struct comm_link *l, struct host_call *h);
    kr_status status; /* out */
    int32_t worst;    /* in and out */
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

static void tell_enter(const struct comm *c)
{
    if (c->watch.enter) c->watch.enter(c->watch.self, c->link->number, c->link->name);
}

static void tell_leave(const struct comm *c)
{
    if (c->watch.leave) c->watch.leave(c->watch.self, c->link->number, c->link->name);
}

/* A group that agreed on a failure lives on; one that lost its peers does not. */
static void host_run(struct host_call *h)
{
    h->status = enter(h->c, h->name);
    if (h->status == KR_OK) {
        tell_enter(h->c);
        h->status = h->run(h->c->link, h);
    }
    if (h->status == KR_ERR_COMM)
        h->c->dead = true;
    else
        tell_leave(h->c);
}

static kr_status host_run_queued(void *arg)
{
    struct host_call *h = *(struct host_call **)arg;

    host_run(h);
    return h->status == KR_ERR_COMM ? KR_ERR_COMM : KR_OK;
}

/* A group of one on a GPU has no order to keep, so it need not go through the stream. */
static kr_status host_collective(struct host_call *h)
{
    if (h->c->queue && kern_device_is_host(h->c->device)) {
        TRY(kern_queue_call(h->c->queue, host_run_queued, &h, sizeof h));
        TRY(kern_queue_sync(h->c->queue));
    } else {
        host_run(h);
    }
    return h->status;
}

static kr_status too_big(const char *name, size_t bytes)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %zu bytes, more than 1 GiB", name, bytes);
}

static kr_status run_agree(struct comm_link *l, struct host_call *h)
{
    return l->ops->agree(l, &h->worst);
}

kr_status comm_agree(struct comm *c, kr_status mine)
{
    struct host_call h = { .c = c, .name = "agree", .run = run_agree, .worst = mine };

    TRY(host_collective(&h));
    return (kr_status)h.worst;
}

static kr_status run_share(struct comm_link *l, struct host_call *h)
{
    return l->ops->broadcast(l, h->all, (int64_t)h->bytes, 0);
}

kr_status comm_share(struct comm *c, void *at, size_t bytes)
{
    struct host_call h = {
        .c = c, .name = "share", .run = run_share, .all = at, .bytes = bytes
    };

    if (bytes > HOST_MAX) return too_big(h.name, bytes);
    return bytes ? host_collective(&h) : KR_OK;
}

static kr_status run_all_gather_bytes(struct comm_link *l, struct host_call *h)
{
    return l->ops->all_gather(l, h->mine, h->all, (int64_t)h->bytes);
}

kr_status comm_all_gather_bytes(struct comm *c, const void *mine, size_t bytes, void *all)
{
    struct host_call h = { .c = c,
                           .name = "all_gather_bytes",
                           .run = run_all_gather_bytes,
                           .mine = mine,
                           .all = all,
                           .bytes = bytes };

    if (bytes > HOST_MAX) return too_big(h.name, bytes);
    return bytes ? host_collective(&h) : KR_OK;
}

/* ---- texts ---------------------------------------------------------------------------- */

/* Inside a collective: does everyone have what the next message needs? */
static kr_status all_ready(struct comm_link *l, kr_status mine)
{
    int32_t worst = mine;

    TRY(l->ops->agree(l, &worst));
    return (kr_status)worst;
}

static kr_status run_share_text(struct comm_link *l, struct host_call *h)
{
    char **text = h->all, *copy = NULL;
    int64_t bytes = l->rank == 0 ? (int64_t)strlen(*text) + 1 : 0;
    kr_status st = KR_OK;

    TRY(l->ops->broadcast(l, &bytes, sizeof bytes, 0));
    if (bytes > HOST_MAX)
        return l->rank == 0 ? too_big(h->name, (size_t)bytes) : KR_ERR_ARG;
    if (l->rank != 0) st = mem_alloc(&copy, (size_t)bytes, 1, "text of rank 0");
    TRY_OR(st, all_ready(l, st), done);
    TRY_OR(st, l->ops->broadcast(l, l->rank == 0 ? *text : copy, bytes, 0), done);
    if (l->rank != 0) *text = copy;
done:
    if (st != KR_OK) mem_free(copy);
    return st;
}

kr_status comm_share_text(struct comm *c, char **text)
{
    struct host_call h = {
        .c = c, .name = "share_text", .run = run_share_text, .all = text
    };

    return host_collective(&h);
}

/* What gathering texts needs, on every rank; messages and block on rank 0. */
struct texts {
    int64_t *bytes; /* (size), with the NUL */
    struct comm_message *messages;
    char *block;
};

static kr_status texts_sizes(struct comm_link *l, struct texts *t, const char *mine,
                             int64_t *total)
{
    kr_status st =
        mem_alloc(&t->bytes, (size_t)l->size, sizeof *t->bytes, "sizes of texts");
    int64_t bytes = (int64_t)strlen(mine) + 1;

    TRY(all_ready(l, st));
    TRY(l->ops->all_gather(l, &bytes, t->bytes, sizeof bytes));
    *total = 0;
    for (int32_t r = 0; r < l->size && *total <= HOST_MAX; r++)
        *total += t->bytes[r];
    return KR_OK;
}

static kr_status texts_room(struct comm_link *l, struct texts *t, int64_t total)
{
    kr_status st = KR_OK;

    if (l->rank == 0) {
        st = mem_alloc(&t->messages, (size_t)l->size, sizeof *t->messages,
                       "texts of ranks");
        if (st == KR_OK) st = mem_alloc(&t->block, (size_t)total, 1, "texts of ranks");
    }
    return all_ready(l, st);
}

static kr_status texts_move(struct comm_link *l, struct texts *t, const char *mine)
{
    struct comm_message out = { .at = (void *)(uintptr_t)mine,
                                .bytes = t->bytes[l->rank],
                                .peer = 0,
                                .is_out = true };
    char *at = t->block;

    if (l->rank != 0) {
        TRY(l->ops->start(l, &out));
        return l->ops->wait(l, &out, 1);
    }
    memcpy(at, mine, (size_t)t->bytes[0]);
    for (int32_t r = 1; r < l->size; r++) {
        at += t->bytes[r - 1];
        t->messages[r] =
            (struct comm_message){ .at = at, .bytes = t->bytes[r], .peer = r };
        TRY(l->ops->start(l, &t->messages[r]));
    }
    return l->size > 1 ? l->ops->wait(l, t->messages + 1, l->size - 1) : KR_OK;
}

static kr_status run_gather_texts(struct comm_link *l, struct host_call *h)
{
    struct texts t = { 0 };
    char **all = h->all;
    int64_t total;
    kr_status st;

    TRY_OR(st, texts_sizes(l, &t, h->mine, &total), done);
    if (total > HOST_MAX) {
        st = l->rank == 0 ? too_big(h->name, (size_t)total) : KR_ERR_ARG;
        goto done;
    }
    TRY_OR(st, texts_room(l, &t, total), done);
    TRY_OR(st, texts_move(l, &t, h->mine), done);
    *all = t.block;
    t.block = NULL;
done:
    mem_free(t.bytes);
    mem_free(t.messages);
    mem_free(t.block);
    return st;
}

kr_status comm_gather_texts(struct comm *c, const char *mine, char **all)
{
    struct host_call h = {
        .c = c, .name = "gather_texts", .run = run_gather_texts, .mine = mine, .all = all
    };

    return host_collective(&h);
}

/* ---- queued collectives --------------------------------------------------------------- */

/* One queued collective, with the operands of most of them. */
struct work {
    struct comm *c;
    const char *name;
    kr_status (*run)(struct comm_link *l, const struct work *w);
    void *all, *own;
    int64_t count; /* elements of a chunk, or bytes */
    enum kern_dtype type;
    int32_t root;
};

/* The canonical reduction also takes its nodes along. */
struct tree_work {
    struct work work; /* first */
    int64_t leaves;
    struct comm_rounding rounding;
    int count;
    struct tree_node nodes[TREE_DEPTH];
    void *at[TREE_DEPTH];
};

static kr_status attempt(const struct work *w)
{
    struct comm_link *l = w->c->link;
    double start = clock_now(), sent = l->sent;

    TRY(enter(w->c, w->name));
    TRY(comm_fault_before(&w->c->fault, l));
    tell_enter(w->c);
    TRY(w->run(l, w));
    tell_leave(w->c);
    comm_fault_after(&w->c->fault, l->sent - sent);
    w->c->bytes = w->c->bytes + (l->sent - sent);
    w->c->seconds = w->c->seconds + (clock_now() - start);
    return KR_OK;
}

/* Any failure ends the group here, out of memory too: this rank is out of step. */
static kr_status work_run(void *arg)
{
    const struct work *w = arg;
    kr_status st = attempt(w);

    if (st != KR_OK) w->c->dead = true;
    return st;
}

static kr_status enqueue(struct work *w, size_t bytes)
{
    struct comm *c = w->c;

    if (!c->queue)
        return KR_FAIL(KR_ERR_ARG, "%s: this group is not bound to a device", w->name);
    if (c->dead) return KR_ERR_COMM;
    return kern_queue_call(c->queue, work_run, w, bytes);
}

/* A group of one on a GPU: all that is left of a collective is a copy there. */
static kr_status enqueue_copy(struct comm *c, void *to, const void *from, int64_t count,
                              enum kern_dtype type)
{
    if (to == from) return KR_OK;
    return kern_copy(c->queue, kern_mat(to, 1, count, type),
                     kern_mat((void *)(uintptr_t)from, 1, count, type));
}

static bool is_on_gpu(const struct comm *c)
{
    return c->queue && !kern_device_is_host(c->device);
}

static kr_status check_sum(const char *name, int64_t chunk, enum kern_dtype type)
{
    if (chunk < 0)
        return KR_FAIL(KR_ERR_ARG, "%s: chunk of %lld elements", name, (long long)chunk);
    if (type != KERN_F32 && type != KERN_F64)
        return KR_FAIL(KR_ERR_ARG, "%s: sums are made in f32 or f64", name);
    return KR_OK;
}

static kr_status run_reduce_scatter(struct comm_link *l, const struct work *w)
{
    return l->ops->reduce_scatter(l, w->all, w->own, w->count, w->type);
}

kr_status comm_reduce_scatter(struct comm *c, void *all, void *own, int64_t chunk,
                              enum kern_dtype type)
{
    struct work w = { .c = c,
                      .name = "reduce_scatter",
                      .run = run_reduce_scatter,
                      .all = all,
                      .own = own,
                      .count = chunk,
                      .type = type };

    TRY(check_sum(w.name, chunk, type));
    if (is_on_gpu(c)) return enqueue_copy(c, own, all, chunk, type);
    return chunk ? enqueue(&w, sizeof w) : KR_OK;
}

/* The nodes must be what every other rank believes this one has. */
static kr_status check_nodes(const struct comm *c, int64_t leaves,
                             const struct tree_node *nodes, int count)
{
    int32_t rank = comm_rank(c), size = comm_size(c);
    struct tree_node want[TREE_DEPTH];
    struct span s;
    int n;

    if (leaves < size || leaves > INT64_C(1) << 30)
        return KR_FAIL(KR_ERR_ARG, "reduce_tree: %lld leaves over %d ranks",
                       (long long)leaves, size);
    s = part_leaves(leaves, size, rank);
    n = tree_cover(leaves, (struct tree_node){ s.begin, s.end - s.begin }, want);
    for (int k = 0; k < n && n == count; k++)
        if (want[k].first != nodes[k].first || want[k].count != nodes[k].count) n = -1;
    if (n != count)
        return KR_FAIL(KR_ERR_ARG,
                       "reduce_tree: these are not the nodes of leaves %lld to %lld",
                       (long long)s.begin, (long long)s.end - 1);
    return KR_OK;
}

static kr_status run_reduce_tree(struct comm_link *l, const struct work *w)
{
    const struct tree_work *tree = (const struct tree_work *)w;
    struct comm_tree t = { .leaves = tree->leaves,
                           .nodes = tree->nodes,
                           .at = tree->at,
                           .count = tree->count,
                           .own = w->own,
                           .chunk = w->count,
                           .type = w->type,
                           .rounding = tree->rounding };

    return l->ops->reduce_tree(l, &t);
}

static kr_status reduce_tree(struct tree_work *t, const struct tree_node *nodes,
                             void *const *at, int count)
{
    struct comm *c = t->work.c;

    if (t->work.count < 0)
        return KR_FAIL(KR_ERR_ARG, "%s: chunk of %lld elements", t->work.name,
                       (long long)t->work.count);
    TRY(check_nodes(c, t->leaves, nodes, count));
    t->count = count;
    memcpy(t->nodes, nodes, (size_t)count * sizeof *nodes);
    memcpy(t->at, at, (size_t)count * sizeof *at);
    /* one rank has all leaves, so there is one node, the root */
    if (is_on_gpu(c))
        return enqueue_copy(c, t->work.own, at[0], t->work.count, t->work.type);
    return t->work.count ? enqueue(&t->work, sizeof *t) : KR_OK;
}

kr_status comm_reduce_tree(struct comm *c, int64_t leaves, const struct tree_node *nodes,
                           void *const *at, int count, void *own, int64_t chunk,
                           enum kern_dtype type)
{
    struct tree_work t = { .leaves = leaves };

    t.work = (struct work){ .c = c,
                            .name = "reduce_tree",
                            .run = run_reduce_tree,
                            .own = own,
                            .count = chunk,
                            .type = type };
    TRY(check_sum(t.work.name, chunk, type));
    return reduce_tree(&t, nodes, at, count);
}

kr_status comm_reduce_tree_bf16(struct comm *c, int64_t leaves,
                                const struct tree_node *nodes, void *const *at, int count,
                                void *own, int64_t chunk, struct comm_rounding rounding)
{
    struct tree_work t = { .leaves = leaves, .rounding = rounding };

    t.work = (struct work){ .c = c,
                            .name = "reduce_tree",
                            .run = run_reduce_tree,
                            .own = own,
                            .count = chunk,
                            .type = KERN_BF16 };
    return reduce_tree(&t, nodes, at, count);
}

static kr_status run_all_to_all(struct comm_link *l, const struct work *w)
{
    return l->ops->all_to_all(l, w->all, w->own,
                              w->count * (int64_t)kern_dtype_bytes(w->type));
}

kr_status comm_all_to_all(struct comm *c, const void *all, void *got, int64_t chunk,
                          enum kern_dtype type)
{
    struct work w = { .c = c,
                      .name = "all_to_all",
                      .run = run_all_to_all,
                      .all = (void *)(uintptr_t)all,
                      .own = got,
                      .count = chunk,
                      .type = type };

    if (chunk < 0)
        return KR_FAIL(KR_ERR_ARG, "all_to_all: chunk of %lld elements",
                       (long long)chunk);
    if (!is_on_gpu(c) && !c->link->ops->all_to_all)
        return KR_FAIL(KR_ERR_ARG, "all_to_all: %s knows none", c->link->ops->name);
    if (is_on_gpu(c)) return enqueue_copy(c, got, all, chunk, type);
    return chunk ? enqueue(&w, sizeof w) : KR_OK;
}

static kr_status run_all_gather(struct comm_link *l, const struct work *w)
{
    return l->ops->all_gather(l, w->own, w->all,
                              w->count * (int64_t)kern_dtype_bytes(w->type));
}

kr_status comm_all_gather(struct comm *c, const void *own, void *all, int64_t chunk,
                          enum kern_dtype type)
{
    struct work w = { .c = c,
                      .name = "all_gather",
                      .run = run_all_gather,
                      .all = all,
                      .own = (void *)(uintptr_t)own,
                      .count = chunk,
                      .type = type };

    if (chunk < 0)
        return KR_FAIL(KR_ERR_ARG, "all_gather: chunk of %lld elements",
                       (long long)chunk);
    if (is_on_gpu(c)) return enqueue_copy(c, all, own, chunk, type);
    return chunk ? enqueue(&w, sizeof w) : KR_OK;
}

static kr_status run_broadcast(struct comm_link *l, const struct work *w)
{
    return l->ops->broadcast(l, w->all, w->count, w->root);
}

kr_status comm_broadcast(struct comm *c, void *at, int64_t bytes, int32_t root)
{
    struct work w = { .c = c,
                      .name = "broadcast",
                      .run = run_broadcast,
                      .all = at,
                      .count = bytes,
                      .root = root };

    if (bytes < 0 || root < 0 || root >= comm_size(c))
        return KR_FAIL(KR_ERR_ARG, "broadcast: %lld bytes from rank %d of %d",
                       (long long)bytes, root, comm_size(c));
    if (is_on_gpu(c)) return KR_OK;
    return bytes ? enqueue(&w, sizeof w) : KR_OK;
}

static kr_status move_packets(struct comm_link *l, struct comm_message *m,
                              const struct comm_packet *list, int64_t count)
{
    int64_t used = 0;

    for (int64_t i = 0; i < count; i++) {
        const struct comm_packet *p = &list[i];

        if (p->bytes == 0) continue;
        m[used] = (struct comm_message){
            .at = p->at, .bytes = p->bytes, .peer = p->peer, .is_out = p->is_out
        };
        TRY(l->ops->start(l, &m[used++]));
    }
    return used ? l->ops->wait(l, m, used) : KR_OK;
}

static kr_status run_swap(struct comm_link *l, const struct work *w)
{
    struct comm_message *m = NULL;
    kr_status st;

    TRY(mem_alloc(&m, (size_t)w->count, sizeof *m, "messages"));
    st = move_packets(l, m, w->own, w->count);
    mem_free(m);
    return st;
}

kr_status comm_swap(struct comm *c, const struct comm_packet *list, int64_t count)
{
    struct work w = { .c = c,
                      .name = "swap",
                      .run = run_swap,
                      .own = (void *)(uintptr_t)list,
                      .count = count };

    for (int64_t i = 0; i < count; i++)
        if (list[i].bytes < 0 || list[i].bytes > COMM_PACKET_MAX || list[i].peer < 0 ||
            list[i].peer >= comm_size(c) || list[i].peer == comm_rank(c))
            return KR_FAIL(KR_ERR_ARG, "swap: message of %lld bytes, peer %d of %d",
                           (long long)list[i].bytes, list[i].peer, comm_size(c));
    if (comm_size(c) == 1) return KR_OK;
    return enqueue(&w, sizeof w);
}
