/*
 * shard.c - a shard's life, who owns what, and the publication of new weights.
 *
 * Whole arrays are padded to size * chunk elements; padding and the gaps between parameters
 * are zero from the start and stay so.
 */
#include "trainer/run/shard_parts.h"

#include "base/mem.h"

/* ---- sizes ------------------------------------------------------------------------ */

struct shard_sizes shard_sizes(const struct shard_config *c, int32_t size,
                               const struct params *p, int unit)
{
    int64_t chunk = part_chunk(p->unit_len[unit], size), padded = chunk * size;
    struct shard_sizes z = {
        .chunk = chunk,
        .padded = padded,
        .w = shard_is_paged(c, p, unit) ? chunk : padded,
    };

    if (unit < p->frozen) return z;
    z.held = c->stage == 0 && c->train ? padded : chunk;
    z.slot = c->stage < 2 ? padded : chunk;
    return z;
}

/* Slots that the nodes from `first` on take, each of `step` leaves where that is a node,
 * until `end`. */
static int slots_of(int64_t leaves, int64_t first, int64_t end, int64_t step)
{
    struct tree_node stack[TREE_DEPTH];
    int depth = 0, most = 1;

    while (first < end) {
        int64_t count = shard_is_node(leaves, step, first) ? step : 1;

        if (depth + 1 > most) most = depth + 1;
        (void)tree_push(stack, &depth, leaves, (struct tree_node){ first, count });
        first += count;
    }
    return most;
}

int shard_slots(const struct shard_config *c, int32_t size)
{
    int most = 1;

    if (!c->canonical) return 1;
    if (shard_deal(c->stage) == PART_ROUNDS)
        return slots_of(c->leaves, 0, c->leaves, size);
    for (int32_t r = 0; r < size; r++) {
        struct span run = part_leaves(c->leaves, size, r);
        int slots = slots_of(c->leaves, run.begin, run.end, 1);

        if (slots > most) most = slots;
    }
    return most;
}

bool shard_needs_got(const struct shard_config *c, int32_t size)
{
    if (!c->canonical || c->stage < 2) return false;
    for (int64_t first = 0; first < c->leaves; first += size)
        if (!shard_is_node(c->leaves, size, first)) return true;
    return false;
}

/* A tied embedding's gradient waits for the whole backward, its weights for the head. */
static bool is_tied(const struct params *p) { return params_find(p, "head.weight") < 0; }

int shard_works(const struct shard_config *c, enum kern_dtype wide,
                const struct params *p)
{
    if (!c->train || (c->stage < 2 && c->grads == wide)) return 0;
    return 1 + (is_tied(p) && !p->frozen) + (c->stage >= 2);
}

int shard_pages(const struct shard_config *c, const struct params *p)
{
    return c->stage < 3 ? 0 : 2 + is_tied(p);
}

/* Elements of the longest of some units, padded, and its chunk. */
static struct shard_sizes longest(const struct shard_config *c, int32_t size,
                                  const struct params *p, int begin, int end)
{
    struct shard_sizes most = { 0 };

    for (int i = begin; i < end; i++) {
        struct shard_sizes z = shard_sizes(c, size, p, i);

        if (z.padded > most.padded) most = z;
    }
    return most;
}

/* Of those whose gradient moves, and of those that are gathered. */
static int64_t longest_work(const struct shard_config *c, int32_t size,
                            const struct params *p)
{
    return longest(c, size, p, p->frozen, p->units).padded;
}
static int64_t longest_page(const struct shard_config *c, int32_t size,
                            const struct params *p)
{
    return longest(c, size, p, 0, p->frozen ? p->frozen : p->units).padded;
}

/* The share of a frozen unit while it is loaded. */
static size_t fill_bytes(const struct shard_config *c, int32_t size,
                         const struct params *p, enum kern_dtype type,
                         enum kern_dtype wide)
{
    if (type == wide) return 0;
    return (size_t)longest(c, size, p, 0, p->frozen).chunk * kern_dtype_bytes(wide);
}

/* Without training nothing is reduced, and weights stay. */
static struct shard_config effective(const struct shard_config *c)
{
    struct shard_config e = *c;

    if (!e.train && e.stage > 1) e.stage = 1;
    return e;
}

struct shard_bytes shard_plan(const struct params *params, int32_t size,
                              const struct shard_config *config, enum kern_dtype type,
                              enum kern_dtype wide)
{
    struct shard_config c = effective(config);
    size_t elem = kern_dtype_bytes(type), wide_elem = kern_dtype_bytes(wide);
    size_t grad_elem = kern_dtype_bytes(c.grads), room = wide_elem;
    struct shard_bytes b = { 0 };

    for (int i = 0; i < params->units; i++) {
        struct shard_sizes z = shard_sizes(&c, size, params, i);

        b.weights += (size_t)z.w * elem;
        if (type != wide) b.master += (size_t)z.held * wide_elem;
        if (!c.train) continue;
        b.moments += 2 * (size_t)z.held * kern_dtype_bytes(c.moments);
        b.gradients += (size_t)(shard_slots(&c, size) * z.slot) * grad_elem;
    }
    if (c.stage >= 2 && c.grads != wide) room += grad_elem;
    if (shard_needs_got(&c, size)) room += grad_elem;
    b.moving =
        (size_t)longest_work(&c, size, params) * room *
            (size_t)shard_works(&c, wide, params) +
        (size_t)longest_page(&c, size, params) * elem * (size_t)shard_pages(&c, params) +
        fill_bytes(&c, size, params, type, wide);
    return b;
}

/* ---- life ------------------------------------------------------------------------- */

/* A zeroed device array of len elements, counted in *bytes. */
static kr_status array(struct shard *s, char **out, size_t *bytes, int64_t len,
                       enum kern_dtype type, const char *what)
{
    size_t size = (size_t)len * kern_dtype_bytes(type);
    void *at = NULL;

    TRY(kern_alloc(s->device, &at, size, what));
    *out = at;
    *bytes += size;
    return kern_fill(s->q, kern_mat(at, 1, len, type), 0);
}

/* One that moves between ranks in every step. */
static kr_status moving_array(struct shard *s, char **out, size_t *bytes, int64_t len,
                              enum kern_dtype type, const char *what)
{
    TRY(array(s, out, bytes, len, type, what));
    comm_register(s->comm, *out, len * (int64_t)kern_dtype_bytes(type));
    return KR_OK;
}

static void free_moving(struct shard *s, void *at)
{
    comm_unregister(s->comm, at);
    kern_free(s->device, at);
}

/* Does each rank hold all optimizer state? */
static bool keeps_all(const struct shard *s)
{
    return s->config.stage == 0 && s->config.train;
}

static kr_status open_state(struct shard *s, struct unit *u, const struct shard_sizes *z)
{
    struct shard_bytes *b = &s->bytes;
    enum kern_dtype moments = s->config.moments;

    TRY(moving_array(s, &u->w, &b->weights, z->w, s->type, "weights"));
    if (u->frozen) return KR_OK;
    if (s->mixed)
        TRY(array(s, &u->master, &b->master, z->held, s->wide, "master weights"));
    if (!s->config.train) return KR_OK;
    TRY(array(s, &u->m, &b->moments, z->held, moments, "first moments"));
    TRY(array(s, &u->v, &b->moments, z->held, moments, "second moments"));
    for (int i = 0; i < shard_slots(&s->config, comm_size(s->comm)); i++)
        TRY(moving_array(s, &u->slot[i], &b->gradients, z->slot, s->config.grads,
                         "gradients"));
    return KR_OK;
}

static kr_status open_unit(struct shard *s, int unit)
{
    struct unit *u = &s->units[unit];
    struct shard_sizes z = shard_sizes(&s->config, comm_size(s->comm), s->params, unit);
    struct span share;

    u->len = s->params->unit_len[unit];
    u->chunk = z.chunk;
    u->frozen = unit < s->params->frozen;
    u->paged = shard_is_paged(&s->config, s->params, unit);
    share = part_own(u->len, comm_size(s->comm), comm_rank(s->comm));
    s->share[unit] = (struct shard_own){ .unit = unit, .span = share };
    s->own[unit] = s->share[unit];
    if (keeps_all(s) && !u->frozen) s->own[unit].span = (struct span){ 0, u->len };

    TRY(kern_event_open(&u->computed, s->device));
    TRY(kern_event_open(&u->reduced, s->device));
    TRY(kern_event_open(&u->updated, s->device));
    TRY(kern_event_open(&u->published, s->device));
    return open_state(s, u, &z);
}

static kr_status open_works(struct shard *s)
{
    int32_t size = comm_size(s->comm);
    int64_t room = longest_work(&s->config, size, s->params);
    enum kern_dtype grads = s->config.grads;
    size_t *bytes = &s->bytes.moving;

    s->works = shard_works(&s->config, s->wide, s->params);
    for (int i = 0; i < s->works; i++) {
        struct work *w = &s->work[i];

        w->unit = -1;
        TRY(moving_array(s, &w->at, bytes, room, s->wide, "a gradient"));
        if (s->config.stage >= 2 && grads != s->wide)
            TRY(moving_array(s, &w->narrow, bytes, room, grads, "a gradient to send"));
        if (shard_needs_got(&s->config, size))
            TRY(moving_array(s, &w->got, bytes, room, grads, "received gradients"));
    }
    return KR_OK;
}

static kr_status open_pages(struct shard *s)
{
    int64_t room = longest_page(&s->config, comm_size(s->comm), s->params);

    s->pages = shard_pages(&s->config, s->params);
    for (int i = 0; i < s->pages; i++) {
        struct page *p = &s->page[i];

        p->unit = -1;
        TRY(kern_event_open(&p->gathered, s->device));
        TRY(kern_event_open(&p->used, s->device));
        TRY(moving_array(s, &p->at, &s->bytes.moving, room, s->type, "gathered weights"));
    }
    for (int i = 0; i < 2 && s->pages; i++)
        TRY(mem_alloc(&s->traces[i].unit, (size_t)(SHARD_TRACE * s->count), sizeof(int),
                      "order of units"));
    s->trace = &s->traces[0];
    return KR_OK;
}

static kr_status open_checksums(struct shard *s)
{
    size_t bytes = shard_checksum_bytes(s->params, comm_size(s->comm));

    if (!bytes) return KR_OK;
    TRY(kern_alloc(s->device, &s->sums, bytes, "checksums"));
    return kern_alloc_host(s->device, &s->sums_host, bytes, "checksums");
}

/* Device addresses of a span of a unit. */
static void place(const struct shard *s, struct shard_own *o)
{
    const struct unit *u = &s->units[o->unit];
    int64_t at = o->span.begin, held = at - s->own[o->unit].span.begin;
    char *w = shard_shift(u->w, u->paged ? held : at, s->type);

    o->w = s->mixed && u->master ? shard_shift(u->master, held, s->wide) : w;
    if (s->mixed && !u->master) o->w = NULL;
    o->copy = s->mixed ? w : NULL;
    if (!s->config.train || u->frozen) return;
    o->g = shard_shift(u->slot[0], s->config.stage < 2 ? at : held, s->config.grads);
    o->m = shard_shift(u->m, held, s->config.moments);
    o->v = shard_shift(u->v, held, s->config.moments);
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
    s->config = effective(config);
    s->type = kern_device_type(s->device);
    s->wide = kern_device_wide(s->device);
    s->mixed = s->type != s->wide;
    s->face = (struct weights){ s, shard_acquire, shard_release, shard_grads,
                                shard_grads_ready };
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
    TRY_OR(st, open_checksums(s), done);
    TRY_OR(st, open_works(s), done);
    TRY_OR(st, open_pages(s), done);
    s->bytes.moving += fill_bytes(&s->config, comm_size(c), params, s->type, s->wide);
    *out = s;
done:
    if (st != KR_OK) shard_close(s);
    return st;
}

static void close_unit(struct shard *s, struct unit *u)
{
    kern_event_close(u->computed);
    kern_event_close(u->reduced);
    kern_event_close(u->updated);
    kern_event_close(u->published);
    free_moving(s, u->w);
    kern_free(s->device, u->master);
    kern_free(s->device, u->m);
    kern_free(s->device, u->v);
    for (int k = 0; k < TREE_DEPTH; k++)
        free_moving(s, u->slot[k]);
}

void shard_close(struct shard *s)
{
    if (!s) return;
    for (int i = 0; i < s->count; i++)
        close_unit(s, &s->units[i]);
    for (int i = 0; i < SHARD_WORKS; i++) {
        free_moving(s, s->work[i].at);
        free_moving(s, s->work[i].narrow);
        free_moving(s, s->work[i].got);
    }
    for (int i = 0; i < SHARD_PAGES; i++) {
        kern_event_close(s->page[i].gathered);
        kern_event_close(s->page[i].used);
        free_moving(s, s->page[i].at);
    }
    kern_free(s->device, s->sums);
    kern_free_host(s->device, s->sums_host);
    mem_free(s->traces[0].unit);
    mem_free(s->traces[1].unit);
    mem_free(s->units);
    mem_free(s->own);
    mem_free(s->share);
    mem_free(s);
}

/* ---- passes ----------------------------------------------------------------------- */

const struct weights *shard_weights(struct shard *s) { return &s->face; }
struct shard_bytes shard_bytes(const struct shard *s) { return s->bytes; }

void shard_begin(struct shard *s, int64_t step)
{
    s->step = step;
    for (int i = 0; i < s->count; i++)
        s->units[i].depth = 0;
}

static void start_pass(struct shard *s, struct trace *t, int64_t more)
{
    t->whole = t->whole || (t->len > 0 && t->at == t->len);
    t->at = 0;
    s->trace = t;
    s->passes = more;
}

void shard_forward(struct shard *s) { start_pass(s, &s->traces[0], 0); }

void shard_leaf(struct shard *s, int64_t i)
{
    s->turn = i;
    start_pass(s, &s->traces[1], shard_turns(s) - 1 - i);
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

/* ---- publication ------------------------------------------------------------------ */

/* Chunks of all ranks, in place in a padded array. */
static kr_status gather(struct shard *s, const struct unit *u, char *all,
                        enum kern_dtype type)
{
    return comm_all_gather(s->comm, shard_shift(all, u->chunk * comm_rank(s->comm), type),
                           all, u->chunk, type);
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

/* Chunks of the model's weights to whoever keeps them whole. */
static kr_status publish_weights(struct shard *s, struct unit *u)
{
    TRY(kern_event_record(u->updated, s->q));
    if (u->paged) return KR_OK; /* acquire gathers */
    TRY(kern_event_wait(u->updated, comm_queue(s->comm)));
    return gather(s, u, u->w, s->type);
}

static kr_status publish_unit(struct shard *s, int unit, bool all)
{
    struct unit *u = &s->units[unit];
    bool twice = keeps_all(s);

    if (s->config.stage == 0 && !all) return KR_OK;
    if (all) TRY(round_share(s, unit));
    TRY(publish_weights(s, u));
    if (u->paged) return KR_OK;
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

        kern_free(s->device, u->master);
        u->master = NULL;
        s->own[i].w = s->share[i].w = NULL;
    }
    s->bytes.master = 0;
    return KR_OK;
}

kr_status shard_publish(struct shard *s, bool all)
{
    TRY(shard_forget_pages(s));
    for (int i = s->params->frozen; i < s->count; i++)
        TRY(publish_unit(s, i, all));
    return s->mixed && !s->config.train ? drop_masters(s) : KR_OK;
}

/* ---- frozen units ----------------------------------------------------------------- */

kr_status shard_fill(struct shard *s, int unit)
{
    struct unit *u = &s->units[unit];
    void *at = NULL;

    if (!s->mixed) return KR_OK;
    TRY(kern_alloc(s->device, &at, (size_t)u->chunk * kern_dtype_bytes(s->wide),
                   "weights that are loaded"));
    u->master = at;
    s->share[unit].w = u->master;
    return KR_OK;
}

kr_status shard_filled(struct shard *s, int unit)
{
    struct unit *u = &s->units[unit];

    TRY(round_share(s, unit));
    TRY(publish_weights(s, u));
    if (!u->paged) TRY(kern_event_record(u->published, comm_queue(s->comm)));
    if (!s->mixed) return KR_OK;
    TRY(kern_queue_sync(s->q));
    kern_free(s->device, u->master);
    u->master = NULL;
    s->share[unit].w = NULL;
    return KR_OK;
}
