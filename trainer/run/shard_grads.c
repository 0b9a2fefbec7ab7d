/*
 * shard_grads.c - gradients of micro-batches become one sum.
 *
 * Where slots hold whole gradients in the wide type, a micro-batch is computed right in
 * the next slot.  Else it is computed in a room for one unit (struct work) and goes to the
 * slot from there: rounded (bf16), reduced to the own chunk (stages 2 and 3), or both.
 *
 * Gaps between parameters and the padding count in sums of squares and in reductions, so
 * they are zero: slots from the start, rooms whenever they change their unit.
 */
#include "trainer/run/shard_parts.h"

static bool keeps_chunks(const struct shard *s) { return s->config.stage >= 2; }
static bool is_narrow(const struct shard *s) { return s->config.grads != s->wide; }

static enum part_deal deal_of(const struct shard *s)
{
    return shard_deal(s->config.stage);
}

int64_t shard_turns(const struct shard *s)
{
    return part_leaf_count(deal_of(s), s->config.leaves, comm_size(s->comm),
                           comm_rank(s->comm));
}

/* The micro-batch that runs; -1: none, for lack of more in this round. */
static int64_t leaf_of(const struct shard *s)
{
    return part_leaf(deal_of(s), s->config.leaves, comm_size(s->comm), comm_rank(s->comm),
                     s->turn);
}

static struct kern_mat row(void *at, int64_t len, enum kern_dtype type)
{
    return kern_mat(at, 1, len, type);
}

/* ---- sums in slots ------------------------------------------------------------------ */

/* Elements of a slot that are added, and the number of the first. */
static int64_t slot_len(const struct shard *s, const struct unit *u)
{
    return keeps_chunks(s) ? u->chunk : u->len;
}
static int64_t slot_first(const struct shard *s, const struct unit *u)
{
    return keeps_chunks(s) ? u->chunk * comm_rank(s->comm) : 0;
}

static uint64_t key_of(const struct shard *s, const struct unit *u)
{
    return shard_round_key(s->config.seed, s->step, (int)(u - s->units), ROUND_GRADS);
}

/* slot[left] += slot[left + 1].  A sum of bf16 is rounded by the first micro-batch of its
 * right operand: no two sums of the tree share it. */
static kr_status join(struct shard *s, struct unit *u, int left)
{
    struct kern_mat a = row(u->slot[left], slot_len(s, u), s->config.grads);
    struct kern_mat b = row(u->slot[left + 1], slot_len(s, u), s->config.grads);
    struct kern_round r = { key_of(s, u), (uint32_t)u->stack[left + 1].first,
                            slot_first(s, u) };

    return is_narrow(s) ? kern_add_round(s->q, a, a, b, &r) : kern_add(s->q, a, a, b);
}

/* slot[depth] holds `node`: put it on the unit's stack, join what belongs together. */
static kr_status push(struct shard *s, struct unit *u, struct tree_node node)
{
    int joins = tree_push(u->stack, &u->depth, s->config.leaves, node);

    for (int left = u->depth - 2 + joins; joins > 0; joins--, left--)
        TRY(join(s, u, left));
    return KR_OK;
}

/* to (bf16) = the micro-batch in w, rounded by its number. */
static kr_status round_leaf(struct shard *s, struct unit *u, const struct work *w,
                            char *to, int64_t len)
{
    struct kern_round r = { key_of(s, u), (uint32_t)leaf_of(s) | 0x80000000u, 0 };

    return kern_add_round(s->q, row(to, len, KERN_BF16), kern_none,
                          row(w->at, len, s->wide), &r);
}

/* ---- once a step: stages 0 and 1 ---------------------------------------------------- */

static kr_status reduce_step(struct shard *s, struct unit *u)
{
    enum kern_dtype type = s->config.grads;
    char *own = shard_shift(u->slot[0], u->chunk * comm_rank(s->comm), type);
    struct comm_rounding rounding = { key_of(s, u), 0 };
    void *at[TREE_DEPTH];

    for (int i = 0; i < u->depth; i++)
        at[i] = u->slot[i];
    TRY(kern_event_record(u->computed, s->q));
    TRY(kern_event_wait(u->computed, comm_queue(s->comm)));
    if (is_narrow(s))
        TRY(comm_reduce_tree_bf16(s->comm, s->config.leaves, u->stack, at, u->depth, own,
                                  u->chunk, rounding));
    else if (s->config.canonical)
        TRY(comm_reduce_tree(s->comm, s->config.leaves, u->stack, at, u->depth, own,
                             u->chunk, type));
    else if (s->config.stage == 0)
        TRY(comm_all_reduce(s->comm, u->slot[0], u->chunk, type));
    else
        TRY(comm_reduce_scatter(s->comm, u->slot[0], own, u->chunk, type));
    if (s->config.stage == 0 && s->config.canonical)
        TRY(comm_all_gather(s->comm, own, u->slot[0], u->chunk, type));
    return kern_event_record(u->reduced, comm_queue(s->comm));
}

/* ---- once a round: stages 2 and 3 --------------------------------------------------- */

/* What is sent, and in which type. */
static char *outgoing(const struct work *w) { return w->narrow ? w->narrow : w->at; }

/* Micro-batches of a round. */
static int64_t round_count(const struct shard *s, int64_t round)
{
    int64_t size = comm_size(s->comm), left = s->config.leaves - round * size;

    return left < size ? left : size;
}

/* Is a round one node of the tree? */
static bool is_node(const struct shard *s, int64_t round)
{
    int32_t size = comm_size(s->comm);

    return shard_is_node(s->config.leaves, size, round * size);
}

/* This rank's chunk in an array of all chunks. */
static char *own_chunk(const struct shard *s, const struct unit *u, char *all)
{
    return shard_shift(all, u->chunk * comm_rank(s->comm), s->config.grads);
}

static kr_status exchange_round(struct shard *s, const struct unit *u,
                                const struct work *w)
{
    enum kern_dtype type = s->config.grads;
    int32_t size = comm_size(s->comm);
    struct comm_rounding rounding = { key_of(s, u), w->round * size };
    struct tree_node mine = { comm_rank(s->comm), 1 };
    void *out = outgoing(w);
    char *own = own_chunk(s, u, out);

    if (!s->config.canonical)
        return comm_reduce_scatter(s->comm, out, own, u->chunk, type);
    if (!is_node(s, w->round))
        return comm_all_to_all(s->comm, out, w->got, u->chunk, type);
    if (is_narrow(s))
        return comm_reduce_tree_bf16(s->comm, size, &mine, &out, 1, own, u->chunk,
                                     rounding);
    return comm_reduce_tree(s->comm, size, &mine, &out, 1, own, u->chunk, type);
}

static kr_status start_round(struct shard *s, struct unit *u)
{
    struct work *w = u->work;

    w->round = s->turn;
    w->under_way = true;
    w->number = ++s->numbers;
    TRY(kern_event_record(u->computed, s->q));
    TRY(kern_event_wait(u->computed, comm_queue(s->comm)));
    TRY(exchange_round(s, u, w));
    return kern_event_record(u->reduced, comm_queue(s->comm));
}

/* The chunk at `from` is the sum `node`. */
static kr_status take_chunk(struct shard *s, struct unit *u, char *from,
                            struct tree_node node)
{
    TRY(kern_copy(s->q, row(u->slot[u->depth], u->chunk, s->config.grads),
                  row(from, u->chunk, s->config.grads)));
    return push(s, u, node);
}

/* Library order: rounds are added as they come. */
static kr_status add_chunk(struct shard *s, struct unit *u, char *from)
{
    struct kern_mat sum = row(u->slot[0], u->chunk, s->config.grads);
    struct kern_mat part = row(from, u->chunk, s->config.grads);

    if (u->depth++ == 0) return kern_copy(s->q, sum, part);
    return kern_add(s->q, sum, sum, part);
}

/* What came of a round goes to the unit's slots, and its room is free. */
static kr_status settle(struct shard *s, struct work *w)
{
    struct unit *u = &s->units[w->unit];
    int64_t first = w->round * comm_size(s->comm), count = round_count(s, w->round);
    char *own = own_chunk(s, u, outgoing(w));

    w->unit = -1;
    w->under_way = false;
    u->work = NULL;
    TRY(kern_event_wait(u->reduced, s->q));
    if (!s->config.canonical) return add_chunk(s, u, own);
    if (is_node(s, w->round))
        return take_chunk(s, u, own, (struct tree_node){ first, count });
    for (int64_t i = 0; i < count; i++)
        TRY(take_chunk(s, u, shard_shift(w->got, i * u->chunk, s->config.grads),
                       (struct tree_node){ first + i, 1 }));
    return KR_OK;
}

/* ---- rooms -------------------------------------------------------------------------- */

/* Free, else the reduction that began first; a room where one computes is neither. */
static struct work *next_work(struct shard *s)
{
    struct work *best = NULL;

    for (int i = 0; i < s->works; i++) {
        struct work *w = &s->work[i];

        if (w->unit < 0) return w;
        if (w->under_way && (!best || w->number < best->number)) best = w;
    }
    return best;
}

static kr_status clear_gaps(struct shard *s, int unit, char *at)
{
    const struct params *p = s->params;
    int64_t done = 0, end = shard_padded(s, &s->units[unit]);

    for (int32_t i = 0; i <= p->count; i++) {
        const struct param *par = i < p->count ? &p->list[i] : NULL;
        int64_t next = par ? par->offset : end;

        if (par && par->unit != unit) continue;
        if (next > done)
            TRY(kern_fill(s->q, row(shard_shift(at, done, s->wide), next - done, s->wide),
                          0));
        if (par) done = par->offset + par->rows * par->cols;
    }
    return KR_OK;
}

static kr_status take_work(struct shard *s, int unit)
{
    struct unit *u = &s->units[unit];
    struct work *w = u->work;

    if (w && !w->under_way) return KR_OK; /* where it is being computed */
    if (w) TRY(settle(s, w));
    w = next_work(s);
    if (!w)
        return KR_FAIL(KR_ERR_ARG, "unit %d: more than %d gradients at a time", unit,
                       s->works);
    if (w->unit >= 0) TRY(settle(s, w));
    w->unit = unit;
    u->work = w;
    return clear_gaps(s, unit, w->at);
}

/* ---- weights.h ---------------------------------------------------------------------- */

kr_status shard_grads(void *self, int unit, void **out, bool *add)
{
    struct shard *s = self;
    struct unit *u = &s->units[unit];

    if (s->works) {
        TRY(take_work(s, unit));
        *out = u->work->at;
        *add = false;
        return KR_OK;
    }
    *out = u->slot[s->config.canonical ? u->depth : 0];
    *add = !s->config.canonical && s->turn > 0;
    return KR_OK;
}

/* From the room to where the unit keeps or sends it. */
static kr_status leave_room(struct shard *s, struct unit *u)
{
    struct work *w = u->work;

    if (keeps_chunks(s)) {
        if (w->narrow) TRY(round_leaf(s, u, w, w->narrow, shard_padded(s, u)));
        return start_round(s, u);
    }
    w->unit = -1;
    u->work = NULL;
    return round_leaf(s, u, w, u->slot[u->depth], u->len);
}

kr_status shard_grads_ready(void *self, int unit)
{
    struct shard *s = self;
    struct unit *u = &s->units[unit];

    if (s->works) TRY(leave_room(s, u));
    if (keeps_chunks(s)) return KR_OK;
    if (s->config.canonical) TRY(push(s, u, (struct tree_node){ leaf_of(s), 1 }));
    return s->turn == shard_turns(s) - 1 ? reduce_step(s, u) : KR_OK;
}

kr_status shard_finish(struct shard *s)
{
    for (int i = 0; i < s->works; i++)
        if (s->work[i].unit >= 0 && s->work[i].under_way) TRY(settle(s, &s->work[i]));
    for (int i = s->count - 1; i >= s->params->frozen; i--)
        TRY(kern_event_wait(s->units[i].reduced, s->q));
    return shard_forget_pages(s);
}
