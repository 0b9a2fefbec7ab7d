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
    char *w, *m, *v;        /* device; m and v start at moment_begin */
    char *slot[TREE_DEPTH]; /* gradients; slot[0] ends up with the sum */
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
    size_t elem, bytes;
    enum kern_dtype type;
};

static struct kern_mat flat(const struct shard *s, void *at, int64_t len)
{
    return kern_mat(at, 1, len, s->type);
}

/* A zeroed device array of len elements. */
static kr_status array(struct shard *s, char **out, int64_t len, const char *what)
{
    void *at = NULL;

    TRY(kern_alloc(s->device, &at, (size_t)len * s->elem, what));
    *out = at;
    s->bytes += (size_t)len * s->elem;
    return kern_fill(s->q, flat(s, at, len), 0);
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

    if (!u->slot[slot]) TRY(array(s, &u->slot[slot], padded(s, u), "gradients"));
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
    char *own = u->slot[0] + (size_t)(u->chunk * comm_rank(s->comm)) * s->elem;
    void *at[TREE_DEPTH];

    for (int i = 0; i < u->depth; i++)
        at[i] = u->slot[i];
    TRY(kern_event_record(u->computed, s->q));
    TRY(kern_event_wait(u->computed, comm_queue(s->comm)));
    if (s->config.canonical)
        TRY(comm_reduce_tree(s->comm, s->config.leaves, u->stack, at, u->depth, own,
                             u->chunk, s->type));
    else
        TRY(comm_reduce_scatter(s->comm, u->slot[0], own, u->chunk, s->type));
    if (s->config.stage == 0)
        TRY(comm_all_gather(s->comm, own, u->slot[0], u->chunk, s->type));
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

static kr_status open_unit(struct shard *s, int unit)
{
    struct unit *u = &s->units[unit];
    struct span own = { 0, 0 }, share;

    u->len = s->params->unit_len[unit];
    u->chunk = part_chunk(u->len, comm_size(s->comm));
    share = part_own(u->len, comm_size(s->comm), comm_rank(s->comm));
    own = s->config.stage == 0 ? (struct span){ 0, u->len } : share;

    TRY(kern_event_open(&u->computed, s->device));
    TRY(kern_event_open(&u->reduced, s->device));
    TRY(kern_event_open(&u->updated, s->device));
    TRY(kern_event_open(&u->published, s->device));
    TRY(array(s, &u->w, padded(s, u), "weights"));
    if (s->config.train) {
        int64_t moments = s->config.stage == 0 ? padded(s, u) : u->chunk;

        TRY(array(s, &u->m, moments, "first moments"));
        TRY(array(s, &u->v, moments, "second moments"));
        TRY(array(s, &u->slot[0], padded(s, u), "gradients"));
    }
    s->own[unit] = (struct shard_own){ .unit = unit, .span = own };
    s->share[unit] = (struct shard_own){ .unit = unit, .span = share };
    return KR_OK;
}

/* Device addresses of a span of a unit. */
static void place(const struct shard *s, struct shard_own *o)
{
    const struct unit *u = &s->units[o->unit];
    size_t at = (size_t)o->span.begin * s->elem;
    size_t held = (size_t)(o->span.begin - s->own[o->unit].span.begin) * s->elem;

    o->w = u->w + at;
    if (!s->config.train) return;
    o->g = u->slot[0] + at;
    o->m = u->m + held;
    o->v = u->v + held;
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
    s->elem = kern_dtype_bytes(s->type);
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
static kr_status gather(struct shard *s, const struct unit *u, char *all)
{
    size_t at = (size_t)(u->chunk * comm_rank(s->comm)) * s->elem;

    return comm_all_gather(s->comm, all + at, all, u->chunk, s->type);
}

static kr_status publish_unit(struct shard *s, struct unit *u, bool all)
{
    bool twice = s->config.stage == 0 && s->config.train;

    if (s->config.stage == 0 && !all) return KR_OK;
    TRY(kern_event_record(u->updated, s->q));
    TRY(kern_event_wait(u->updated, comm_queue(s->comm)));
    TRY(gather(s, u, u->w));
    if (all && twice) TRY(gather(s, u, u->m));
    if (all && twice) TRY(gather(s, u, u->v));
    return kern_event_record(u->published, comm_queue(s->comm));
}

kr_status shard_publish(struct shard *s, bool all)
{
    for (int i = 0; i < s->count; i++)
        TRY(publish_unit(s, &s->units[i], all));
    return KR_OK;
}
