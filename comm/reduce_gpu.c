/*
 * reduce_gpu.c - the canonical reduction on a stream: exchange segments, add, in order.
 *
 * The same exchanges and sums as reduce.c, without waiting: what is enqueued runs in order.
 * Segments are large (a group of messages and a kernel each cost several microseconds), and
 * one kernel adds all chunks of an exchange.
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

/* Elements of each of `pieces` that arrive in one segment. */
static int64_t segment(const struct comm_link *l, const struct comm_tree *t,
                       int64_t pieces)
{
    int64_t most =
        l->segment / pieces / (int64_t)kern_dtype_bytes(t->type) / LEAST * LEAST;

    if (most < LEAST) most = LEAST;
    return most < t->chunk ? most : t->chunk;
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

static kr_status exchange(const struct step *s, int64_t begin, int64_t len)
{
    for (int32_t i = 0; i < s->rows; i++) {
        int64_t c = s->first + s->step * i;
        int64_t theirs = ((c ^ s->bit) * s->t->chunk + begin) * s->elem;

        TRY(message(s->l, shift(s->l->scratch, i * len * s->elem), len * s->elem, s->peer,
                    false));
        TRY(message(s->l, shift(s->t->at[0], theirs), len * s->elem, s->peer, true));
    }
    return s->l->ops->wait(s->l, NULL, 0);
}

static kr_status add_rounded(const struct step *s, struct kern_mat sum, struct kern_mat a,
                             struct kern_mat b, int64_t begin)
{
    for (int32_t i = 0; i < s->rows; i++) {
        struct kern_round r = comm_reduce_round(
            s->t, s->boundary, (s->first + s->step * i) * s->t->chunk + begin);

        TRY(kern_add_round(s->l->queue, kern_rows(sum, i, 1), kern_rows(a, i, 1),
                           kern_rows(b, i, 1), &r));
    }
    return KR_OK;
}

static kr_status add(const struct step *s, int64_t begin, int64_t len)
{
    const struct comm_tree *t = s->t;
    struct kern_mat got = kern_mat(s->l->scratch, s->rows, len, t->type), mine = got, sum;

    mine.at = shift(t->at[0], (s->first * t->chunk + begin) * s->elem);
    mine.ld = s->step * t->chunk;
    sum = mine;
    if (s->step == s->l->size) sum.at = shift(t->own, begin * s->elem);
    if (t->type == KERN_BF16) return add_rounded(s, sum, mine, got, begin);
    return kern_add(s->l->queue, sum, mine, got);
}

static kr_status cube_step(const struct step *s)
{
    int64_t most = segment(s->l, s->t, s->rows);

    TRY(make_room(s->l, (size_t)(s->rows * most * s->elem)));
    for (int64_t begin = 0; begin < s->t->chunk; begin += most) {
        int64_t left = s->t->chunk - begin, len = left < most ? left : most;

        TRY(exchange(s, begin, len));
        TRY(add(s, begin, len));
    }
    return KR_OK;
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

        TRY(cube_step(&s));
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
static kr_status gather(struct gather *g, int64_t begin, int64_t len)
{
    const struct comm_tree *t = g->t;
    struct comm_link *l = g->l;

    for (int64_t i = 0, k = 0; i < g->parts.count; i++) {
        struct comm_part *p = &g->parts.list[i];

        if (p->rank == l->rank) {
            p->at = shift(t->at[k++], (l->rank * t->chunk + begin) * g->elem);
            continue;
        }
        p->at = shift(l->scratch, i * len * g->elem);
        TRY(message(l, p->at, len * g->elem, p->rank, false));
    }
    for (int32_t i = 1; i < l->size; i++)
        for (int k = 0; k < t->count; k++) {
            int32_t to = (l->rank + i) % l->size;

            TRY(message(l, shift(t->at[k], (to * t->chunk + begin) * g->elem),
                        len * g->elem, to, true));
        }
    return l->ops->wait(l, NULL, 0);
}

static kr_status join(void *self, void *left, const void *right, int64_t len,
                      const struct kern_round *r)
{
    const struct gather *g = self;
    struct kern_mat a = kern_mat(left, 1, len, g->t->type);
    struct kern_mat b = kern_mat((void *)(uintptr_t)right, 1, len, g->t->type);

    return g->t->type == KERN_BF16 ? kern_add_round(g->l->queue, a, a, b, r)
                                   : kern_add(g->l->queue, a, a, b);
}

static kr_status reduce_gathered(struct gather *g)
{
    const struct comm_tree *t = g->t;
    int64_t most = segment(g->l, t, g->parts.count);

    TRY(make_room(g->l, (size_t)(g->parts.count * most * g->elem)));
    for (int64_t begin = 0; begin < t->chunk; begin += most) {
        int64_t left = t->chunk - begin, len = left < most ? left : most;
        void *own = shift(t->own, begin * g->elem), *sum;

        TRY(gather(g, begin, len));
        TRY(comm_reduce_join(t, &g->parts, g->l->rank * t->chunk + begin, len, join, g));
        sum = g->parts.list[0].at;
        if (own != sum)
            TRY(kern_copy(g->l->queue, kern_mat(own, 1, len, t->type),
                          kern_mat(sum, 1, len, t->type)));
    }
    return KR_OK;
}

kr_status comm_reduce_gpu(struct comm_link *l, const struct comm_tree *t)
{
    struct gather g = { .l = l, .t = t, .elem = (int64_t)kern_dtype_bytes(t->type) };
    kr_status st;

    if (comm_reduce_is_cube(t->leaves, l->size)) return reduce_cube(l, t);
    st = comm_reduce_parts(&g.parts, t->leaves, l->size);
    if (st == KR_OK) st = reduce_gathered(&g);
    mem_free(g.parts.list);
    return st;
}
