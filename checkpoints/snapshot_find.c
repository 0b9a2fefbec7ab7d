/*
 * snapshot_find.c - what the nodes remember after a restart, and which of it to take.
 *
 * Each rank looks at its share of the files on its node and checks every byte.  The lists
 * of good parts go to all ranks, so all choose the same snapshot and know who holds what.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

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

static kr_status own_layout(struct snapshot *s)
{
    struct snapshot_extent *e = NULL;
    int32_t count;

    TRY(snapshot_layout(s, comm_size(s->comm), comm_rank(s->comm), &e, &count));
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
    if (snapshot_layout(s, h->world, h->rank, &e, &count) != KR_OK) return false;
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
        out->world = h->world;
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
