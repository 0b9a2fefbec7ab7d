/* plan.c - add up, compare, and say what would help. */
#include "trainer/run/plan.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

static const double mib = 0x1p20, gib = 0x1p30;

size_t plan_sum(const struct plan *p)
{
    return shard_bytes_sum(&p->state) + p->model.bytes + p->scratch + p->messages +
           p->other;
}

static enum kern_dtype storage(int setting, enum kern_dtype wide)
{
    return setting == STORAGE_BF16 ? KERN_BF16 : wide;
}

static bool takes_snapshots(const struct settings *s)
{
    return strcmp(s->snapshot_every, "0") != 0;
}

/* Elements that the first rank saves, the one with the most: its share of what is trained,
 * without the gaps. */
static size_t share_of(const struct params *p, int32_t ranks)
{
    size_t len = 0;

    for (int32_t i = p->first; i < p->count; i++) {
        const struct param *par = &p->list[i];
        struct span all = { par->offset, par->offset + par->rows * par->cols };
        struct span own = part_meet(part_own(p->unit_len[par->unit], ranks, 0), all);

        len += (size_t)(own.end - own.begin);
    }
    return len;
}

/* What is saved of w, m and v, and the copies of it from which checkpoints, snapshots and
 * the best weights are written; each has one more byte (copyout.c). */
struct copies {
    size_t state, all;
};

static struct copies copies_of(const struct settings *s, const struct params *p,
                               int32_t ranks, enum kern_dtype wide,
                               enum kern_dtype moments)
{
    size_t len = share_of(p, ranks), weights = len * kern_dtype_bytes(wide);
    size_t state = weights + 2 * len * kern_dtype_bytes(moments);

    return (struct copies){ state, state + 1 + (takes_snapshots(s) ? state + 1 : 0) +
                                       (s->ckpt_best ? weights + 1 : 0) };
}

/* One loss per micro-batch, one sum of squares per block; on a GPU pinned as well. */
static size_t sums(const struct settings *s, const struct params *p, int32_t ranks)
{
    int64_t leaves = (settings_leaves(s) + ranks - 1) / ranks, blocks = 0;

    for (int i = p->frozen; i < p->units; i++)
        blocks += part_chunk(p->unit_len[i], ranks) / KERN_SUM_BLOCK;
    return (size_t)(leaves + blocks) * sizeof(double);
}

/* Tokens, labels and starts. */
static size_t batch_bytes(const struct settings *s)
{
    return (size_t)(3 * s->micro_batch * s->context) * sizeof(int32_t);
}

/* Messages between GPUs, and what the host has beside one. */
static void plan_gpu(struct plan *p, const struct settings *set,
                     const struct params *params, int32_t ranks,
                     const struct shard_room *room, const struct kern_kind *kind)
{
    bool staged = strcmp(set->backend, "mpi") == 0;

    p->pinned += kind->staging + sums(set, params, ranks) + room->checksums +
                 (staged ? room->pinned : 0);
    if (staged) return;
    p->nccl = comm_nccl_bytes(ranks);
    p->messages = room->device + p->nccl;
}

/* The compute queue also makes checksums of replicas. */
static kr_status plan_scratch(size_t *out, const struct settings *set,
                              const struct model_shape *shape,
                              const struct params *params, int32_t ranks)
{
    struct kern_whose whose = { (enum kern_matmul)set->matmul,
                                (enum kern_hopper)set->hopper };
    struct kern_call call = { .operation = KERN_CALL_CHECKSUM };
    size_t sum, step;

    for (int i = 0; i < params->units && ranks > 1; i++)
        if (params->unit_len[i] > call.cols) call.cols = params->unit_len[i];
    call.cols = (call.cols + 1) / 2; /* fp32 */
    TRY(kern_device_scratch(settings_device(set), &whose, &call, &sum));
    TRY(model_scratch(&step, settings_device(set), &whose, shape, params,
                      set->micro_batch));
    *out = step > sum ? step : sum;
    return KR_OK;
}

static struct shard_config shard_of(const struct settings *set, enum kern_dtype wide)
{
    return (struct shard_config){ .stage = (int)set->shard,
                                  .canonical = set->reduce == REDUCE_CANONICAL,
                                  .train = true,
                                  .leaves = settings_leaves(set),
                                  .moments = storage(set->moments, wide),
                                  .grads = storage(set->grads, wide) };
}

/* Once the list of parameters is known. */
static kr_status plan_parts(struct plan *p, const struct settings *set,
                            const struct model_shape *shape, const struct params *params,
                            int32_t ranks, const struct kern_kind *kind)
{
    struct shard_config config = shard_of(set, kind->wide);
    struct shard_room room = shard_room(params, ranks, &config, kind->type, kind->wide);
    struct copies copies = copies_of(set, params, ranks, kind->wide, config.moments);

    TRY(model_plan(&p->model, shape, set->micro_batch, true,
                   (enum model_recompute)set->recompute, kind->type, kind->wide));
    TRY(plan_scratch(&p->scratch, set, shape, params, ranks));
    p->state = shard_plan(params, ranks, &config, kind->type, kind->wide);
    p->other = batch_bytes(set) + sums(set, params, ranks) + room.checksums;
    if (takes_snapshots(set)) p->node_memory = 2 * copies.state;
    *(kind->is_host ? &p->other : &p->pinned) += copies.all;
    if (!kind->is_host) plan_gpu(p, set, params, ranks, &room, kind);
    return KR_OK;
}

kr_status plan_make(struct plan *out, const struct settings *set, int32_t ranks)
{
    struct kern_kind kind;
    struct model_shape shape;
    struct params params = { 0 };
    struct plan p = { 0 };
    kr_status st;

    TRY(kern_device_kind(settings_device(set), &kind));
    settings_shape(set, &shape);
    TRY(params_build(&params, &shape));
    st = plan_parts(&p, set, &shape, &params, ranks, &kind);
    params_free(&params);
    if (st == KR_OK) *out = p;
    return st;
}

/* Copies are pinned beside a GPU, else they are in the sum. */
static void tell_host(const struct plan *p)
{
    if (p->pinned)
        LOG_NOTE("host memory of a rank: %.1f MiB pinned for copies, snapshots %.1f MiB "
                 "of node memory",
                 (double)p->pinned / mib, (double)p->node_memory / mib);
    else if (p->node_memory)
        LOG_NOTE("host memory of a rank: snapshots %.1f MiB of node memory",
                 (double)p->node_memory / mib);
}

void plan_tell(const struct plan *p, uint64_t available)
{
    const struct shard_bytes *s = &p->state;
    const struct {
        const char *name;
        size_t bytes;
    } list[] = { { "weights", s->weights },
                 { "master", s->master },
                 { "gradients", s->gradients },
                 { "moments", s->moments },
                 { "moving", s->moving },
                 { "activations", p->model.bytes - p->model.logits },
                 { "logits", p->model.logits },
                 { "scratch", p->scratch },
                 { "messages", p->messages },
                 { "other", p->other },
                 { "sum", plan_sum(p) },
                 { "available", available } };
    struct mem_text names = { 0 }, sizes = { 0 };

    for (size_t i = 0; i < sizeof list / sizeof *list - (available == 0); i++) {
        mem_printf(&names, " %11s", list[i].name);
        mem_printf(&sizes, " %11.1f", (double)list[i].bytes / mib);
    }
    if (!names.failed && !sizes.failed) {
        LOG_NOTE("memory of a rank%s", names.at);
        LOG_NOTE("             MiB%s", sizes.at);
    }
    mem_text_free(&names);
    mem_text_free(&sizes);
    tell_host(p);
}

/* ---- what would help ------------------------------------------------------------------ */

static void one_sequence(struct settings *s) { s->micro_batch = 1; }
static void recompute_all(struct settings *s) { s->recompute = RECOMPUTE_FULL; }
static void moments_bf16(struct settings *s) { s->moments = STORAGE_BF16; }
static void grads_bf16(struct settings *s)
{
    if (s->reduce == REDUCE_CANONICAL) s->grads = STORAGE_BF16;
}
static void one_sum(struct settings *s)
{
    if (s->grads != STORAGE_BF16) s->reduce = REDUCE_LIBRARY;
}
static void all_sharded(struct settings *s) { s->shard = 3; }

static const struct way {
    const char *text;
    void (*apply)(struct settings *s);
} ways[] = {
    { "train.micro_batch = 1", one_sequence },
    { "train.recompute = full", recompute_all },
    { "optim.moments = bf16", moments_bf16 },
    { "train.grads = bf16", grads_bf16 },
    { "dist.shard = 3", all_sharded },
    { "dist.reduce = library", one_sum },
};

/* Each way alone, where it helps, and all that help, with what a rank then needs. */
static void list_ways(struct mem_text *out, const struct settings *set, int32_t ranks,
                      size_t now)
{
    struct settings all = *set;
    struct plan p;

    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct settings one = *set;

        ways[i].apply(&one);
        if (plan_make(&p, &one, ranks) != KR_OK || plan_sum(&p) >= now) continue;
        ways[i].apply(&all);
        mem_printf(out, "%s (%.2f), ", ways[i].text, (double)plan_sum(&p) / gib);
    }
    if (out->len && plan_make(&p, &all, ranks) == KR_OK)
        mem_printf(out, "all of them (%.2f), ", (double)plan_sum(&p) / gib);
}

static kr_status refuse(const struct plan *p, const struct settings *set, int32_t ranks,
                        int32_t rank, double available)
{
    struct mem_text help = { 0 };

    plan_tell(p, (uint64_t)available);
    list_ways(&help, set, ranks, plan_sum(p));
    (void)KR_FAIL(KR_ERR_ARG,
                  "a rank needs %.2f GiB, and %.2f GiB are available to rank %d of %d; "
                  "what would change it (GiB it then needs): %smore ranks or a smaller "
                  "model",
                  (double)plan_sum(p) / gib, available / gib, rank, ranks,
                  help.len ? help.at : "");
    mem_text_free(&help);
    return KR_ERR_ARG;
}

/* Pinned memory does not fit: what is copied from it. */
static kr_status refuse_host(const struct plan *p, const struct settings *set,
                             int32_t ranks, int32_t rank, double available)
{
    plan_tell(p, 0);
    return KR_FAIL(KR_ERR_ARG,
                   "a rank needs %.2f GiB of pinned host memory to copy its state "
                   "through, and %.2f GiB of the host's are available to rank %d of %d; "
                   "what would change it: %s%soptim.moments = bf16, more ranks or a "
                   "smaller model",
                   (double)p->pinned / gib, available / gib, rank, ranks,
                   takes_snapshots(set) ? "snapshot.every = 0, " : "",
                   set->ckpt_best ? "checkpoint.best = false, " : "");
}

/* What a rank may take, bytes; 0: not known.  The ranks of a host share its memory. */
struct room {
    double device, host;
};

static kr_status gather_room(const struct settings *set, struct comm *c,
                             struct room *mine, struct room *all)
{
    struct kern_memory m = { 0 }, host = { 0 };
    kr_status st = kern_device_memory(settings_device(set), comm_gpu_rank(c), &m);

    if (st == KR_OK) st = kern_device_memory("cpu", 0, &host);
    mine->device = (double)m.available / (m.is_shared ? comm_local_size(c) : 1);
    mine->host = (double)host.available / comm_local_size(c);
    TRY(comm_agree(c, st));
    return comm_all_gather_bytes(c, mine, sizeof *mine, all);
}

static bool exceeds(size_t need, double available)
{
    return available > 0 && (double)need > available;
}

/* Held against the rank with the least of each. */
static kr_status fit(const struct plan *p, const struct settings *set, struct comm *c,
                     const struct room *all)
{
    int32_t ranks = comm_size(c), device = 0, host = 0;
    bool tells = comm_rank(c) == 0;

    for (int32_t r = 1; r < ranks; r++) {
        if (all[r].device < all[device].device) device = r;
        if (all[r].host < all[host].host) host = r;
    }
    if (exceeds(plan_sum(p), all[device].device))
        return tells ? refuse(p, set, ranks, device, all[device].device) : KR_ERR_ARG;
    if (exceeds(p->pinned, all[host].host))
        return tells ? refuse_host(p, set, ranks, host, all[host].host) : KR_ERR_ARG;
    return KR_OK;
}

kr_status plan_check(struct plan *out, uint64_t *available, const struct settings *set,
                     struct comm *c)
{
    int32_t ranks = comm_size(c);
    struct room mine, *all = NULL;
    struct plan p = { 0 };
    kr_status st = plan_make(&p, set, ranks);

    if (st == KR_OK)
        st = mem_alloc(&all, (size_t)ranks, sizeof *all, "memory of the ranks");
    TRY_OR(st, comm_agree(c, st), done);
    TRY_OR(st, gather_room(set, c, &mine, all), done);
    *out = p;
    *available = (uint64_t)mine.device;
    st = fit(&p, set, c, all);
done:
    mem_free(all);
    return st;
}
