/*
 * reduce.c - exchange, add, hand on.
 *
 * Why not MPI_Ireduce_scatter_block: Open MPI 4.1.4 reduces to one rank by a binomial tree
 * and scatters from there.  On one node 25 MiB over 2 ranks took 26 ms, the direct
 * exchange below 7 ms; over 4 ranks on 2 cores 55 ms against 30 ms.
 *
 * Chunks are sent from where they lie, never packed: PART_ALIGN makes each of them at
 * least 16 KiB, enough to hide the cost of a message.
 */
#include "comm/reduce.h"

#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/mem.h"
#include "comm/part.h"
#include "kernels/kernels.h"

enum {
    SEGMENT = 512 * 1024,        /* bytes; 256 KiB to 1 MiB measured alike */
    UNDER_WAY = 4,               /* segments of a pipe */
    TOGETHER = 32 * 1024 * 1024, /* bytes of scratch of the general path, about */
    MESSAGE = 256 * 1024 * 1024  /* bytes; MPI counts in ints */
};

/* ---- adding ------------------------------------------------------------------------- */

/* sum = left + right; sum may be one of them, so there is nothing carried from one element
 * to the next and the loop may be vectorised whatever the pointers are. */
#define DEFINE_ADD(name, real)                                                   \
    static void name(void *sum, const void *left, const void *right, int64_t n)  \
    {                                                                            \
        real *s = sum;                                                           \
        const real *a = left, *b = right;                                        \
                                                                                 \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) s[i] = a[i] + b[i]; \
    }

DEFINE_ADD(add_f32, float)
DEFINE_ADD(add_f64, double)

/* In fp32, rounded by chance. */
static void add_bf16(uint16_t *sum, const uint16_t *left, const uint16_t *right,
                     int64_t n, const struct kern_round *r)
{
    enum { ROW = 1024 };
    float row[ROW];

    for (int64_t i = 0; i < n; i += ROW) {
        int64_t len = n - i < ROW ? n - i : ROW;

        for (int64_t k = 0; k < len; k++)
            row[k] = bf16_value(left[i + k]) + bf16_value(right[i + k]);
        bf16_round_row(sum + i, row, len, r->key, r->sub, r->first + i);
    }
}

/* Callers name the left operand first.  IEEE addition commutes, so this decides no bit of a
 * number; only the association does, and the tree fixes that.  (It may decide whose
 * payload a NaN carries, and NaN is never committed.)  r: of bf16. */
static void add(enum kern_dtype type, void *sum, const void *left, const void *right,
                int64_t n, const struct kern_round *r)
{
    switch (type) {
    case KERN_F32: add_f32(sum, left, right, n); break;
    case KERN_F64: add_f64(sum, left, right, n); break;
    case KERN_BF16: add_bf16(sum, left, right, n, r); break;
    }
}

struct kern_round comm_reduce_round(const struct comm_tree *t, int64_t boundary,
                                    int64_t first)
{
    return (struct kern_round){ t->rounding.key,
                                (uint32_t)(t->rounding.first_leaf + boundary), first };
}

static void *shift(const void *at, int64_t bytes)
{
    return (char *)(uintptr_t)at + bytes;
}

static kr_status scratch(struct comm_link *l, size_t bytes)
{
    if (bytes <= l->scratch_bytes) return KR_OK;
    mem_free(l->scratch);
    l->scratch = NULL;
    l->scratch_bytes = 0;
    TRY(mem_alloc(&l->scratch, bytes, 1, "scratch of a reduction"));
    l->scratch_bytes = bytes;
    return KR_OK;
}

/* ---- a pipe of segments --------------------------------------------------------------- */

/* Send `out` to one rank while `in` arrives from another; then sum = left + right, of
 * which one is what arrived. */
struct piece {
    int32_t to, from;
    void *out, *mine, *sum;
    bool mine_is_left;
    int64_t len; /* elements */
    struct kern_round round;
};

struct pipe {
    struct comm_link *l;
    enum kern_dtype type;
    int64_t begun, ended; /* pieces */
    struct piece piece[UNDER_WAY];
    struct comm_message message[UNDER_WAY][2]; /* in, out */
};

static kr_status pipe_open(struct pipe *p, struct comm_link *l, enum kern_dtype type)
{
    *p = (struct pipe){ .l = l, .type = type };
    return scratch(l, (size_t)UNDER_WAY * SEGMENT);
}

static kr_status pipe_end_one(struct pipe *p)
{
    int64_t slot = p->ended++ % UNDER_WAY;
    const struct piece *x = &p->piece[slot];
    struct comm_message *m = p->message[slot];

    TRY(p->l->ops->wait(p->l, &m[0], 1));
    if (x->mine_is_left)
        add(p->type, x->sum, x->mine, m[0].at, x->len, &x->round);
    else
        add(p->type, x->sum, m[0].at, x->mine, x->len, &x->round);
    return p->l->ops->wait(p->l, &m[1], 1);
}

static kr_status pipe_push(struct pipe *p, struct piece x)
{
    int64_t slot = p->begun % UNDER_WAY;
    int64_t bytes = x.len * (int64_t)kern_dtype_bytes(p->type);
    struct comm_message *m = p->message[slot];

    if (p->begun - p->ended == UNDER_WAY) TRY(pipe_end_one(p));
    p->begun++;
    p->piece[slot] = x;
    m[0] = (struct comm_message){ .at = shift(p->l->scratch, slot * SEGMENT),
                                  .bytes = bytes,
                                  .peer = x.from };
    m[1] = (struct comm_message){
        .at = x.out, .bytes = bytes, .peer = x.to, .is_out = true
    };
    TRY(p->l->ops->start(p->l, &m[0]));
    return p->l->ops->start(p->l, &m[1]);
}

static kr_status pipe_drain(struct pipe *p)
{
    while (p->ended < p->begun)
        TRY(pipe_end_one(p));
    return KR_OK;
}

/* The part of x from element `begin`, at most a segment long. */
static struct piece cut(struct piece x, int64_t begin, enum kern_dtype type)
{
    int64_t size = (int64_t)kern_dtype_bytes(type), most = SEGMENT / size;

    x.out = shift(x.out, begin * size);
    x.mine = shift(x.mine, begin * size);
    x.sum = shift(x.sum, begin * size);
    x.len = x.len - begin < most ? x.len - begin : most;
    x.round.first += begin;
    return x;
}

/* ---- library order -------------------------------------------------------------------- */

kr_status comm_reduce_direct(struct comm_link *l, void *all, void *own, int64_t chunk,
                             enum kern_dtype type)
{
    int64_t size = (int64_t)kern_dtype_bytes(type), most = SEGMENT / size;
    void *mine = shift(all, l->rank * chunk * size);
    struct pipe p;

    if (l->size == 1) {
        if (own != all) memcpy(own, all, (size_t)(chunk * size));
        return KR_OK;
    }
    TRY(pipe_open(&p, l, type));
    /* Ranks inside, so that the sum of a segment stays in the cache. */
    for (int64_t begin = 0; begin < chunk; begin += most)
        for (int32_t i = 1; i < l->size; i++) {
            int32_t to = (l->rank + i) % l->size;
            struct piece x = { .to = to,
                               .from = (l->rank - i + l->size) % l->size,
                               .out = shift(all, to * chunk * size),
                               .mine = i == 1 ? mine : own,
                               .sum = own,
                               .mine_is_left = true,
                               .len = chunk };

            TRY(pipe_push(&p, cut(x, begin, type)));
        }
    return pipe_drain(&p);
}

/* ---- canonical order, a power of two ---------------------------------------------------- */

bool comm_reduce_is_cube(int64_t leaves, int32_t size)
{
    int64_t run = leaves / size;

    return leaves % size == 0 && (size & (size - 1)) == 0 && (run & (run - 1)) == 0;
}

/* Exchange with rank xor bit.  Before, this rank holds the chunks c == rank mod bit, sums
 * over `bit` ranks; after, those with c == rank mod 2 bit, over twice as many. */
static kr_status cube_step(struct pipe *p, const struct comm_tree *t, int32_t bit)
{
    const struct comm_link *l = p->l;
    int64_t size = (int64_t)kern_dtype_bytes(t->type), bytes = t->chunk * size;
    int32_t peer = l->rank ^ bit, right = (l->rank | bit) / bit * bit;

    for (int32_t c = l->rank & (2 * bit - 1); c < l->size; c += 2 * bit) {
        void *mine = shift(t->at[0], c * bytes);
        struct piece x = { .to = peer,
                           .from = peer,
                           .mine = mine,
                           .out = shift(t->at[0], (c ^ bit) * bytes),
                           .sum = 2 * bit == l->size ? t->own : mine,
                           .mine_is_left = l->rank < peer,
                           .len = t->chunk,
                           .round = comm_reduce_round(t, t->leaves / l->size * right,
                                                      c * t->chunk) };

        for (int64_t begin = 0; begin < t->chunk; begin += SEGMENT / size)
            TRY(pipe_push(p, cut(x, begin, t->type)));
    }
    return pipe_drain(p); /* the next step sends these sums on */
}

static kr_status reduce_cube(struct comm_link *l, const struct comm_tree *t)
{
    struct pipe p;

    TRY(pipe_open(&p, l, t->type));
    for (int32_t bit = 1; bit < l->size; bit *= 2)
        TRY(cube_step(&p, t, bit));
    return KR_OK;
}

/* ---- canonical order, any number of ranks ----------------------------------------------- */

/* The general path cuts chunks into segments; for each, every owner gathers all nodes
 * and joins them.  More bytes than a cube: a rank sends every node it has. */
struct gather {
    struct comm_link *l;
    const struct comm_tree *t;
    struct comm_parts parts;
    struct comm_message *messages;
    int64_t most; /* elements of a segment */
};

static int cover_of(int64_t leaves, int32_t size, int32_t rank, struct tree_node *nodes)
{
    struct span s = part_leaves(leaves, size, rank);

    return tree_cover(leaves, (struct tree_node){ s.begin, s.end - s.begin }, nodes);
}

int64_t comm_reduce_count(int64_t leaves, int32_t size)
{
    struct tree_node nodes[TREE_DEPTH];
    int64_t count = 0;

    for (int32_t r = 0; r < size; r++)
        count += cover_of(leaves, size, r, nodes);
    return count;
}

kr_status comm_reduce_parts(struct comm_parts *out, int64_t leaves, int32_t size)
{
    struct comm_parts p = { .count = comm_reduce_count(leaves, size) };
    struct tree_node nodes[TREE_DEPTH];
    int64_t i = 0;

    TRY(mem_alloc(&p.list, (size_t)p.count, sizeof *p.list, "nodes of a reduction"));
    for (int32_t r = 0; r < size; r++) {
        int n = cover_of(leaves, size, r, nodes);

        for (int k = 0; k < n; k++)
            p.list[i++] = (struct comm_part){ .node = nodes[k], .rank = r };
    }
    *out = p;
    return KR_OK;
}

static kr_status gather_open(struct gather *g, struct comm_link *l,
                             const struct comm_tree *t)
{
    int64_t size = (int64_t)kern_dtype_bytes(t->type), share;

    *g = (struct gather){ .l = l, .t = t };
    TRY(comm_reduce_parts(&g->parts, t->leaves, l->size));
    share = TOGETHER / g->parts.count < SEGMENT ? TOGETHER / g->parts.count : SEGMENT;
    g->most = l->size == 1 ? t->chunk : (share < 4096 ? 4096 : share) / size;
    TRY(mem_alloc(&g->messages, (size_t)(g->parts.count + (int64_t)t->count * l->size),
                  sizeof *g->messages, "messages of a reduction"));
    return scratch(l, l->size == 1 ? 0 : (size_t)(g->parts.count * g->most * size));
}

static void gather_close(struct gather *g)
{
    mem_free(g->parts.list);
    mem_free(g->messages);
}

/* Get `bytes` of each node from offset `begin` of this rank's chunk, and send the others
 * theirs, nearest rank first so that not everyone begins with the same one. */
static kr_status gather_segment(struct gather *g, int64_t begin, int64_t bytes)
{
    const struct comm_tree *t = g->t;
    struct comm_link *l = g->l;
    int64_t chunk = t->chunk * (int64_t)kern_dtype_bytes(t->type), n = 0;

    for (int64_t i = 0, k = 0; i < g->parts.count; i++) {
        struct comm_part *p = &g->parts.list[i];

        if (p->rank == l->rank) {
            p->at = shift(t->at[k++], l->rank * chunk + begin);
            continue;
        }
        p->at = shift(l->scratch, i * bytes);
        g->messages[n++] =
            (struct comm_message){ .at = p->at, .bytes = bytes, .peer = p->rank };
    }
    for (int32_t i = 1; i < l->size; i++)
        for (int k = 0; k < t->count; k++) {
            int32_t to = (l->rank + i) % l->size;

            g->messages[n++] =
                (struct comm_message){ .at = shift(t->at[k], to * chunk + begin),
                                       .bytes = bytes,
                                       .peer = to,
                                       .is_out = true };
        }
    for (int64_t i = 0; i < n; i++)
        TRY(l->ops->start(l, &g->messages[i]));
    return n ? l->ops->wait(l, g->messages, n) : KR_OK;
}

kr_status comm_reduce_join(const struct comm_tree *t, const struct comm_parts *parts,
                           int64_t first, int64_t len,
                           kr_status (*add_to)(void *self, void *left, const void *right,
                                               int64_t len, const struct kern_round *r),
                           void *self)
{
    struct tree_node stack[TREE_DEPTH];
    void *sum[TREE_DEPTH];
    int depth = 0;

    for (int64_t i = 0; i < parts->count; i++) {
        int top = depth, joins;

        sum[top] = parts->list[i].at;
        joins = tree_push(stack, &depth, t->leaves, parts->list[i].node);
        for (; joins > 0; joins--, top--) {
            struct kern_round r = comm_reduce_round(t, stack[top].first, first);

            TRY(add_to(self, sum[top - 1], sum[top], len, &r));
        }
    }
    return KR_OK;
}

static kr_status add_part(void *self, void *left, const void *right, int64_t len,
                          const struct kern_round *r)
{
    const struct comm_tree *t = self;

    add(t->type, left, left, right, len, r);
    return KR_OK;
}

static kr_status reduce_gathered(struct gather *g)
{
    int64_t size = (int64_t)kern_dtype_bytes(g->t->type);

    for (int64_t begin = 0; begin < g->t->chunk; begin += g->most) {
        int64_t left = g->t->chunk - begin, len = left < g->most ? left : g->most;
        void *own = shift(g->t->own, begin * size);

        TRY(gather_segment(g, begin * size, len * size));
        TRY(comm_reduce_join(g->t, &g->parts, g->l->rank * g->t->chunk + begin, len,
                             add_part, (void *)(uintptr_t)g->t));
        if (own != g->parts.list[0].at)
            memcpy(own, g->parts.list[0].at, (size_t)(len * size));
    }
    return KR_OK;
}

kr_status comm_reduce_canonical(struct comm_link *l, const struct comm_tree *t)
{
    struct gather g;
    kr_status st;

    if (l->size > 1 && comm_reduce_is_cube(t->leaves, l->size)) return reduce_cube(l, t);
    st = gather_open(&g, l, t);
    if (st == KR_OK) st = reduce_gathered(&g);
    gather_close(&g);
    return st;
}

/* ---- everyone to everyone --------------------------------------------------------------- */

/* `bytes` at offset `begin` of each chunk, nearest rank first. */
static kr_status exchange_piece(struct comm_link *l, const char *all, char *got,
                                int64_t chunk, int64_t begin, int64_t bytes,
                                struct comm_message *m)
{
    int64_t n = 0;

    for (int32_t i = 1; i < l->size; i++) {
        int32_t from = (l->rank - i + l->size) % l->size, to = (l->rank + i) % l->size;

        m[n++] = (struct comm_message){ .at = shift(got, from * chunk + begin),
                                        .bytes = bytes,
                                        .peer = from };
        m[n++] = (struct comm_message){ .at = shift(all, to * chunk + begin),
                                        .bytes = bytes,
                                        .peer = to,
                                        .is_out = true };
    }
    for (int64_t i = 0; i < n; i++)
        TRY(l->ops->start(l, &m[i]));
    return l->ops->wait(l, m, n);
}

kr_status comm_exchange_direct(struct comm_link *l, const void *all, void *got,
                               int64_t bytes)
{
    struct comm_message *m = NULL;
    kr_status st = KR_OK;

    memcpy(shift(got, l->rank * bytes), shift(all, l->rank * bytes), (size_t)bytes);
    if (l->size == 1) return KR_OK;
    TRY(mem_alloc(&m, 2 * (size_t)(l->size - 1), sizeof *m, "messages"));
    for (int64_t at = 0; at < bytes && st == KR_OK; at += MESSAGE)
        st = exchange_piece(l, all, got, bytes, at,
                            bytes - at < MESSAGE ? bytes - at : MESSAGE, m);
    mem_free(m);
    return st;
}
