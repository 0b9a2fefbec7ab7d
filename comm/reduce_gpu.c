/*
 * reduce_gpu.c - the canonical reduction on two streams: exchange segments, add, in order.
 *
 * The same exchanges and sums as reduce.c, without waiting.  Segments are exchanged on the
 * link's queue and added on another, in the same order, so that one is added while the next
 * is on its way; two halves of the scratch memory take turns.  The link's queue goes on to
 * what needs the sums when all are made.  Segments are large (a group of messages and a
 * kernel each cost several microseconds), and one kernel adds all chunks of an exchange.
 */
#include "comm/reduce.h"

#include "base/mem.h"
#include "comm/part.h"
#include "kernels/kernels.h"

enum { LEAST = PART_ALIGN }; /* elements of a chunk in a segment */

static char *shift(const void *at, int64_t bytes)
{
    return (char *)(uintptr_t)at + bytes;
}

/* ---- two queues ----------------------------------------------------------------------- */

kr_status comm_adder_open(struct comm_adder *a, struct kern_device *d)
{
    TRY(kern_queue_open(&a->queue, d, KERN_QUEUE_BACKGROUND));
    for (int i = 0; i < 2; i++) {
        TRY(kern_event_open(&a->full[i], d));
        TRY(kern_event_open(&a->free[i], d));
    }
    return KR_OK;
}

void comm_adder_close(struct comm_adder *a)
{
    for (int i = 0; i < 2; i++) {
        if (a->full[i]) kern_event_close(a->full[i]);
        if (a->free[i]) kern_event_close(a->free[i]);
    }
    kern_queue_close(a->queue);
    *a = (struct comm_adder){ 0 };
}

/* Elements begin .. begin + len of chunks, and the half of the scratch where they arrive. */
struct segment {
    int64_t begin, len;
    int half;
    char *room;
};

/* Receiving waits until the sums of the last but one segment are made. */
static kr_status begin_segment(struct comm_link *l, const struct segment *g)
{
    return kern_event_wait(l->adder.free[g->half], l->queue);
}

static kr_status segment_is_here(struct comm_link *l, const struct segment *g)
{
    TRY(kern_event_record(l->adder.full[g->half], l->queue));
    return kern_event_wait(l->adder.full[g->half], l->adder.queue);
}

static kr_status end_segment(struct comm_link *l, const struct segment *g)
{
    return kern_event_record(l->adder.free[g->half], l->adder.queue);
}

/* The link's queue goes on when all sums so far are made. */
static kr_status end_sums(struct comm_link *l)
{
    TRY(kern_event_wait(l->adder.free[0], l->queue));
    return kern_event_wait(l->adder.free[1], l->queue);
}

static kr_status make_room(struct comm_link *l, size_t bytes)
{
    struct kern_device *d = kern_queue_device(l->queue);

    if (bytes <= l->scratch_bytes) return KR_OK;
    kern_free(d, l->scratch); /* waits for those who use it */
    l->scratch = NULL;
    l->scratch_bytes = 0;
    TRY(kern_alloc(d, &l->scratch, bytes, "room for what reductions receive"));
    l->scratch_bytes = bytes;
    return KR_OK;
}

/* Elements of each of `pieces` that arrive in one segment, half of what is under way. */
static int64_t part_of(int64_t segment, int64_t pieces, int64_t chunk,
                       enum kern_dtype type)
{
    int64_t most = segment / 2 / pieces / (int64_t)kern_dtype_bytes(type) / LEAST * LEAST;

    if (most < LEAST) most = LEAST;
    return most < chunk ? most : chunk;
}

/* Bytes of one or, if there are several, of two segments. */
static int64_t room_of(int64_t pieces, int64_t most, int64_t chunk, enum kern_dtype type)
{
    return (most < chunk ? 2 : 1) * pieces * most * (int64_t)kern_dtype_bytes(type);
}

static int64_t room_for(int64_t pieces, int64_t chunk, enum kern_dtype type)
{
    return room_of(pieces, part_of(COMM_SEGMENT, pieces, chunk, type), chunk, type);
}

size_t comm_tree_bytes(int64_t leaves, int32_t size, int64_t chunk, enum kern_dtype type)
{
    int64_t most = 0;

    if (size == 1) return 0;
    if (!comm_reduce_is_cube(leaves, size))
        return (size_t)room_for(comm_reduce_count(leaves, size), chunk, type);
    for (int32_t bit = 1; bit < size; bit *= 2) {
        int64_t bytes = room_for(size / (2 * bit), chunk, type);

        if (bytes > most) most = bytes;
    }
    return (size_t)most;
}

/* Cut chunks into segments of which `pieces` arrive at a time, and call for each. */
static kr_status each_segment(struct comm_link *l, const struct comm_tree *t,
                              int64_t pieces,
                              kr_status (*call)(void *arg, const struct segment *g),
                              void *arg)
{
    int64_t most = part_of(l->segment, pieces, t->chunk, t->type);
    int64_t bytes = pieces * most * (int64_t)kern_dtype_bytes(t->type);
    struct segment g = { 0 };

    TRY(make_room(l, (size_t)room_of(pieces, most, t->chunk, t->type)));
    for (; g.begin < t->chunk; g.begin += most, g.half ^= 1) {
        g.len = t->chunk - g.begin < most ? t->chunk - g.begin : most;
        g.room = shift(l->scratch, g.half * bytes);
        TRY(begin_segment(l, &g));
        TRY(call(arg, &g));
        TRY(end_segment(l, &g));
    }
    return end_sums(l);
}

static kr_status message(struct comm_link *l, void *at, int64_t bytes, int32_t peer,
                         bool is_out)
{
    struct comm_message m = { .at = at, .bytes = bytes, .peer = peer, .is_out = is_out };

    return l->ops->start(l, &m);
}

/* ---- a power of two ------------------------------------------------------------------- */

/* One exchange, see cube_step of reduce.c: chunks first, first + step, ... stay here. */
struct step {
    struct comm_link *l;
    const struct comm_tree *t;
    int32_t peer, bit, rows;
    int64_t first, step, elem; /* chunks; bytes */
    int64_t boundary;          /* leaf that the right operands begin with */
};

static kr_status exchange(const struct step *s, const struct segment *g)
{
    int64_t bytes = g->len * s->elem;

    for (int32_t i = 0; i < s->rows; i++) {
        int64_t c = s->first + s->step * i;
        int64_t theirs = ((c ^ s->bit) * s->t->chunk + g->begin) * s->elem;

        TRY(message(s->l, g->room + i * bytes, bytes, s->peer, false));
        TRY(message(s->l, shift(s->t->at[0], theirs), bytes, s->peer, true));
    }
    return s->l->ops->wait(s->l, NULL, 0);
}

static kr_status add_rounded(const struct step *s, struct kern_mat sum, struct kern_mat a,
                             struct kern_mat b, int64_t begin)
{
    for (int32_t i = 0; i < s->rows; i++) {
        struct kern_round r = comm_reduce_round(
            s->t, s->boundary, (s->first + s->step * i) * s->t->chunk + begin);

        TRY(kern_add_round(s->l->adder.queue, kern_rows(sum, i, 1), kern_rows(a, i, 1),
                           kern_rows(b, i, 1), &r));
    }
    return KR_OK;
}

static kr_status add(const struct step *s, const struct segment *g)
{
    const struct comm_tree *t = s->t;
    struct kern_mat got = kern_mat(g->room, s->rows, g->len, t->type), mine = got, sum;

    mine.at = shift(t->at[0], (s->first * t->chunk + g->begin) * s->elem);
    mine.ld = s->step * t->chunk;
    sum = mine;
    if (s->step == s->l->size) sum.at = shift(t->own, g->begin * s->elem);
    if (t->type == KERN_BF16) return add_rounded(s, sum, mine, got, g->begin);
    return kern_add(s->l->adder.queue, sum, mine, got);
}

/* What is sent is not what is added to: chunks of the peer's half, and of this rank's. */
static kr_status cube_segment(void *arg, const struct segment *g)
{
    const struct step *s = arg;

    TRY(exchange(s, g));
    TRY(segment_is_here(s->l, g));
    return add(s, g);
}

static kr_status reduce_cube(struct comm_link *l, const struct comm_tree *t)
{
    for (int32_t bit = 1; bit < l->size; bit *= 2) {
        struct step s = { .l = l,
                          .t = t,
                          .peer = l->rank ^ bit,
                          .bit = bit,
                          .rows = l->size / (2 * bit),
                          .first = l->rank & (2 * bit - 1),
                          .step = 2 * bit,
                          .elem = (int64_t)kern_dtype_bytes(t->type),
                          .boundary =
                              t->leaves / l->size * ((l->rank | bit) / bit * bit) };

        TRY(each_segment(l, t, s.rows, cube_segment, &s));
    }
    return KR_OK;
}

/* ---- any number of ranks -------------------------------------------------------------- */

struct gather {
    struct comm_link *l;
    const struct comm_tree *t;
    struct comm_parts parts;
    int64_t elem; /* bytes */
};

/* The nodes of all ranks from element `begin` of this rank's chunk on; theirs to others,
 * nearest rank first so that not everyone begins with the same one. */
static kr_status gather(struct gather *g, const struct segment *s)
{
    const struct comm_tree *t = g->t;
    struct comm_link *l = g->l;
    int64_t bytes = s->len * g->elem;

    for (int64_t i = 0, k = 0; i < g->parts.count; i++) {
        struct comm_part *p = &g->parts.list[i];

        if (p->rank == l->rank) {
            p->at = shift(t->at[k++], (l->rank * t->chunk + s->begin) * g->elem);
            continue;
        }
        p->at = s->room + i * bytes;
        TRY(message(l, p->at, bytes, p->rank, false));
    }
    for (int32_t i = 1; i < l->size; i++)
        for (int k = 0; k < t->count; k++) {
            int32_t to = (l->rank + i) % l->size;

            TRY(message(l, shift(t->at[k], (to * t->chunk + s->begin) * g->elem), bytes,
                        to, true));
        }
    return l->ops->wait(l, NULL, 0);
}

static kr_status join(void *self, void *left, const void *right, int64_t len,
                      const struct kern_round *r)
{
    const struct gather *g = self;
    struct kern_mat a = kern_mat(left, 1, len, g->t->type);
    struct kern_mat b = kern_mat((void *)(uintptr_t)right, 1, len, g->t->type);

    return g->t->type == KERN_BF16 ? kern_add_round(g->l->adder.queue, a, a, b, r)
                                   : kern_add(g->l->adder.queue, a, a, b);
}

/* Sums go to this rank's chunk, which nobody is sent. */
static kr_status gathered_segment(void *arg, const struct segment *s)
{
    struct gather *g = arg;
    const struct comm_tree *t = g->t;
    void *own = shift(t->own, s->begin * g->elem), *sum;

    TRY(gather(g, s));
    TRY(segment_is_here(g->l, s));
    TRY(comm_reduce_join(t, &g->parts, g->l->rank * t->chunk + s->begin, s->len, join,
                         g));
    sum = g->parts.list[0].at;
    if (own == sum) return KR_OK;
    return kern_copy(g->l->adder.queue, kern_mat(own, 1, s->len, t->type),
                     kern_mat(sum, 1, s->len, t->type));
}

kr_status comm_reduce_gpu(struct comm_link *l, const struct comm_tree *t)
{
    struct gather g = { .l = l, .t = t, .elem = (int64_t)kern_dtype_bytes(t->type) };
    kr_status st;

    if (comm_reduce_is_cube(t->leaves, l->size)) return reduce_cube(l, t);
    st = comm_reduce_parts(&g.parts, t->leaves, l->size);
    if (st == KR_OK) st = each_segment(l, t, g.parts.count, gathered_segment, &g);
    mem_free(g.parts.list);
    return st;
}
