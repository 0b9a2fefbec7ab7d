/*
 * comm_queued.c - collectives on device memory: checked here, enqueued on comm->queue.
 */
#include <string.h>

#include "comm/comm_parts.h"
#include "comm/part.h"

/* ---- on their way --------------------------------------------------------------------- */

/* What has departed lands, even if only half of it was enqueued. */
static kr_status run_later(struct comm_link *l, const struct work *w)
{
    kr_status st, landed;

    TRY(l->ops->depart(l));
    st = w->run(l, w);
    landed = l->ops->land(l);
    return st == KR_OK ? landed : st;
}

static kr_status attempt(const struct work *w, struct comm_link *l)
{
    struct comm *c = w->c;
    double sent = l->sent;

    TRY(comm_enter(c, l, w->number, w->name));
    TRY(comm_fault_before(&c->fault, l));
    comm_tell_enter(c, l);
    TRY(l->ops->is_later ? run_later(l, w) : w->run(l, w));
    if (!l->ops->is_later) comm_tell_leave(c, w->number, w->name);
    comm_fault_after(&c->fault, l->sent - sent);
    c->bytes += (uint64_t)(l->sent - sent);
    return KR_OK;
}

/* Any failure ends the group here, out of memory too: this rank is out of step. */
static kr_status run(const struct work *w, struct comm_link *l)
{
    kr_status st = attempt(w, l);

    if (st != KR_OK) w->c->dead = true;
    return st;
}

kr_status comm_work_run(void *arg)
{
    const struct work *w = arg;

    return run(w, w->c->link);
}

/* On a GPU's own link, which enqueues: from the caller's thread. */
static kr_status run_now(struct work *w)
{
    kr_status st = run(w, w->c->gpu);

    if (st != KR_OK) kern_queue_fail(w->c->queue, st);
    return st;
}

/* `bytes` of w; its operands, in case they must be brought to the host. */
static kr_status enqueue(struct work *w, size_t bytes, const struct comm_operand *o,
                         int count)
{
    struct comm *c = w->c;

    if (!c->queue)
        return KR_FAIL(KR_ERR_ARG, "%s: this group is not bound to a device", w->name);
    if (c->dead) return KR_ERR_COMM;
    w->number = ++c->number;
    if (c->gpu) return run_now(w);
    if (c->stage) return comm_stage_work(c->stage, w, bytes, o, count);
    return kern_queue_call(c->queue, comm_work_run, w, bytes);
}

/* One rank on a GPU: all that is left of a collective is a copy there. */
static bool is_alone_on_gpu(const struct comm *c)
{
    return c->queue && comm_size(c) == 1 && !kern_device_is_host(c->device);
}

static kr_status enqueue_copy(struct comm *c, void *to, const void *from, int64_t count,
                              enum kern_dtype type)
{
    if (to == from) return KR_OK;
    return kern_copy(c->queue, kern_mat(to, 1, count, type),
                     kern_mat((void *)(uintptr_t)from, 1, count, type));
}

/* The operands of the chunked collectives: `whole` (size, chunk) and `part` (chunk). */
static kr_status enqueue_chunks(struct work *w, struct comm_operand all,
                                struct comm_operand own)
{
    int64_t bytes = w->count * (int64_t)kern_dtype_bytes(w->type);
    struct comm_operand o[] = { all, own };

    o[0].at = &w->all;
    o[1].at = &w->own;
    for (int i = 0; i < 2; i++)
        o[i].bytes *= bytes;
    return w->count ? enqueue(w, sizeof *w, o, 2) : KR_OK;
}

/* ---- sums ----------------------------------------------------------------------------- */

static kr_status check_chunk(const char *name, int64_t chunk)
{
    return chunk >= 0 ? KR_OK
                      : KR_FAIL(KR_ERR_ARG, "%s: chunk of %lld elements", name,
                                (long long)chunk);
}

static kr_status check_sum(const char *name, int64_t chunk, enum kern_dtype type)
{
    TRY(check_chunk(name, chunk));
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
    if (is_alone_on_gpu(c)) return enqueue_copy(c, own, all, chunk, type);
    return enqueue_chunks(&w,
                          (struct comm_operand){ .bytes = comm_size(c), .is_in = true },
                          (struct comm_operand){ .bytes = 1, .is_out = true });
}

/* A ring does both halves with the same bytes; a link may know better ways. */
static kr_status run_all_reduce(struct comm_link *l, const struct work *w)
{
    int64_t bytes = w->count * (int64_t)kern_dtype_bytes(w->type);
    char *own = (char *)w->all + l->rank * bytes;

    if (l->ops->all_reduce) return l->ops->all_reduce(l, w->all, w->count, w->type);
    TRY(l->ops->reduce_scatter(l, w->all, own, w->count, w->type));
    return l->ops->all_gather(l, own, w->all, bytes);
}

kr_status comm_all_reduce(struct comm *c, void *all, int64_t chunk, enum kern_dtype type)
{
    struct work w = { .c = c,
                      .name = "all_reduce",
                      .run = run_all_reduce,
                      .all = all,
                      .count = chunk,
                      .type = type };
    struct comm_operand o = { &w.all,
                              comm_size(c) * chunk * (int64_t)kern_dtype_bytes(type),
                              true, true };

    TRY(check_sum(w.name, chunk, type));
    if (is_alone_on_gpu(c) || chunk == 0) return KR_OK;
    return enqueue(&w, sizeof w, &o, 1);
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

static kr_status enqueue_tree(struct tree_work *t, const struct tree_node *nodes,
                              void *const *at, int count)
{
    struct comm *c = t->work.c;
    int64_t bytes = t->work.count * (int64_t)kern_dtype_bytes(t->work.type);
    struct comm_operand o[COMM_OPERANDS];

    TRY(check_nodes(c, t->leaves, nodes, count));
    t->count = count;
    memcpy(t->nodes, nodes, (size_t)count * sizeof *nodes);
    memcpy(t->at, at, (size_t)count * sizeof *at);
    /* one rank has all leaves, so there is one node, the root */
    if (is_alone_on_gpu(c))
        return enqueue_copy(c, t->work.own, at[0], t->work.count, t->work.type);
    for (int k = 0; k < count; k++)
        o[k] = (struct comm_operand){ &t->at[k], comm_size(c) * bytes, true, false };
    o[count] = (struct comm_operand){ &t->work.own, bytes, false, true };
    return t->work.count ? enqueue(&t->work, sizeof *t, o, count + 1) : KR_OK;
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
    return enqueue_tree(&t, nodes, at, count);
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
    TRY(check_chunk(t.work.name, chunk));
    return enqueue_tree(&t, nodes, at, count);
}

/* ---- moves ---------------------------------------------------------------------------- */

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

    TRY(check_chunk(w.name, chunk));
    if (is_alone_on_gpu(c)) return enqueue_copy(c, got, all, chunk, type);
    return enqueue_chunks(&w,
                          (struct comm_operand){ .bytes = comm_size(c), .is_in = true },
                          (struct comm_operand){ .bytes = comm_size(c), .is_out = true });
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

    TRY(check_chunk(w.name, chunk));
    if (is_alone_on_gpu(c)) return enqueue_copy(c, all, own, chunk, type);
    return enqueue_chunks(&w,
                          (struct comm_operand){ .bytes = comm_size(c), .is_out = true },
                          (struct comm_operand){ .bytes = 1, .is_in = true });
}

static kr_status run_broadcast(struct comm_link *l, const struct work *w)
{
    return l->ops->broadcast(l, w->all, w->count, w->root);
}

kr_status comm_broadcast(struct comm *c, void *at, int64_t bytes, int32_t root)
{
    bool is_root = root == comm_rank(c);
    struct work w = { .c = c,
                      .name = "broadcast",
                      .run = run_broadcast,
                      .all = at,
                      .count = bytes,
                      .root = root };
    struct comm_operand o = { &w.all, bytes, is_root, !is_root };

    if (bytes < 0 || root < 0 || root >= comm_size(c))
        return KR_FAIL(KR_ERR_ARG, "broadcast: %lld bytes from rank %d of %d",
                       (long long)bytes, root, comm_size(c));
    if (is_alone_on_gpu(c) || bytes == 0) return KR_OK;
    return enqueue(&w, sizeof w, &o, 1);
}

/* ---- memory --------------------------------------------------------------------------- */

void comm_register(struct comm *c, void *at, int64_t bytes)
{
    if (c->gpu && at) c->gpu->ops->enlist(c->gpu, at, bytes);
}

void comm_unregister(struct comm *c, void *at)
{
    if (c->gpu && at) c->gpu->ops->delist(c->gpu, at);
}
