/*
 * shard.c - flat arrays per unit, their reduction and their publication.
 *
 * Every array of a unit is padded to size * chunk elements, so collectives see equal
 * counts; padding and the gaps between parameters are zero from the start and nobody
 * ever writes them, hence they reduce to zero.
 */
#include "trainer/run/shard.h"

#include <string.h>

#include "base/mem.h"
#include "kernels/kernels.h"

struct unit {
    int64_t len, chunk;     /* elements */
    char *w;                /* device, what the model computes with */
    char *master, *m, *v;   /* only what is held, see place() */
    char *slot[TREE_DEPTH]; /* gradients, wide; slot[0] ends up with the sum */
    struct tree_node stack[TREE_DEPTH];
    int depth;                    /* nodes on the stack = slots in use */
    struct kern_event *computed;  /* compute queue: gradient final */
    struct kern_event *reduced;   /* comm queue: gradient summed */
    struct kern_event *updated;   /* compute queue: own weights are new */
    struct kern_event *published; /* comm queue: all weights are new */
};

struct shard {
    const struct params *params;
    struct comm *comm;
    struct kern_queue *q;
    struct kern_device *device;
    struct shard_config config;
    struct weights face;
    struct unit *units;
    struct shard_own *own, *share;
    int count;
    int64_t leaf; /* of the micro-batch that runs */
    size_t bytes;
    enum kern_dtype type, wide; /* of the device */
    bool mixed;                 /* they differ: weights exist twice */
};

/* Elements of a gradient. */
static struct kern_mat flat(const struct shard *s, void *at, int64_t len)
{
    return kern_mat(at, 1, len, s->wide);
}

static char *shift(char *array, int64_t elements, enum kern_dtype type)
{
    return array + (size_t)elements * kern_dtype_bytes(type);
}

/* A zeroed device array of len elements. */
static kr_status array(struct shard *s, char **out, int64_t len, enum kern_dtype type,
                       const char *what)
{
    size_t bytes = (size_t)len * kern_dtype_bytes(type);
    void *at = NULL;

    TRY(kern_alloc(s->device, &at, bytes, what));
    *out = at;
    s->bytes += bytes;
    return kern_fill(s->q, kern_mat(at, 1, len, type), 0);
}

static int64_t padded(const struct shard *s, const struct unit *u)
{
    return u->chunk * comm_size(s->comm);
}

/* This rank's leaves. */
static struct span leaves_of(const struct shard *s)
{
    return part_leaves(s->config.leaves, comm_size(s->comm), comm_rank(s->comm));
}

/* ---- weights.h -------------------------------------------------------------------- */

static kr_status acquire(void *self, int unit, void **out)
{
    struct shard *s = self;

    TRY(kern_event_wait(s->units[unit].published, s->q));
    *out = s->units[unit].w;
    return KR_OK;
}

static void release(void *self, int unit)
{
    (void)self;
    (void)unit; /* stages 0 and 1 keep all weights */
}

static bool first_leaf(const struct shard *s) { return s->leaf == leaves_of(s).begin; }
static bool last_leaf(const struct shard *s) { return s->leaf == leaves_of(s).end - 1; }

static kr_status grads(void *self, int unit, void **out, bool *add)
{
    struct shard *s = self;
    struct unit *u = &s->units[unit];
    int slot = s->config.canonical ? u->depth : 0;

    if (!u->slot[slot]) TRY(array(s, &u->slot[slot], padded(s, u), s->wide, "gradients"));
    *out = u->slot[slot];
    *add = !s->config.canonical && !first_leaf(s);
    return KR_OK;
}

/* Put the leaf just computed on the unit's stack; join what belongs together. */
static kr_status push_leaf(struct shard *s, struct unit *u)
{
    int joins = tree_push(u->stack, &u->depth, s->config.leaves,
                          (struct tree_node){ s->leaf, 1 });

    for (int left = u->depth - 2 + joins; joins > 0; joins--, left--) {
        struct kern_mat a = flat(s, u->slot[left], u->len);

        TRY(kern_add(s->q, a, a, flat(s, u->slot[left + 1], u->len)));
    }
    return KR_OK;
}

static kr_status start_reduction(struct shard *s, struct unit *u)
{
    char *own = shift(u->slot[0], u->chunk * comm_rank(s->comm), s->wide);
    void *at[TREE_DEPTH];

    for (int i = 0; i < u->depth; i++)
        at[i] = u->slot[i];
    TRY(kern_event_record(u->computed, s->q));
    TRY(kern_event_wait(u->computed, comm_queue(s->comm)));
    if (s->config.canonical)
        TRY(comm_reduce_tree(s->comm, s->config.leaves, u->stack, at, u->depth, own,
                             u->chunk, s->wide));
    else
        TRY(comm_reduce_scatter(s->comm, u->slot[0], own, u->chunk, s->wide));
    if (s->config.stage == 0)
        TRY(comm_all_gather(s->comm, own, u->slot[0], u->chunk, s->wide));
    return kern_event_record(u->reduced, comm_queue(s->comm));
}

static kr_status grads_ready(void *self, int unit)
{
    struct shard *s = self;
    struct unit *u = &s->units[unit];

    if (s->config.canonical) TRY(push_leaf(s, u));
    return last_leaf(s) ? start_reduction(s, u) : KR_OK;
}

/* ---- life ------------------------------------------------------------------------- */

/* Does each rank hold all optimizer state? */
static bool keeps_all(const struct shard *s)
{
    return s->config.stage == 0 && s->config.train;
}

static kr_status open_unit(struct shard *s, int unit)
{
    struct unit *u = &s->units[unit];
    struct span own, share;
    int64_t held;

    u->len = s->params->unit_len[unit];
    u->chunk = part_chunk(u->len, comm_size(s->comm));
    share = part_own(u->len, comm_size(s->comm), comm_rank(s->comm));
    own = keeps_all(s) ? (struct span){ 0, u->len } : share;
    held = keeps_all(s) ? padded(s, u) : u->chunk;

    TRY(kern_event_open(&u->computed, s->device));
    TRY(kern_event_open(&u->reduced, s->device));
    TRY(kern_event_open(&u->updated, s->device));
    TRY(kern_event_open(&u->published, s->device));
    TRY(array(s, &u->w, padded(s, u), s->type, "weights"));
    if (s->mixed) TRY(array(s, &u->master, held, s->wide, "master weights"));
    if (s->config.train) {
        TRY(array(s, &u->m, held, s->config.moments, "first moments"));
        TRY(array(s, &u->v, held, s->config.moments, "second moments"));
        TRY(array(s, &u->slot[0], padded(s, u), s->wide, "gradients"));
    }
    s->own[unit] = (struct shard_own){ .unit = unit, .span = own };
    s->share[unit] = (struct shard_own){ .unit = unit, .span = share };
    return KR_OK;
}

/* Device addresses of a span of a unit. */
static void place(const struct shard *s, struct shard_own *o)
{
    const struct unit *u = &s->units[o->unit];
    int64_t at = o->span.begin, held = at - s->own[o->unit].span.begin;

    o->w = s->mixed ? shift(u->master, held, s->wide) : shift(u->w, at, s->type);
    o->copy = s->mixed ? shift(u->w, at, s->type) : NULL;
    if (!s->config.train) return;
    o->g = shift(u->slot[0], at, s->wide);
    o->m = shift(u->m, held, s->config.moments);
    o->v = shift(u->v, held, s->config.moments);
}

kr_status shard_open(struct shard **out, const struct params *params, struct comm *c,
                     struct kern_queue *q, const struct shard_config *config)
{
    kr_status st = KR_OK;
    struct shard *s = NULL;

    TRY(mem_alloc(&s, 1, sizeof *s, "shard"));
    s->params = params;
    s->comm = c;
    s->q = q;
    s->device = kern_queue_device(q);
    s->config = *config;
    s->type = kern_device_type(s->device);
    s->wide = kern_device_wide(s->device);
    s->mixed = s->type != s->wide;
    s->face = (struct weights){ s, acquire, release, grads, grads_ready };
    TRY_OR(st, mem_alloc(&s->units, (size_t)params->units, sizeof *s->units, "units"),
           done);
    TRY_OR(st, mem_alloc(&s->own, (size_t)params->units, sizeof *s->own, "spans"), done);
    TRY_OR(st, mem_alloc(&s->share, (size_t)params->units, sizeof *s->share, "spans"),
           done);
    s->count = params->units;
    for (int i = 0; i < s->count; i++) {
        TRY_OR(st, open_unit(s, i), done);
        place(s, &s->own[i]);
        place(s, &s->share[i]);
    }
    *out = s;
done:
    if (st != KR_OK) shard_close(s);
    return st;
}

void shard_close(struct shard *s)
{
    if (!s) return;
    for (int i = 0; i < s->count; i++) {
        struct unit *u = &s->units[i];

        kern_event_close(u->computed);
        kern_event_close(u->reduced);
        kern_event_close(u->updated);
        kern_event_close(u->published);
        kern_free(s->device, u->w);
        kern_free(s->device, u->master);
        kern_free(s->device, u->m);
        kern_free(s->device, u->v);
        for (int k = 0; k < TREE_DEPTH; k++)
            kern_free(s->device, u->slot[k]);
    }
    mem_free(s->units);
    mem_free(s->own);
    mem_free(s->share);
    mem_free(s);
}

const struct weights *shard_weights(struct shard *s) { return &s->face; }
size_t shard_bytes(const struct shard *s) { return s->bytes; }

void shard_begin(struct shard *s)
{
    for (int i = 0; i < s->count; i++)
        s->units[i].depth = 0;
}

void shard_leaf(struct shard *s, int64_t leaf) { s->leaf = leaf; }

kr_status shard_finish(struct shard *s)
{
    for (int i = s->count - 1; i >= 0; i--)
        TRY(kern_event_wait(s->units[i].reduced, s->q));
    return KR_OK;
}

const struct shard_own *shard_own(const struct shard *s, int *count)
{
    *count = s->count;
    return s->own;
}

const struct shard_own *shard_share(const struct shard *s, int *count)
{
    *count = s->count;
    return s->share;
}

/* Chunks of all ranks, in place in a padded array. */
static kr_status gather(struct shard *s, const struct unit *u, char *all,
                        enum kern_dtype type)
{
    return comm_all_gather(s->comm, shift(all, u->chunk * comm_rank(s->comm), type), all,
                           u->chunk, type);
}

/* The model's weights of this rank's share, from loaded master weights. */
static kr_status round_share(struct shard *s, int unit)
{
    const struct shard_own *o = &s->share[unit];
    int64_t n = o->span.end - o->span.begin;

    if (!s->mixed || n == 0) return KR_OK;
    return kern_copy(s->q, kern_mat(o->copy, 1, n, s->type),
                     kern_mat(o->w, 1, n, s->wide));
}

static kr_status publish_unit(struct shard *s, int unit, bool all)
{
    struct unit *u = &s->units[unit];
    bool twice = keeps_all(s);

    if (s->config.stage == 0 && !all) return KR_OK;
    if (all) TRY(round_share(s, unit));
    TRY(kern_event_record(u->updated, s->q));
    TRY(kern_event_wait(u->updated, comm_queue(s->comm)));
    TRY(gather(s, u, u->w, s->type));
    if (all && twice && s->mixed) TRY(gather(s, u, u->master, s->wide));
    if (all && twice) TRY(gather(s, u, u->m, s->config.moments));
    if (all && twice) TRY(gather(s, u, u->v, s->config.moments));
    return kern_event_record(u->published, comm_queue(s->comm));
}

/* Without training nobody needs master weights once they are published. */
static kr_status drop_masters(struct shard *s)
{
    TRY(kern_queue_sync(s->q));
    for (int i = 0; i < s->count; i++) {
        struct unit *u = &s->units[i];

        if (u->master) s->bytes -= (size_t)u->chunk * kern_dtype_bytes(s->wide);
        kern_free(s->device, u->master);
        u->master = NULL;
        s->own[i].w = s->share[i].w = NULL;
    }
    return KR_OK;
}

kr_status shard_publish(struct shard *s, bool all)
{
    for (int i = 0; i < s->count; i++)
        TRY(publish_unit(s, i, all));
    return s->mixed && !s->config.train ? drop_masters(s) : KR_OK;
}
