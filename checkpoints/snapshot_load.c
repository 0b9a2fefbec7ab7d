/*
 * snapshot_load.c - what the nodes remember after a restart, and getting it back.
 *
 * Each rank looks at its share of the files on its node and checks every byte.  The lists
 * of good parts go to all ranks, so all choose the same snapshot and know who holds what.
 * Then each rank computes, from the layouts of the parts and of the ranks that are here
 * now, what it needs of which part and what others need of the parts that it holds: there
 * are no requests, only data.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/snapshot_parts.h"

/* ---- which run ------------------------------------------------------------------------ */

/* Rank 0: the identity in the run directory, made if there is none. */
static kr_status read_identity(const char *run, uint64_t *out)
{
    char path[FS_PATH], *text = NULL, hex[20];
    size_t bytes;

    TRY(fs_path(path, "%s/" SNAPSHOT_IDENTITY, run));
    if (fs_exists(path)) {
        TRY(fs_read_all(path, &text, &bytes, sizeof hex));
        *out = strtoull(text, NULL, 16);
        mem_free(text);
        if (*out) return KR_OK;
    }
    do
        if (getrandom(out, sizeof *out, 0) != sizeof *out)
            *out = hash64(&(double){ clock_now() }, sizeof(double));
    while (*out == 0);
    snprintf(hex, sizeof hex, "%016" PRIx64 "\n", *out);
    return fs_replace(path, hex, strlen(hex));
}

static kr_status know_run(const struct snapshot_config *config, struct memory_run *out)
{
    char *real = realpath(config->run, NULL);

    out->place = hash64(real ? real : config->run, strlen(real ? real : config->run));
    free(real);
    return read_identity(config->run, &out->identity);
}

/* The first rank of each node makes the folder; without one there is no memory here. */
static void prepare(struct snapshot *s)
{
    const char *node = comm_node_name(s->comm), *dir = s->config.dir;

    if (memory_folder(s->folder, dir, s->run, node) != KR_OK ||
        (comm_local_rank(s->comm) == 0 && memory_prepare(dir, s->run, node) != KR_OK))
        s->folder[0] = '\0';
}

/* Whoever ends the run for good reads here what to remove.  Returns whether this was said
 * before, so that there should be memory. */
static bool tell_where(const struct snapshot *s)
{
    char path[FS_PATH], prefix[FS_PATH];
    bool before;

    if (fs_path(path, "%s/" SNAPSHOT_WHERE, s->config.run) != KR_OK ||
        memory_folder(prefix, s->config.dir, s->run, "") != KR_OK)
        return false;
    before = fs_exists(path);
    (void)fs_replace(path, prefix, strlen(prefix));
    return before;
}

/* ---- layouts -------------------------------------------------------------------------- */

static uint64_t layout_sum(const struct snapshot_extent *e, int32_t count)
{
    uint64_t sum = 0;

    for (int32_t i = 0; i < count; i++) {
        uint64_t row[4] = { sum, (uint64_t)e[i].tensor, (uint64_t)e[i].begin,
                            (uint64_t)e[i].count };

        sum = hash64(row, sizeof row);
    }
    return sum;
}

static kr_status layout_of(const struct snapshot *s, int32_t world, int32_t rank,
                           struct snapshot_extent **out, int32_t *count)
{
    return s->config.layout(s->config.self, world, rank, out, count);
}

static kr_status own_layout(struct snapshot *s)
{
    struct snapshot_extent *e = NULL;
    int32_t count;

    TRY(layout_of(s, comm_size(s->comm), comm_rank(s->comm), &e, &count));
    s->own_layout = layout_sum(e, count);
    mem_free(e);
    return KR_OK;
}

kr_status snapshot_open(struct snapshot **out, struct comm *c,
                        const struct ckpt_state *state,
                        const struct snapshot_config *config)
{
    struct snapshot *s = NULL;
    kr_status st;

    TRY(mem_alloc(&s, 1, sizeof *s, "snapshots"));
    s->comm = c;
    s->config = *config;
    s->state = state;
    s->scheme = SNAPSHOT_OFF;
    s->found_step = s->found_generation = -1;
    atomic_store(&s->newest, -1);
    st = mem_alloc(&s->part_bytes, (size_t)comm_size(c), sizeof *s->part_bytes, "sizes");
    if (st == KR_OK) st = own_layout(s);
    if (st == KR_OK && comm_rank(c) == 0) st = know_run(config, &s->run);
    st = comm_agree(c, st);
    if (st == KR_OK) st = comm_share(c, &s->run, sizeof s->run);
    if (st == KR_OK) {
        prepare(s);
        if (comm_rank(c) == 0) s->was_on = tell_where(s);
        st = comm_agree(c, KR_OK); /* the folders are there */
    }
    if (st == KR_OK)
        *out = s;
    else
        snapshot_close(s, false);
    return st;
}

/* ---- looking -------------------------------------------------------------------------- */

/* Whether the part is of this run, and what this program calls that part. */
static bool fits(const struct snapshot *s, const struct memory_head *h)
{
    struct snapshot_extent *e = NULL;
    int32_t count;
    bool same;

    if (h->place != s->run.place || h->identity != s->run.identity) return false;
    if (h->settings != s->config.settings) {
        LOG_WARNING("memory of step %" PRId64
                    " was made with other settings of the model "
                    "or the data; it is not used",
                    h->step);
        return false;
    }
    if (layout_of(s, h->world, h->rank, &e, &count) != KR_OK) return false;
    same = layout_sum(e, count) == h->layout;
    mem_free(e);
    return same;
}

/* One file of the node: its good parts as lines of text. */
static void look_into(const struct snapshot *s, const char *name, struct mem_text *out)
{
    struct memory_head heads[MEMORY_BUFFERS];
    int32_t buffer[MEMORY_BUFFERS], count = 0;
    bool is_copy = strlen(name) > 5 && strcmp(name + strlen(name) - 5, ".copy") == 0;
    char path[FS_PATH];

    if (fs_path(path, "%s/%s", s->folder, name) != KR_OK ||
        memory_look(path, true, heads, buffer, &count) != KR_OK)
        return;
    for (int32_t i = 0; i < count; i++) {
        const struct memory_head *h = &heads[i];

        if (!fits(s, h)) continue;
        mem_printf(out,
                   "%d %d %d %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIx64
                   " %d\n",
                   h->world, h->rank, buffer[i], is_copy, h->generation, h->step,
                   h->samples, h->bytes, h->sums, comm_rank(s->comm));
    }
}

/* This rank's share of the files in the folder: `each` gets their names. */
static void walk(const struct snapshot *s,
                 void (*each)(const struct snapshot *, const char *, void *), void *arg)
{
    char **names;
    size_t count;

    if (!s->folder[0] || fs_list(s->folder, &names, &count) != KR_OK) return;
    for (size_t i = (size_t)comm_local_rank(s->comm); i < count;
         i += (size_t)comm_local_size(s->comm))
        each(s, names[i], arg);
    fs_free_names(names, count);
}

static void look_each(const struct snapshot *s, const char *name, void *text)
{
    look_into(s, name, text);
}

static kr_status add_part(struct snapshot *s, const char *line)
{
    struct snapshot_part *p = &s->parts[s->part_count];
    int is_copy;

    if (sscanf(line,
               "%d %d %d %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNx64
               " %d",
               &p->head.world, &p->head.rank, &p->buffer, &is_copy, &p->head.generation,
               &p->head.step, &p->head.samples, &p->head.bytes, &p->head.sums,
               &p->holder) != 10)
        return KR_FAIL(KR_ERR_DATA, "a rank told nonsense about its memory");
    p->is_copy = is_copy != 0;
    s->part_count++;
    return KR_OK;
}

static int by_age(const void *a, const void *b)
{
    const struct snapshot_part *x = a, *y = b;

    if (x->head.generation != y->head.generation)
        return x->head.generation > y->head.generation ? -1 : 1;
    if (x->head.step != y->head.step) return x->head.step > y->head.step ? -1 : 1;
    if (x->head.rank != y->head.rank) return x->head.rank < y->head.rank ? -1 : 1;
    return (x->holder > y->holder) - (x->holder < y->holder);
}

static kr_status take_list(struct snapshot *s, const char *text)
{
    size_t lines = 0;

    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    TRY(mem_alloc(&s->parts, lines, sizeof *s->parts, "list of parts"));
    for (const char *at = text; *at; at = strchr(at, '\n') + 1)
        TRY(add_part(s, at));
    if (lines) qsort(s->parts, lines, sizeof *s->parts, by_age);
    return KR_OK;
}

/* Rank 0: the texts of all ranks as one. */
static kr_status join_texts(const char *all, int32_t ranks, char **out)
{
    struct mem_text joined = { 0 };

    mem_printf(&joined, "%s", "");
    for (int32_t r = 0; r < ranks; r++, all += strlen(all) + 1)
        mem_printf(&joined, "%s", all);
    if (joined.failed) {
        mem_text_free(&joined);
        return KR_FAIL(KR_ERR_MEM, "no memory for the list of parts");
    }
    *out = joined.at;
    return KR_OK;
}

/* The good parts of all ranks, to all ranks. */
static kr_status gather_parts(struct snapshot *s)
{
    struct mem_text mine = { 0 };
    char *all = NULL, *text = NULL;
    kr_status st;

    mem_printf(&mine, "%s", "");
    walk(s, look_each, &mine);
    st = comm_agree(s->comm, mine.failed ? KR_ERR_MEM : KR_OK);
    if (st == KR_OK) st = comm_gather_texts(s->comm, mine.at, &all);
    if (st == KR_OK && comm_rank(s->comm) == 0)
        st = join_texts(all, comm_size(s->comm), &text);
    if (st == KR_OK) st = comm_share_text(s->comm, &text);
    if (st == KR_OK) st = comm_agree(s->comm, take_list(s, text));
    mem_text_free(&mine);
    mem_free(all);
    mem_free(text);
    return st;
}

/* ---- choosing ------------------------------------------------------------------------- */

/* parts[i ...] of the same snapshot as parts[i]: how many, and of how many ranks. */
static int32_t group(const struct snapshot *s, int32_t i, int32_t *ranks)
{
    int32_t n = 0, last = -1;

    *ranks = 0;
    while (i + n < s->part_count &&
           s->parts[i + n].head.generation == s->parts[i].head.generation &&
           s->parts[i + n].head.step == s->parts[i].head.step) {
        if (s->parts[i + n].head.rank != last) ++*ranks;
        last = s->parts[i + n++].head.rank;
    }
    return n;
}

static void choose(struct snapshot *s, int64_t step, int64_t generation,
                   struct snapshot_found *out)
{
    for (int32_t i = 0, n, ranks; i < s->part_count; i += n) {
        const struct memory_head *h = &s->parts[i].head;

        n = group(s, i, &ranks);
        if (h->step > out->seen) {
            out->seen = h->step;
            out->lost = h->world - ranks;
        }
        if (ranks < h->world || h->step <= step || h->generation < generation) continue;
        out->step = h->step;
        out->samples = h->samples;
        out->generation = h->generation;
        return;
    }
}

kr_status snapshot_find(struct snapshot *s, int64_t step, int64_t generation,
                        struct snapshot_found *out)
{
    struct snapshot_found found = { .step = -1, .generation = -1, .seen = -1 };

    snapshot_drop_found(s);
    TRY(gather_parts(s));
    choose(s, step, generation, &found);
    found.was_on = s->was_on;
    s->found_step = found.step;
    s->found_generation = found.generation;
    *out = found;
    return KR_OK;
}

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
    st = layout_of(s, world, rank, &a, &a_count);
    if (st == KR_OK) st = layout_of(s, comm_size(s->comm), reader, &b, &b_count);
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

/* ---- leaving the rest behind ---------------------------------------------------------- */

static void void_each(const struct snapshot *s, const char *name, void *loaded)
{
    struct memory_head heads[MEMORY_BUFFERS];
    int32_t buffer[MEMORY_BUFFERS], count = 0;
    char path[FS_PATH];

    if (fs_path(path, "%s/%s", s->folder, name) != KR_OK ||
        memory_look(path, false, heads, buffer, &count) != KR_OK)
        return;
    for (int32_t i = 0; i < count; i++)
        if (!*(bool *)loaded || heads[i].step != s->found_step ||
            heads[i].generation != s->found_generation)
            (void)memory_void(path, &heads[i], buffer[i]);
}

void snapshot_forget_found(struct snapshot *s, bool loaded)
{
    walk(s, void_each, &loaded);
    snapshot_drop_found(s);
}

void snapshot_drop_found(struct snapshot *s)
{
    mem_free(s->parts);
    s->parts = NULL;
    s->part_count = 0;
}
