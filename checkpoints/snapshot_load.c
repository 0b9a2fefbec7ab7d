/*
 * snapshot_load.c - getting the snapshot that was found to the ranks that are here now.
 *
 * Each rank computes, from the layouts of the parts and of the ranks, what it needs of which
 * part and what others need of the parts that it holds: there are no requests, only data.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/snapshot_parts.h"

/* ---- who needs what ------------------------------------------------------------------- */

/* Bytes that two layouts share: at `from` in the one's payload, at `to` in the other's. */
struct cut {
    uint64_t from, to, bytes;
};

struct cuts {
    struct cut *list;
    int32_t count;
    uint64_t bytes;
};

static void add_cut(struct cuts *c, struct cut next)
{
    struct cut *last = c->count ? &c->list[c->count - 1] : NULL;

    c->bytes += next.bytes;
    if (last && last->from + last->bytes == next.from &&
        last->to + last->bytes == next.to)
        last->bytes += next.bytes;
    else
        c->list[c->count++] = next;
}

/* Both ascend by tensor and element, so one walk finds all. */
static kr_status meet(const struct snapshot *s, const struct snapshot_extent *a,
                      int32_t a_count, const struct snapshot_extent *b, int32_t b_count,
                      struct cuts *out)
{
    uint64_t a_at = 0, b_at = 0;

    TRY(mem_alloc(&out->list, (size_t)a_count + (size_t)b_count + 1, sizeof *out->list,
                  "what is needed"));
    for (int32_t i = 0, j = 0; i < a_count && j < b_count;) {
        const struct snapshot_extent *x = &a[i], *y = &b[j];
        uint64_t elem = kern_dtype_bytes(s->state->tensors[x->tensor].type);
        uint64_t y_elem = kern_dtype_bytes(s->state->tensors[y->tensor].type);
        int64_t x_end = x->begin + x->count, y_end = y->begin + y->count;
        int64_t begin = x->begin > y->begin ? x->begin : y->begin;
        int64_t end = x_end < y_end ? x_end : y_end;
        bool x_first = x->tensor != y->tensor ? x->tensor < y->tensor : x_end <= y_end;

        if (x->tensor == y->tensor && begin < end)
            add_cut(out, (struct cut){ a_at + (uint64_t)(begin - x->begin) * elem,
                                       b_at + (uint64_t)(begin - y->begin) * elem,
                                       (uint64_t)(end - begin) * elem });
        if (x_first) {
            a_at += (uint64_t)x->count * elem;
            i++;
        } else {
            b_at += (uint64_t)y->count * y_elem;
            j++;
        }
    }
    return KR_OK;
}

/* What rank `reader` of the ranks that are here needs of part `rank` of `world`. */
static kr_status needs(const struct snapshot *s, int32_t world, int32_t rank,
                       int32_t reader, struct cuts *out)
{
    struct snapshot_extent *a = NULL, *b = NULL;
    int32_t a_count, b_count;
    kr_status st;

    *out = (struct cuts){ 0 };
    st = snapshot_layout(s, world, rank, &a, &a_count);
    if (st == KR_OK) st = snapshot_layout(s, comm_size(s->comm), reader, &b, &b_count);
    if (st == KR_OK) st = meet(s, a, a_count, b, b_count, out);
    mem_free(a);
    mem_free(b);
    return st;
}

/* The parts of the snapshot that was found, and among those of one rank the copy that
 * `reader` takes: of its own node, else readers take turns. */
static const struct snapshot_part *source(const struct snapshot *s, int32_t rank,
                                          int32_t reader)
{
    enum { MOST = 8 }; /* own and a copy; more were left when ranks moved */
    const struct snapshot_part *all[MOST];
    int32_t n = 0;

    for (int32_t i = 0; i < s->part_count && n < MOST; i++) {
        const struct snapshot_part *p = &s->parts[i];

        if (p->head.step != s->found_step || p->head.generation != s->found_generation ||
            p->head.rank != rank)
            continue;
        if (comm_node(s->comm, p->holder) == comm_node(s->comm, reader)) return p;
        all[n++] = p;
    }
    return all[reader % n];
}

static bool is_near(const struct snapshot *s, const struct snapshot_part *p,
                    int32_t reader)
{
    return comm_node(s->comm, p->holder) == comm_node(s->comm, reader);
}

/* ---- getting it ----------------------------------------------------------------------- */

/* Messages under way, and their memory. */
struct post {
    struct comm_packet *packets;
    int64_t count, room;
    char **blocks;
    struct cuts *cuts; /* of blocks that come in; list NULL: goes out */
    int32_t block_count, block_room;
};

static kr_status read_cut(const struct snapshot *s, const struct snapshot_part *p,
                          const struct cut *c, char *to)
{
    char path[FS_PATH];

    TRY(fs_path(path, "%s/part-%05d-of-%05d.%s", s->folder, p->head.rank, p->head.world,
                p->is_copy ? "copy" : "own"));
    return memory_read(path, &p->head, p->buffer, c->from, c->bytes, to);
}

static kr_status grow(struct post *post)
{
    int32_t room = 2 * post->block_room + 16;
    char **blocks = realloc(post->blocks, (size_t)room * sizeof *blocks);
    struct cuts *cuts;

    if (blocks) post->blocks = blocks;
    cuts = realloc(post->cuts, (size_t)room * sizeof *cuts);
    if (cuts) post->cuts = cuts;
    if (!blocks || !cuts) return KR_FAIL(KR_ERR_MEM, "no memory for a list of messages");
    post->block_room = room;
    return KR_OK;
}

static kr_status add_packets(struct post *post, char *at, uint64_t bytes, int32_t peer,
                             bool is_out)
{
    for (uint64_t from = 0; from < bytes; from += COMM_PACKET_MAX) {
        uint64_t left = bytes - from;

        if (post->count == post->room) {
            int64_t room = 2 * post->room + 16;
            struct comm_packet *more =
                realloc(post->packets, (size_t)room * sizeof *more);

            if (!more) return KR_FAIL(KR_ERR_MEM, "no memory for a list of messages");
            post->packets = more;
            post->room = room;
        }
        post->packets[post->count++] = (struct comm_packet){
            at + from, (int64_t)(left < COMM_PACKET_MAX ? left : COMM_PACKET_MAX), peer,
            is_out
        };
    }
    return KR_OK;
}

/* A block for all that one rank sends another of one part.  cuts: kept if it comes in. */
static kr_status add_block(struct post *post, struct cuts *cuts, int32_t peer,
                           bool is_out)
{
    char *at = NULL;

    if (post->block_count == post->block_room) TRY(grow(post));
    TRY(mem_alloc(&at, cuts->bytes, 1, "parts of a snapshot"));
    post->blocks[post->block_count] = at;
    post->cuts[post->block_count++] = is_out ? (struct cuts){ 0 } : *cuts;
    if (!is_out) cuts->list = NULL;
    return add_packets(post, at, cuts->bytes, peer, is_out);
}

/* What this rank needs of one part: read it here, or expect it. */
static kr_status get_part(struct snapshot *s, int32_t world, int32_t rank,
                          struct post *post, char *payload, uint64_t *got)
{
    int32_t me = comm_rank(s->comm);
    const struct snapshot_part *p = source(s, rank, me);
    struct cuts cuts;
    kr_status st = needs(s, world, rank, me, &cuts);

    *got += st == KR_OK ? cuts.bytes : 0;
    if (st == KR_OK && cuts.bytes && is_near(s, p, me)) {
        for (int32_t i = 0; i < cuts.count && st == KR_OK; i++)
            st = read_cut(s, p, &cuts.list[i], payload + cuts.list[i].to);
    } else if (st == KR_OK && cuts.bytes) {
        st = add_block(post, &cuts, p->holder, false);
    }
    mem_free(cuts.list);
    return st;
}

/* What others need of a part that this rank holds. */
static kr_status give_part(struct snapshot *s, const struct snapshot_part *p,
                           int32_t reader, struct post *post)
{
    struct cuts cuts;
    kr_status st;

    if (is_near(s, p, reader) || source(s, p->head.rank, reader) != p) return KR_OK;
    st = needs(s, p->head.world, p->head.rank, reader, &cuts);
    if (st == KR_OK && cuts.bytes) {
        char *to;

        st = add_block(post, &cuts, reader, true);
        to = st == KR_OK ? post->blocks[post->block_count - 1] : NULL;
        for (int32_t i = 0; i < cuts.count && st == KR_OK; i++) {
            st = read_cut(s, p, &cuts.list[i], to);
            to += cuts.list[i].bytes;
        }
    }
    mem_free(cuts.list);
    return st;
}

/* All messages of this rank, by ascending rank of the part: both ends have one order. */
static kr_status plan(struct snapshot *s, struct post *post, char *payload)
{
    int32_t me = comm_rank(s->comm), world = 0;
    uint64_t got = 0;

    for (int32_t i = 0; i < s->part_count; i++) {
        const struct snapshot_part *p = &s->parts[i];

        if (p->head.step != s->found_step || p->head.generation != s->found_generation)
            continue;
        world = p->head.world;
        for (int32_t r = 0; r < comm_size(s->comm) && p->holder == me; r++)
            TRY(give_part(s, p, r, post));
    }
    for (int32_t rank = 0; rank < world; rank++)
        TRY(get_part(s, world, rank, post, payload, &got));
    if (got == pieces_bytes(s->state)) return KR_OK;
    return KR_FAIL(KR_ERR_DATA, "the parts of step %" PRId64 " do not make up the state",
                   s->found_step);
}

/* Put what came in into its places. */
static void unpack(const struct post *post, char *payload)
{
    for (int32_t b = 0; b < post->block_count; b++) {
        const char *from = post->blocks[b];

        for (int32_t i = 0; i < post->cuts[b].count; i++) {
            const struct cut *c = &post->cuts[b].list[i];

            memcpy(payload + c->to, from, c->bytes);
            from += c->bytes;
        }
    }
}

static void free_post(struct post *post)
{
    for (int32_t b = 0; b < post->block_count; b++) {
        mem_free(post->blocks[b]);
        mem_free(post->cuts[b].list);
    }
    free(post->blocks);
    free(post->cuts);
    free(post->packets);
}

kr_status snapshot_load(struct snapshot *s, struct kern_queue *q)
{
    struct post post = { 0 };
    char *payload = NULL;
    kr_status st;

    st = mem_alloc(&payload, pieces_bytes(s->state) + 1, 1, "a part of the state");
    if (st == KR_OK) st = plan(s, &post, payload);
    st = comm_agree(s->comm, st);
    if (st == KR_OK) st = comm_swap(s->comm, post.packets, post.count);
    if (st == KR_OK) st = comm_swap_wait(s->comm);
    if (st == KR_OK) {
        unpack(&post, payload);
        st = comm_agree(s->comm, pieces_upload(s->state, q, payload));
    }
    free_post(&post);
    mem_free(payload);
    return st;
}
