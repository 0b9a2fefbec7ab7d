/*
 * snapshot.c - taking snapshots: the part while training.  What is done after a restart is
 * in snapshot_load.c.
 *
 * One snapshot: copy out of the device, own thread writes, and for the partner
 *
 *   take      the first chunk of the payload is swapped with the partners; that of a GPU
 *             when it is out (the queue of messages waits for it, nobody else)
 *   advance   one more a step; with the last one goes the head, so the own thread, which
 *             makes the checksums, is joined before
 *   advance   all has arrived (the exchange of the step came after it on the same queue):
 *             a thread checks the copies against the heads and writes them
 *
 * How far a rank is depends on how often all have called, never on time, so all ranks make
 * the same swaps.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/snapshot_parts.h"

static const struct {
    const char *text;
    int own, copy; /* buffers */
} schemes[] = {
    { "two buffers, and a copy on the next node", 2, 2 },
    { "two buffers, no copy on another node", 2, 0 },
    { "one buffer: a kill while it is written loses it", 1, 0 },
    { "", 0, 0 },
};

static const char *text_of(const struct snapshot *s)
{
    return s->scheme == SNAPSHOT_DOUBLE && comm_nodes(s->comm) == 1
               ? "two buffers"
               : schemes[s->scheme].text;
}

/* ---- partners ------------------------------------------------------------------------- */

/* Rank number `local` (modulo how many there are) on a node. */
static int32_t rank_on(const struct comm *c, int32_t node, int32_t local)
{
    int32_t there = 0;

    for (int32_t r = 0; r < comm_size(c); r++)
        there += comm_node(c, r) == node;
    local %= there;
    for (int32_t r = 0;; r++)
        if (comm_node(c, r) == node && local-- == 0) return r;
}

/* Who keeps the copy of this rank's part. */
static int32_t keeper_of(const struct comm *c, int32_t rank)
{
    int32_t node = comm_node(c, rank), local = 0;

    for (int32_t r = 0; r < rank; r++)
        local += comm_node(c, r) == node;
    return rank_on(c, (node + 1) % comm_nodes(c), local);
}

/* Fill in whose copies this rank keeps, and where its own goes. */
static kr_status find_partners(struct snapshot *s)
{
    int32_t size = comm_size(s->comm), me = comm_rank(s->comm);

    s->keeper = keeper_of(s->comm, me);
    TRY(mem_alloc(&s->copies, (size_t)size, sizeof *s->copies, "partners"));
    for (int32_t r = 0; r < size; r++) {
        struct snapshot_copy *k = &s->copies[s->copy_count];

        if (comm_node(s->comm, r) == comm_node(s->comm, me) ||
            keeper_of(s->comm, r) != me)
            continue;
        k->rank = r;
        k->bytes = s->part_bytes[r];
        TRY(mem_alloc(&k->payload, k->bytes + 1, 1, "a partner's part"));
        s->copy_count++;
    }
    return mem_alloc(&s->packets, 2 * (size_t)s->copy_count + 2, sizeof *s->packets,
                     "messages to partners");
}

/* Let the own thread end. */
static void join_thread(struct snapshot *s)
{
    (void)copyout_settle(&s->out); /* the thread knows what came of it */
    background_join(&s->thread);
}

/* ---- room ----------------------------------------------------------------------------- */

static void close_memory(struct snapshot *s)
{
    memory_close(s->own);
    s->own = NULL;
    for (int32_t i = 0; i < s->copy_count; i++) {
        memory_close(s->copies[i].memory);
        s->copies[i].memory = NULL;
    }
}

static kr_status part_path(const struct snapshot *s, char out[FS_PATH], int32_t rank,
                           const char *kind)
{
    return fs_path(out, "%s/part-%05d-of-%05d.%s", s->folder, rank, comm_size(s->comm),
                   kind);
}

static kr_status reserve_mine(struct snapshot *s, int scheme)
{
    char path[FS_PATH];
    int32_t me = comm_rank(s->comm);

    if (!s->folder[0]) return KR_ERR_IO;
    TRY(part_path(s, path, me, "own"));
    TRY(memory_open(&s->own, path, s->part_bytes[me], schemes[scheme].own));
    for (int32_t i = 0; i < s->copy_count && schemes[scheme].copy; i++) {
        TRY(part_path(s, path, s->copies[i].rank, "copy"));
        TRY(memory_open(&s->copies[i].memory, path, s->copies[i].bytes,
                        schemes[scheme].copy));
    }
    return KR_OK;
}

/* The largest scheme for which every rank has room. */
static kr_status reserve(struct snapshot *s)
{
    int scheme = comm_nodes(s->comm) > 1 ? SNAPSHOT_PARTNER : SNAPSHOT_DOUBLE;
    kr_status st = KR_ERR_IO;

    for (; scheme < SNAPSHOT_OFF; scheme++) {
        st = comm_agree(s->comm, reserve_mine(s, scheme));
        if (st == KR_OK || st == KR_ERR_COMM) break;
        close_memory(s);
        if (comm_rank(s->comm) == 0 && scheme + 1 < SNAPSHOT_OFF)
            LOG_WARNING("snapshots: trying with less: %s", schemes[scheme + 1].text);
    }
    if (st == KR_ERR_COMM) return st;
    s->scheme = scheme;
    if (s->scheme == SNAPSHOT_OFF && comm_rank(s->comm) == 0)
        LOG_WARNING("no snapshots in node memory; after a fault the run goes on from the "
                    "newest checkpoint on disk");
    return KR_OK;
}

/* ---- life ----------------------------------------------------------------------------- */

static void turn_off(struct snapshot *s)
{
    join_thread(s);
    close_memory(s);
    s->scheme = SNAPSHOT_OFF;
}

static kr_status gather_sizes(struct snapshot *s)
{
    uint64_t mine = pieces_bytes(s->state), most = 0;

    TRY(comm_all_gather_bytes(s->comm, &mine, sizeof mine, s->part_bytes));
    for (int32_t r = 0; r < comm_size(s->comm); r++)
        if (s->part_bytes[r] > most) most = s->part_bytes[r];
    s->chunk = snapshot_chunk(most);
    s->chunks = (int64_t)((most + s->chunk - 1) / s->chunk);
    return KR_OK;
}

/* What snapshot_start has made. */
static void stop(struct snapshot *s)
{
    join_thread(s);
    if (s->stage == SNAPSHOT_SENDING)
        (void)comm_swap_wait(s->comm); /* it may be in our buffers */
    close_memory(s);
    for (int32_t i = 0; i < s->copy_count; i++)
        mem_free(s->copies[i].payload);
    mem_free(s->copies);
    mem_free(s->packets);
    copyout_close(&s->out);
    s->copies = NULL;
    s->packets = NULL;
    s->copy_count = 0;
    s->scheme = SNAPSHOT_OFF;
}

kr_status snapshot_start(struct snapshot *s, bool loaded, const char **text)
{
    kr_status st;

    stop(s);
    snapshot_forget_found(s, loaded);
    TRY(gather_sizes(s));
    st = comm_nodes(s->comm) > 1 ? find_partners(s) : KR_OK;
    if (st == KR_OK && comm_queue(s->comm))
        st = copyout_open(&s->out, comm_queue(s->comm));
    if (st == KR_OK) st = copyout_reserve(&s->out, pieces_bytes(s->state));
    TRY(comm_agree(s->comm, st));
    TRY(reserve(s));
    s->stage = SNAPSHOT_IDLE;
    s->cleaned = false;
    atomic_store(&s->newest, -1);
    *text = text_of(s);
    return KR_OK;
}

bool snapshot_is_on(const struct snapshot *s) { return s->scheme != SNAPSHOT_OFF; }
int64_t snapshot_newest(struct snapshot *s) { return atomic_load(&s->newest); }

/* Files of this folder that no rank of this node writes: those of other numbers of ranks,
 * of ranks that are elsewhere now. */
static bool is_in_use(const struct snapshot *s, const char *name)
{
    int32_t rank, world, node = comm_node(s->comm, comm_rank(s->comm));
    char kind[8];

    if (sscanf(name, "part-%d-of-%d.%7s", &rank, &world, kind) != 3) return false;
    if (world != comm_size(s->comm) || rank < 0 || rank >= world) return false;
    if (strcmp(kind, "own") == 0) return comm_node(s->comm, rank) == node;
    return s->scheme == SNAPSHOT_PARTNER &&
           comm_node(s->comm, keeper_of(s->comm, rank)) == node;
}

/* The first rank of each node removes what the new snapshot has made useless. */
static void clean(struct snapshot *s)
{
    char path[FS_PATH], **names;
    size_t count;

    s->cleaned = true;
    if (comm_local_rank(s->comm) != 0 || fs_list(s->folder, &names, &count) != KR_OK)
        return;
    for (size_t i = 0; i < count; i++)
        if (!is_in_use(s, names[i]) &&
            fs_path(path, "%s/%s", s->folder, names[i]) == KR_OK)
            (void)fs_unlink(path);
    fs_free_names(names, count);
}

/* ---- the threads ---------------------------------------------------------------------- */

/* This rank's share is whole. */
static void rank_is_done(struct snapshot *s, kr_status st)
{
    atomic_store(&s->newest, st == KR_OK ? s->step : SNAPSHOT_FAILED);
}

static void *write_own(void *arg)
{
    struct snapshot *s = arg;

    s->status = copyout_wait(&s->out);
    if (s->status == KR_OK) s->status = memory_write(s->own, &s->head, s->out.to, false);
    if (s->status != KR_OK || s->scheme != SNAPSHOT_PARTNER) rank_is_done(s, s->status);
    return NULL;
}

static void *write_copies(void *arg)
{
    struct snapshot *s = arg;
    kr_status st = s->status;

    for (int32_t i = 0; i < s->copy_count && st == KR_OK; i++)
        st = memory_write(s->copies[i].memory, &s->copies[i].head, s->copies[i].payload,
                          true);
    rank_is_done(s, st);
    return NULL;
}

/* ---- sending -------------------------------------------------------------------------- */

static struct comm_packet chunk_of(const struct snapshot *s, char *payload,
                                   uint64_t bytes, int32_t peer, bool is_out)
{
    uint64_t from = (uint64_t)s->sent * s->chunk;
    uint64_t n = from >= bytes ? 0 : bytes - from < s->chunk ? bytes - from : s->chunk;

    return (struct comm_packet){ payload + (n ? from : 0), (int64_t)n, peer, is_out };
}

/* Chunk number s->sent to the partner and from those whose copies are kept here; after the
 * last one the heads. */
static kr_status send_next(struct snapshot *s)
{
    bool heads = s->sent == s->chunks;
    int64_t n = 0;

    if (heads) join_thread(s);
    if (s->out.side) TRY(comm_swap_after(s->comm, s->out.out));
    s->packets[n++] =
        heads
            ? (struct comm_packet){ &s->head, sizeof s->head, s->keeper, true }
            : chunk_of(s, s->out.to, s->part_bytes[comm_rank(s->comm)], s->keeper, true);
    for (int32_t i = 0; i < s->copy_count; i++) {
        struct snapshot_copy *k = &s->copies[i];

        s->packets[n++] =
            heads ? (struct comm_packet){ &k->head, sizeof k->head, k->rank, false }
                  : chunk_of(s, k->payload, k->bytes, k->rank, false);
    }
    s->sent++;
    return comm_swap(s->comm, s->packets, n);
}

/* The next move of a snapshot with partners, whose former one has arrived. */
static kr_status move_copies(struct snapshot *s)
{
    if (s->sent <= s->chunks) return send_next(s);
    if (s->stage == SNAPSHOT_SENDING) {
        s->stage = SNAPSHOT_WRITING;
        background_start(&s->thread, write_copies, s);
    }
    return KR_OK;
}

/* Bring the snapshot in progress to its end.  *whole: it is, on all ranks. */
static kr_status settle(struct snapshot *s, bool *whole)
{
    kr_status st;

    while (s->stage == SNAPSHOT_SENDING) {
        TRY(comm_swap_wait(s->comm));
        TRY(move_copies(s));
    }
    join_thread(s);
    s->stage = SNAPSHOT_IDLE;
    st = snapshot_newest(s) == SNAPSHOT_FAILED ? KR_ERR_IO : KR_OK;
    st = comm_agree(s->comm, st);
    *whole = st == KR_OK;
    return st == KR_ERR_IO ? KR_OK : st;
}

static void give_up(struct snapshot *s)
{
    if (comm_rank(s->comm) == 0)
        LOG_WARNING("the snapshot of step %" PRId64
                    " failed; no more are taken, training "
                    "goes on",
                    s->step);
    turn_off(s);
}

/* ---- taking --------------------------------------------------------------------------- */

static kr_status begin(struct snapshot *s, struct kern_queue *q, int64_t step,
                       int64_t samples)
{
    TRY(copyout_open(&s->out, q));
    TRY(copyout_start(&s->out, q, s->state));
    s->step = step;
    s->head = (struct memory_head){ .world = comm_size(s->comm),
                                    .rank = comm_rank(s->comm),
                                    .place = s->run.place,
                                    .identity = s->run.identity,
                                    .settings = s->config.settings,
                                    .layout = s->own_layout,
                                    .generation = s->config.generation,
                                    .step = step,
                                    .samples = samples };
    s->sent = 0;
    background_start(&s->thread, write_own, s);
    s->stage = s->scheme == SNAPSHOT_PARTNER ? SNAPSHOT_SENDING : SNAPSHOT_WRITING;
    return s->scheme == SNAPSHOT_PARTNER ? send_next(s) : KR_OK;
}

kr_status snapshot_hold(struct snapshot *s, struct kern_queue *q)
{
    return copyout_hold(&s->out, q);
}

kr_status snapshot_take(struct snapshot *s, struct kern_queue *q, int64_t step,
                        int64_t samples, int64_t told, double *seconds)
{
    double start = clock_now();
    bool whole = true;

    *seconds = 0;
    if (s->scheme == SNAPSHOT_OFF) return KR_OK;
    if (s->stage != SNAPSHOT_IDLE && told != s->step) TRY(settle(s, &whole));
    join_thread(s);
    if (!whole) {
        give_up(s);
        return KR_OK;
    }
    TRY(begin(s, q, step, samples));
    *seconds = clock_now() - start;
    return KR_OK;
}

kr_status snapshot_advance(struct snapshot *s, int64_t told)
{
    if (s->scheme == SNAPSHOT_OFF || s->stage == SNAPSHOT_IDLE) return KR_OK;
    if (told == SNAPSHOT_FAILED) {
        /* partners may still be sending: their queues are empty after this */
        if (s->scheme == SNAPSHOT_PARTNER) TRY(comm_swap_wait(s->comm));
        give_up(s);
        return KR_OK;
    }
    if (told == s->step) {
        join_thread(s);
        s->stage = SNAPSHOT_IDLE;
        if (!s->cleaned) clean(s);
        return KR_OK;
    }
    return s->stage == SNAPSHOT_SENDING ? move_copies(s) : KR_OK;
}

kr_status snapshot_wait(struct snapshot *s)
{
    bool whole;

    return s->scheme == SNAPSHOT_OFF || s->stage == SNAPSHOT_IDLE ? KR_OK
                                                                  : settle(s, &whole);
}

kr_status snapshot_forget(struct snapshot *s, int64_t step)
{
    kr_status st = KR_OK;

    TRY(snapshot_wait(s));
    if (s->own) st = memory_forget(s->own, step);
    for (int32_t i = 0; i < s->copy_count && st == KR_OK; i++)
        if (s->copies[i].memory) st = memory_forget(s->copies[i].memory, step);
    return comm_agree(s->comm, st);
}

/* ---- the end -------------------------------------------------------------------------- */

/* The run's folders go with all that is in them, once on each node. */
static void remove_all(struct snapshot *s)
{
    char path[FS_PATH];

    if (comm_agree(s->comm, KR_OK) != KR_OK) return;
    /* pretended nodes share one memory: not two at the same folder */
    if (comm_rank(s->comm) == 0) memory_remove(s->config.dir, s->run);
    if (comm_agree(s->comm, KR_OK) != KR_OK) return;
    if (comm_local_rank(s->comm) == 0 && fs_exists(s->folder))
        memory_remove(s->config.dir, s->run);
    if (comm_rank(s->comm) == 0 &&
        fs_path(path, "%s/" SNAPSHOT_WHERE, s->config.run) == KR_OK)
        (void)fs_unlink(path);
}

void snapshot_close(struct snapshot *s, bool forget)
{
    if (!s) return;
    stop(s);
    if (forget) remove_all(s);
    if (s->folder[0]) (void)rmdir(s->folder); /* where nothing was ever kept */
    snapshot_drop_found(s);
    mem_free(s->part_bytes);
    mem_free(s);
}
