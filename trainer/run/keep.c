/* keep.c - schedule, tell, judge. */
#include "trainer/run/keep.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

kr_status keep_open(struct keep *k, struct trainer *t, const struct state *state,
                    const char *run, int64_t generation)
{
    struct snapshot_config config = { .run = run,
                                      .dir = t->set.snapshot_dir,
                                      .settings = state_fingerprint(state, &t->set),
                                      .generation = generation,
                                      .layout = state_layout,
                                      .self = t };

    *k = (struct keep){ .t = t, .told = -1 };
    if (strcmp(t->set.snapshot_every, "0") == 0) return KR_OK;
    return snapshot_open(&k->snapshot, t->comm, &state->view, &config);
}

kr_status keep_start(struct keep *k, const struct resumed *from)
{
    const char *text;

    k->told = -1;
    k->looking = false;
    interval_begin(&k->interval, &k->t->set, from->step);
    if (!k->snapshot) return KR_OK;
    TRY(snapshot_start(k->snapshot, from->from_memory, &text));
    if (comm_rank(k->t->comm) == 0 && *text)
        LOG_NOTE("snapshots in %s, every = %s: %s", k->t->set.snapshot_dir,
                 k->t->set.snapshot_every, text);
    return KR_OK;
}

void keep_close(struct keep *k, bool forget)
{
    snapshot_close(k->snapshot, forget);
    k->snapshot = NULL;
}

void keep_words(const struct keep *k, struct step_words *words)
{
    words->memory = k->snapshot ? snapshot_newest(k->snapshot) : -1;
    words->stall = k->stall;
    words->replica = k->looking;
}

/* ---- replicas ------------------------------------------------------------------------ */

/* The checksum that most ranks told; *votes of them. */
static uint64_t majority(const struct step_words *words, int32_t ranks, int32_t *votes)
{
    uint64_t best = 0;

    *votes = 0;
    for (int32_t r = 0; r < ranks && 2 * *votes <= ranks; r++) {
        int32_t n = 0;

        for (int32_t i = 0; i < ranks; i++)
            n += words[i].replica == words[r].replica;
        if (n > *votes) {
            *votes = n;
            best = words[r].replica;
        }
    }
    return best;
}

static void judge(const struct keep *k, const struct step_words *words,
                  struct keep_verdict *out)
{
    int32_t ranks = comm_size(k->t->comm), votes;
    uint64_t most = majority(words, ranks, &votes);
    bool tie = 2 * votes <= ranks;

    *out = (struct keep_verdict){ .step = -1, .suspect = -1 };
    if (votes == ranks) return;
    out->step = k->replica_step;
    out->count = tie ? ranks : ranks - votes;
    out->mine = tie || words[comm_rank(k->t->comm)].replica != most;
    for (int32_t r = ranks - 1; r >= 0 && !tie; r--)
        if (words[r].replica != most) out->suspect = r;
}

kr_status keep_compare(struct keep *k, int64_t done, struct keep_verdict *verdict)
{
    struct step_words mine = { 0 }, *all = NULL;
    struct comm *c = k->t->comm;
    kr_status st;

    *verdict = (struct keep_verdict){ .step = -1, .suspect = -1 };
    if (comm_size(c) == 1) return KR_OK; /* nobody to compare with */
    k->replica_step = done;
    st = shard_checksum_start(k->t->shard);
    if (st == KR_OK) st = kern_queue_sync(k->t->q);
    if (st == KR_OK) mine.replica = shard_checksum(k->t->shard);
    TRY(comm_agree(c, st));
    TRY(mem_alloc(&all, (size_t)comm_size(c), sizeof *all, "checksums"));
    st = comm_all_gather_bytes(c, &mine, sizeof mine, all);
    if (st == KR_OK) judge(k, all, verdict);
    mem_free(all);
    return st;
}

/* ---- once a step --------------------------------------------------------------------- */

static int64_t smallest(const struct step_words *words, int32_t ranks)
{
    int64_t least = words[0].memory;

    for (int32_t r = 1; r < ranks; r++)
        if (words[r].memory < least) least = words[r].memory;
    return least;
}

kr_status keep_step(struct keep *k, const struct step_words *words,
                    struct keep_verdict *verdict)
{
    int32_t ranks = comm_size(k->t->comm);

    *verdict = (struct keep_verdict){ .step = -1, .suspect = -1 };
    if (!k->snapshot) return KR_OK;
    interval_learn(&k->interval, words, ranks);
    if (k->looking) judge(k, words, verdict);
    k->looking = false;
    if (smallest(words, ranks) != k->told) {
        k->told = smallest(words, ranks);
        if (k->told >= 0) pulse_snapshot(k->t->pulse, k->told, k->stall);
    }
    return snapshot_advance(k->snapshot, k->told);
}

kr_status keep_take(struct keep *k, int64_t done)
{
    struct trainer *t = k->t;
    double start = clock_now(), seconds;

    if (!k->snapshot || !snapshot_is_on(k->snapshot) || !interval_due(&k->interval, done))
        return KR_OK;
    pulse_phase(t->pulse, PULSE_SNAPSHOT);
    if (comm_size(t->comm) > 1) {
        TRY(shard_checksum_start(t->shard));
        k->looking = true;
    }
    k->replica_step = done;
    TRY(snapshot_take(k->snapshot, t->q, done, done * t->set.batch, k->told, &seconds));
    k->stall = clock_now() - start;
    k->stalled += k->stall;
    k->taken++;
    interval_taken(&k->interval, done);
    return KR_OK;
}
