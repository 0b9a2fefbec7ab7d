/* plan.c - add up, compare, and say what would help. */
#include "trainer/run/plan.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"

static const double mib = 0x1p20, gib = 0x1p30;

size_t plan_sum(const struct plan *p)
{
    return shard_bytes_sum(&p->state) + p->model.bytes + p->other;
}

static enum kern_dtype storage(int setting, enum kern_dtype wide)
{
    return setting == STORAGE_BF16 ? KERN_BF16 : wide;
}

/* The copy that a checkpoint is written from: this rank's share of w, m and v. */
static size_t staging(const struct params *p, int32_t ranks, enum kern_dtype wide,
                      enum kern_dtype moments)
{
    size_t elem = kern_dtype_bytes(wide) + 2 * kern_dtype_bytes(moments), len = 0;

    for (int i = p->frozen; i < p->units; i++) {
        struct span own = part_own(p->unit_len[i], ranks, 0);

        len += (size_t)(own.end - own.begin);
    }
    return len * elem;
}

/* Tokens, labels and starts, one loss per micro-batch, one sum of squares per block. */
static size_t small_things(const struct settings *s, const struct params *p,
                           int32_t ranks)
{
    int64_t rows = s->micro_batch * s->context, blocks = 0;
    int64_t leaves = (settings_leaves(s) + ranks - 1) / ranks;

    for (int i = p->frozen; i < p->units; i++)
        blocks += part_chunk(p->unit_len[i], ranks) / KERN_SUM_BLOCK;
    return (size_t)(3 * rows) * sizeof(int32_t) + (size_t)(leaves + blocks) * 8;
}

kr_status plan_make(struct plan *out, const struct settings *set, int32_t ranks)
{
    struct kern_kind kind;
    struct model_shape shape;
    struct params params = { 0 };
    struct plan p = { 0 };
    struct shard_config config = { .stage = (int)set->shard,
                                   .canonical = set->reduce == REDUCE_CANONICAL,
                                   .train = true,
                                   .leaves = settings_leaves(set) };
    kr_status st;

    TRY(kern_device_kind(settings_device(set), &kind));
    config.moments = storage(set->moments, kind.wide);
    config.grads = storage(set->grads, kind.wide);
    settings_shape(set, &shape);
    TRY_OR(st,
           model_plan(&p.model, &shape, set->micro_batch, true,
                      (enum model_recompute)set->recompute, kind.type, kind.wide),
           done);
    TRY_OR(st, params_build(&params, &shape), done);
    p.state = shard_plan(&params, ranks, &config, kind.type, kind.wide);
    p.other = small_things(set, &params, ranks);
    if (kind.is_host) p.other += staging(&params, ranks, kind.wide, config.moments);
    *out = p;
done:
    params_free(&params);
    return st;
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

/* What each rank may take: the ranks of a host share its memory. */
static kr_status gather_available(const struct settings *set, struct comm *c,
                                  double *mine, double *all)
{
    struct kern_memory m = { 0 };
    kr_status st = kern_device_memory(settings_device(set), comm_gpu_rank(c), &m);

    *mine = (double)m.available / (m.is_shared ? comm_local_size(c) : 1);
    TRY(comm_agree(c, st));
    return comm_all_gather_bytes(c, mine, sizeof *mine, all);
}

kr_status plan_check(struct plan *out, uint64_t *available, const struct settings *set,
                     struct comm *c)
{
    int32_t ranks = comm_size(c), least = 0;
    double *all = NULL, mine;
    struct plan p = { 0 };
    kr_status st = plan_make(&p, set, ranks);

    if (st == KR_OK)
        st = mem_alloc(&all, (size_t)ranks, sizeof *all, "memory of the ranks");
    TRY_OR(st, comm_agree(c, st), done);
    TRY_OR(st, gather_available(set, c, &mine, all), done);
    for (int32_t r = 1; r < ranks; r++)
        if (all[r] < all[least]) least = r;
    *out = p;
    *available = (uint64_t)mine;
    if (all[least] > 0 && (double)plan_sum(&p) > all[least])
        st = comm_rank(c) ? KR_ERR_ARG : refuse(&p, set, ranks, least, all[least]);
done:
    mem_free(all);
    return st;
}
