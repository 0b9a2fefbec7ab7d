/*
 * ckpt.c - the collective layer: what all ranks do together.
 *
 * A save is a small machine.  Each rank has a stage and, while its thread works, a phase
 * that the thread sets; stages change only in ckpt_advance, from phases that all ranks
 * have seen alike, so all ranks change together:
 *
 *   IDLE --ckpt_save--> WRITING --all WRITTEN--> COMMITTING --rank 0 COMMITTED-->
 *   VERIFYING --all VERIFIED--> IDLE          any FAILED: drop the attempt, IDLE
 */
#include "checkpoints/ckpt.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/background.h"
#include "checkpoints/catalog.h"
#include "checkpoints/commit.h"
#include "checkpoints/copyout.h"
#include "checkpoints/lease.h"
#include "checkpoints/shard_read.h"
#include "checkpoints/shard_write.h"

enum { READ_PIECE = 16 << 20 /* bytes read and uploaded at a time */ };

enum stage { STAGE_IDLE, STAGE_WRITING, STAGE_COMMITTING, STAGE_VERIFYING };

struct ckpt {
    struct comm *comm;
    struct ckpt_config config;
    char run[FS_PATH];
    struct lease *lease;                /* rank 0 */
    int64_t generation, newest, before; /* before: of the save in progress */
    double stalled;

    /* a save */
    enum stage stage;
    atomic_int phase;
    struct background thread;
    int64_t step;
    struct shard_job job;
    struct copyout out;       /* the host copy that is written */
    struct commit_job commit; /* commit.manifest also feeds the verification */
    bool last_saved;

    /* looking for something to load */
    struct catalog catalog; /* rank 0 */
    int32_t next;
    bool looked;
    struct manifest found;
    char found_path[FS_PATH];
};

static bool is_first(const struct ckpt *k) { return comm_rank(k->comm) == 0; }

/* ---- open, close ------------------------------------------------------------------------ */

static int64_t newest_generation(const struct catalog *c)
{
    int64_t most = 0;

    for (int32_t i = 0; i < c->valid; i++)
        if (c->list[i].generation > most) most = c->list[i].generation;
    return most;
}

/* Rank 0: folders, lease, leftovers, list of what there is. */
static kr_status open_first(struct ckpt *k)
{
    char folder[FS_PATH];

    if (!k->config.read_only) {
        TRY(fs_path(folder, "%s/checkpoints", k->run));
        TRY(fs_mkdirs(folder));
    }
    TRY(catalog_open(&k->catalog, k->run));
    if (k->config.read_only) return KR_OK;
    TRY(lease_take(&k->lease, k->run, newest_generation(&k->catalog)));
    k->generation = lease_generation(k->lease);
    return catalog_sweep(k->run);
}

kr_status ckpt_open(struct ckpt **out, struct comm *c, const struct ckpt_config *config)
{
    struct ckpt *k = NULL;
    kr_status st;

    TRY(mem_alloc(&k, 1, sizeof *k, "checkpoints"));
    k->comm = c;
    k->config = *config;
    k->newest = -1;
    atomic_store(&k->phase, CKPT_IDLE);
    st = fs_path(k->run, "%s", config->run);
    if (st == KR_OK && is_first(k)) st = open_first(k);
    st = comm_agree(c, st);
    if (st == KR_OK) st = comm_share(c, &k->generation, sizeof k->generation);
    if (st == KR_OK)
        *out = k;
    else
        ckpt_close(k);
    return st;
}

static void drop_save(struct ckpt *k);

void ckpt_close(struct ckpt *k)
{
    if (!k) return;
    if (k->stage != STAGE_IDLE) (void)ckpt_wait(k, NULL);
    drop_save(k); /* what a dead group left */
    copyout_close(&k->out);
    lease_give_back(k->lease);
    catalog_close(&k->catalog);
    manifest_free(&k->found);
    mem_free(k);
}

void ckpt_abandon(struct ckpt *k)
{
    if (k) drop_save(k);
}

bool ckpt_is_lost(struct ckpt *k) { return k->lease && lease_is_lost(k->lease); }
int64_t ckpt_generation(const struct ckpt *k) { return k->generation; }
int64_t ckpt_newest(const struct ckpt *k) { return k->newest; }
double ckpt_stalled(const struct ckpt *k) { return k->stalled; }
enum ckpt_phase ckpt_phase(struct ckpt *k)
{
    return (enum ckpt_phase)atomic_load(&k->phase);
}

/* ---- loading ---------------------------------------------------------------------------- */

/* Rank 0: the next valid entry, as a path and the text of its manifest. */
static kr_status pick(struct ckpt *k, char **path, char **text, bool *none)
{
    const struct catalog *c = &k->catalog;
    char manifest[FS_PATH];
    size_t bytes;

    *none = c->count == 0;
    if (*none) return KR_OK;
    if (k->next >= c->valid)
        return KR_FAIL(KR_ERR_NO_CKPT,
                       "%s: %d checkpoint%s, none of them valid; start "
                       "elsewhere or remove them to begin anew",
                       k->run, c->count, c->count == 1 ? "" : "s");
    *path = c->list[k->next++].path;
    TRY(fs_path(manifest, "%s/manifest.json", *path));
    return fs_read_all(manifest, text, &bytes, 1 << 30);
}

/* The run directory may itself be one checkpoint. */
static kr_status list_single(struct ckpt *k)
{
    struct catalog_entry *e = NULL;
    char manifest[FS_PATH];

    TRY(fs_path(manifest, "%s/manifest.json", k->run));
    if (k->catalog.count || !k->config.read_only || !fs_exists(manifest)) return KR_OK;
    TRY(mem_alloc(&e, 1, sizeof *e, "list of checkpoints"));
    TRY(fs_path(e->path, "%s", k->run));
    e->valid = true;
    k->catalog = (struct catalog){ e, 1, 1 };
    return KR_OK;
}

static kr_status take_found(struct ckpt *k, const char *path, const char *text,
                            struct ckpt_info *info)
{
    struct manifest m;

    TRY(manifest_parse(&m, text, strlen(text), path));
    manifest_free(&k->found);
    k->found = m;
    TRY(fs_path(k->found_path, "%s", path));
    *info = (struct ckpt_info){ m.step, m.samples, m.generation, m.world, NULL, "" };
    TRY(fs_path(info->path, "%s", path));
    TRY(mem_alloc(&info->settings, strlen(m.settings) + 1, 1, "settings"));
    strcpy(info->settings, m.settings);
    return KR_OK;
}

/* One more entry; KR_ERR_DATA and KR_ERR_IO: this one is bad. */
static kr_status try_next(struct ckpt *k, struct ckpt_info *info)
{
    char *path = NULL, *text = NULL;
    bool none = false;
    kr_status st = KR_OK;

    if (is_first(k)) {
        st = list_single(k);
        if (st == KR_OK) st = pick(k, &path, &text, &none);
    }
    TRY(comm_agree(k->comm, st));
    TRY(comm_share(k->comm, &none, sizeof none));
    if (none) {
        *info = (struct ckpt_info){ .step = -1 };
        return KR_OK;
    }
    TRY_OR(st, comm_share_text(k->comm, &path), done);
    TRY_OR(st, comm_share_text(k->comm, &text), done);
    st = comm_agree(k->comm, take_found(k, path, text, info));
done:
    if (!is_first(k)) mem_free(path);
    mem_free(text);
    return st;
}

/* The catalog was read a while ago: a manifest may have gone bad since. */
kr_status ckpt_next(struct ckpt *k, struct ckpt_info *info)
{
    kr_status st;

    do
        st = try_next(k, info);
    while (st == KR_ERR_DATA || st == KR_ERR_IO);
    return st;
}

kr_status ckpt_rewind(struct ckpt *k)
{
    kr_status st = KR_OK;

    k->next = 0;
    if (is_first(k)) {
        catalog_close(&k->catalog);
        st = catalog_open(&k->catalog, k->run);
    }
    return comm_agree(k->comm, st);
}

static bool is_inside(const struct ckpt_tensor *t, const struct ckpt_piece *p)
{
    int64_t total = t->rows * t->cols;

    return p->begin >= 0 && p->count >= 0 && p->begin <= total &&
           p->count <= total - p->begin;
}

/* One piece, in parts that fit the buffer. */
static kr_status read_piece(struct ckpt *k, struct kern_queue *q,
                            const struct ckpt_tensor *t, const struct ckpt_piece *p,
                            char *buf)
{
    int32_t i = manifest_find(&k->found, t->name);
    int64_t elem = (int64_t)kern_dtype_bytes(t->type), most = READ_PIECE / elem;

    if (i < 0) return KR_FAIL(KR_ERR_ARG, "%s: has no tensor %s", k->found_path, t->name);
    if (k->found.tensors[i].rows != t->rows || k->found.tensors[i].cols != t->cols ||
        k->found.tensors[i].type != t->type)
        return KR_FAIL(KR_ERR_ARG, "%s: tensor %s has another shape or type",
                       k->found_path, t->name);
    if (!is_inside(t, p))
        return KR_FAIL(KR_ERR_ARG, "a piece lies outside its tensor %s", t->name);
    for (int64_t at = 0; at < p->count; at += most) {
        int64_t n = p->count - at < most ? p->count - at : most;

        TRY(shard_read(&k->found, k->found_path, i, p->begin + at, n, buf));
        TRY(kern_upload(q, (char *)p->at + at * elem, buf, (size_t)(n * elem)));
        TRY(kern_queue_sync(q));
    }
    return KR_OK;
}

static kr_status read_own(struct ckpt *k, struct kern_queue *q,
                          const struct ckpt_state *s)
{
    char *buf = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&buf, READ_PIECE, 1, "a buffer to read into"));
    for (int32_t i = comm_rank(k->comm); i < k->found.shard_count && st == KR_OK;
         i += comm_size(k->comm))
        st = shard_check_frame(&k->found, k->found_path, i);
    for (int32_t i = 0; i < s->piece_count && st == KR_OK; i++)
        st = read_piece(k, q, &s->tensors[s->pieces[i].tensor], &s->pieces[i], buf);
    mem_free(buf);
    return st;
}

kr_status ckpt_read(struct ckpt *k, struct kern_queue *q, const struct ckpt_state *state)
{
    return comm_agree(k->comm, read_own(k, q, state));
}

/* ---- the threads ------------------------------------------------------------------------ */

static void *write_thread(void *arg)
{
    struct ckpt *k = arg;
    kr_status st = copyout_wait(&k->out);

    if (st == KR_OK) st = shard_write(&k->job);
    atomic_store(&k->phase, st == KR_OK ? CKPT_WRITTEN : CKPT_FAILED);
    return NULL;
}

static void *commit_thread(void *arg)
{
    struct ckpt *k = arg;
    kr_status st = commit(&k->commit);

    atomic_store(&k->phase, st == KR_OK ? CKPT_COMMITTED : CKPT_FAILED);
    return NULL;
}

/* Read back what this rank wrote, as any reader would, and compare with what it meant to
 * write. */
static void *verify_thread(void *arg)
{
    struct ckpt *k = arg;
    struct manifest m;
    kr_status st = manifest_read(&m, k->commit.place);

    if (st == KR_OK) {
        st = shard_verify(&m, k->commit.place, comm_rank(k->comm));
        manifest_free(&m);
    }
    atomic_store(&k->phase, st == KR_OK ? CKPT_VERIFIED : CKPT_FAILED);
    return NULL;
}

/* ---- saving ----------------------------------------------------------------------------- */

/* Let the own thread end. */
static void join_thread(struct ckpt *k)
{
    (void)copyout_settle(&k->out); /* the thread knows what came of it */
    background_join(&k->thread);
}

/* End a save, whatever became of it. */
static void drop_save(struct ckpt *k)
{
    join_thread(k);
    shard_job_free(&k->job);
    copyout_drop(&k->out);
    manifest_free(&k->commit.manifest);
    k->stage = STAGE_IDLE;
    atomic_store(&k->phase, CKPT_IDLE);
}

static kr_status enough_room(const struct ckpt *k, const struct ckpt_state *s)
{
    uint64_t have, want = pieces_whole_bytes(s) / 5 * 6;

    TRY(fs_free_bytes(k->run, &have));
    if (have >= want) return KR_OK;
    return KR_FAIL(KR_ERR_IO,
                   "%s: %" PRIu64 " MiB free, a checkpoint needs %" PRIu64 " MiB", k->run,
                   have >> 20, want >> 20);
}

kr_status ckpt_hold(struct ckpt *k, struct kern_queue *q)
{
    return copyout_hold(&k->out, q);
}

/* Rank 0: preflight, names, and a fresh attempt folder. */
static kr_status make_attempt(struct ckpt *k, const struct ckpt_state *s)
{
    uint32_t nonce = 0;

    if (getrandom(&nonce, sizeof nonce, 0) < 0) nonce = (uint32_t)(clock_now() * 1e6);
    TRY(enough_room(k, s));
    TRY(fs_path(k->commit.final, "%s/checkpoints/step-%08" PRId64, k->run, k->step));
    k->commit.manifest.generation = k->generation;
    TRY(commit_place(&k->commit));
    TRY(fs_path(k->commit.attempt,
                "%s/checkpoints/.attempt-%08" PRId64 "-%" PRId64 "-%08x", k->run, k->step,
                k->generation, nonce));
    return fs_mkdir(k->commit.attempt);
}

static kr_status plan_commit(struct ckpt *k, const struct ckpt_state *s, int64_t samples,
                             const char *settings)
{
    struct manifest *m = &k->commit.manifest;
    const char *about = k->config.about ? k->config.about : "";

    *m = (struct manifest){ .step = k->step,
                            .samples = samples,
                            .generation = k->generation,
                            .world = comm_size(k->comm) };
    TRY(mem_alloc(&m->settings, strlen(settings) + 1, 1, "settings"));
    TRY(mem_alloc(&m->about, strlen(about) + 1, 1, "settings"));
    TRY(mem_alloc(&m->tensors, (size_t)s->tensor_count, sizeof *m->tensors, "tensors"));
    strcpy(m->settings, settings);
    strcpy(m->about, about);
    memcpy(m->tensors, s->tensors, (size_t)s->tensor_count * sizeof *m->tensors);
    m->tensor_count = s->tensor_count;
    return KR_OK;
}

kr_status ckpt_reserve(struct ckpt *k, struct kern_queue *q,
                       const struct ckpt_state *state)
{
    TRY(copyout_open(&k->out, q));
    return k->out.side ? copyout_reserve(&k->out, pieces_bytes(state)) : KR_OK;
}

/* What the shard is made of, and a host copy of its bytes. */
static kr_status stage(struct ckpt *k, struct kern_queue *q, const struct ckpt_state *s)
{
    TRY(copyout_open(&k->out, q));
    TRY(copyout_start(&k->out, q, s));
    return shard_job_fill(&k->job, s, comm_rank(k->comm), k->out.to);
}

static kr_status name_files(struct ckpt *k)
{
    snprintf(k->job.shard.file, sizeof k->job.shard.file, "shard-%05d.h5",
             comm_rank(k->comm));
    TRY(fs_path(k->commit.run, "%s", k->run));
    k->commit.lease = k->lease;
    return fs_path(k->job.path, "%s/%s", k->commit.attempt, k->job.shard.file);
}

/* Everyone learns the names of the folders and copies its state. */
static kr_status prepare(struct ckpt *k, struct kern_queue *q, const struct ckpt_state *s,
                         int64_t samples, const char *settings)
{
    kr_status st;

    TRY(comm_share(k->comm, k->commit.attempt, sizeof k->commit.attempt));
    TRY(comm_share(k->comm, k->commit.place, sizeof k->commit.place));
    st = plan_commit(k, s, samples, settings);
    if (st == KR_OK) st = stage(k, q, s);
    if (st == KR_OK) st = name_files(k);
    return comm_agree(k->comm, st);
}

kr_status ckpt_save(struct ckpt *k, struct kern_queue *q, const struct ckpt_state *state,
                    int64_t step, int64_t samples, const char *settings)
{
    double begin = clock_now();
    kr_status st;

    TRY(ckpt_wait(k, NULL));
    k->step = step;
    k->last_saved = false;
    st = comm_agree(k->comm, is_first(k) ? make_attempt(k, state) : KR_OK);
    if (st == KR_ERR_COMM) return st;
    if (st != KR_OK) {
        if (is_first(k))
            LOG_WARNING("no checkpoint of step %" PRId64 "; training goes on", step);
        return KR_OK;
    }
    st = prepare(k, q, state, samples, settings);
    if (st != KR_OK) {
        if (is_first(k)) (void)fs_remove_tree(k->commit.attempt);
        drop_save(k);
        return st;
    }
    k->stage = STAGE_WRITING;
    atomic_store(&k->phase, CKPT_WRITING);
    background_start(&k->thread, write_thread, k);
    k->stalled += clock_now() - begin;
    return k->config.async ? KR_OK : ckpt_wait(k, NULL);
}

/* ---- moving on -------------------------------------------------------------------------- */

static bool all_are(const struct ckpt *k, const enum ckpt_phase *phases,
                    enum ckpt_phase p)
{
    for (int32_t r = 0; r < comm_size(k->comm); r++)
        if (phases[r] != p) return false;
    return true;
}

static bool any_is(const struct ckpt *k, const enum ckpt_phase *phases, enum ckpt_phase p)
{
    for (int32_t r = 0; r < comm_size(k->comm); r++)
        if (phases[r] == p) return true;
    return false;
}

/* All shards are on disk: rank 0 gets their descriptions and commits. */
static kr_status begin_commit(struct ckpt *k)
{
    char *mine = NULL, *parts = NULL;
    kr_status st;

    join_thread(k);
    st = comm_agree(k->comm, shard_part_print(&k->job, &mine));
    if (st == KR_OK) st = comm_gather_texts(k->comm, mine, &parts);
    if (st == KR_OK && is_first(k))
        st = shard_parts_join(parts, comm_size(k->comm), &k->commit.manifest);
    mem_free(mine);
    mem_free(parts);
    st = comm_agree(k->comm, st);
    if (st == KR_ERR_COMM) return st;
    k->stage = STAGE_COMMITTING;
    if (st != KR_OK)
        atomic_store(&k->phase, CKPT_FAILED);
    else if (is_first(k))
        background_start(&k->thread, commit_thread, k);
    return KR_OK;
}

static void begin_verify(struct ckpt *k)
{
    join_thread(k);
    copyout_drop(&k->out);
    k->before = k->newest;
    k->newest = k->step;
    k->last_saved = true;
    k->stage = STAGE_VERIFYING;
    atomic_store(&k->phase, CKPT_WRITING);
    background_start(&k->thread, verify_thread, k);
}

static void finish(struct ckpt *k)
{
    int32_t removed;

    drop_save(k);
    if (is_first(k) && lease_check(k->lease) == KR_OK &&
        (commit_settle(&k->commit) != KR_OK ||
         catalog_prune(k->run, k->config.keep, k->generation, false, &removed) != KR_OK))
        LOG_WARNING("old checkpoints could not all be removed");
}

/* Somebody failed.  Before the commit the attempt goes; after it, what was read back was
 * not what was written, and the checkpoint goes. */
static void give_up(struct ckpt *k)
{
    bool committed = k->stage == STAGE_VERIFYING;

    join_thread(k);
    if (is_first(k)) {
        LOG_WARNING("the checkpoint of step %" PRId64 " %s; training goes on", k->step,
                    committed ? "did not read back right and is removed" : "failed");
        (void)(committed ? catalog_remove(k->commit.place)
                         : fs_remove_tree(k->commit.attempt));
    }
    k->last_saved = false;
    if (committed) k->newest = k->before;
    drop_save(k);
}

kr_status ckpt_advance(struct ckpt *k, const enum ckpt_phase *phases)
{
    if (k->stage == STAGE_IDLE) return KR_OK;
    if (any_is(k, phases, CKPT_FAILED)) {
        /* the others may still be at work in the attempt: first let all end */
        join_thread(k);
        TRY(comm_agree(k->comm, KR_OK));
        give_up(k);
        return KR_OK;
    }
    if (k->stage == STAGE_WRITING && all_are(k, phases, CKPT_WRITTEN))
        return begin_commit(k);
    if (k->stage == STAGE_COMMITTING && phases[0] == CKPT_COMMITTED) begin_verify(k);
    if (k->stage == STAGE_VERIFYING && all_are(k, phases, CKPT_VERIFIED)) finish(k);
    return KR_OK;
}

/* Rounds of: let the own thread end, tell each other, advance. */
static kr_status wait_rounds(struct ckpt *k, enum ckpt_phase *phases)
{
    while (k->stage != STAGE_IDLE) {
        enum ckpt_phase mine;

        join_thread(k);
        mine = ckpt_phase(k);
        TRY(comm_all_gather_bytes(k->comm, &mine, sizeof mine, phases));
        TRY(ckpt_advance(k, phases));
    }
    return KR_OK;
}

kr_status ckpt_wait(struct ckpt *k, bool *saved)
{
    double begin = clock_now();
    enum ckpt_phase *phases = NULL;
    kr_status st;

    if (k->stage != STAGE_IDLE) {
        TRY(mem_alloc(&phases, (size_t)comm_size(k->comm), sizeof *phases, "phases"));
        st = wait_rounds(k, phases);
        mem_free(phases);
        k->stalled += clock_now() - begin;
        if (st != KR_OK) return st;
    }
    if (saved) *saved = k->last_saved;
    return KR_OK;
}
