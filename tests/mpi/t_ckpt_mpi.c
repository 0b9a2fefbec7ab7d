/*
 * t_ckpt_mpi.c - all ranks save together, load in any other shares, and agree on what
 * happened when one of them could not.
 *
 * State s of the rig is the state of step s.
 */
/* RANKS: 1 2 4 */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "tests/unit/rig.h"

#include "tests/mpi/ranks.h" /* its names are those of parameters above */

static char root[FS_PATH]; /* of all runs; the same on all ranks */

static void new_run(char run[FS_PATH])
{
    static int number;

    rig_must(fs_path(run, "%s/run-%d", root, number++));
}

/* This rank's share; `awkward` chooses where the tensors are cut. */
static void open_rig(struct rig *r, int awkward)
{
    rig_open(r, rig_small);
    r->comm = group;
    rig_split(r, rank, size, awkward);
}

static struct ckpt *open_run(const char *run, bool read_only)
{
    struct ckpt_config config = { run, 3, true, read_only, "test" };
    struct ckpt *k = NULL;

    rig_must(ckpt_open(&k, group, &config));
    return k;
}

static bool save(struct ckpt *k, struct rig *r, int64_t step)
{
    bool saved = false;

    rig_fill(r, (uint64_t)step);
    CHECK_I64(ckpt_save(k, r->q, &r->state, step, step, ""), ==, KR_OK);
    CHECK_I64(ckpt_wait(k, &saved), ==, KR_OK);
    return saved;
}

/* The step that loads in the shares of `awkward`; -3 if its bits are of no step. */
static int64_t load(const char *run, int awkward)
{
    struct ckpt *k = open_run(run, true);
    struct rig r;
    int64_t step = -1;
    kr_status st;

    open_rig(&r, awkward);
    st = rig_load(k, &r, &step);
    if (st == KR_OK && step >= 0 && rig_wrong(&r, (uint64_t)step) != 0) step = -3;
    rig_close(&r);
    ckpt_close(k);
    return st == KR_OK ? step : -2;
}

/* Every rank says the same. */
static void all_say(int64_t mine, int64_t want)
{
    int64_t all[64];

    CHECK_I64(mine, ==, want);
    rig_must(comm_all_gather_bytes(group, &mine, sizeof mine, all));
    for (int32_t i = 0; i < size; i++)
        CHECK_I64(all[i], ==, want);
}

static void what_is_saved_together_loads_in_any_shares(void)
{
    char run[FS_PATH];
    struct ckpt *k;
    struct rig r;

    new_run(run);
    k = open_run(run, false);
    for (int awkward = 0; awkward < 3; awkward++) {
        open_rig(&r, awkward);
        all_say(save(k, &r, 10 + awkward), true);
        rig_close(&r);
        for (int other = 0; other < 3; other++)
            all_say(load(run, other), 10 + awkward);
    }
    ckpt_close(k);
}

/* All state on the last rank: the others write shards of nothing. */
static void ranks_may_hold_nothing(void)
{
    char run[FS_PATH];
    struct ckpt *k;
    struct rig r;

    new_run(run);
    k = open_run(run, false);
    rig_open(&r, rig_small);
    r.comm = group;
    if (rank == size - 1) rig_split(&r, 0, 1, 0);
    all_say(save(k, &r, 5), true);
    rig_close(&r);
    ckpt_close(k);
    all_say(load(run, 1), 5);
}

/* As the training loop does: each step all ranks learn all phases. */
static void phases_told_once_a_step_bring_a_save_to_its_end(void)
{
    enum ckpt_phase mine, all[64];
    char run[FS_PATH];
    struct ckpt *k;
    struct rig r;

    new_run(run);
    k = open_run(run, false);
    open_rig(&r, 0);
    rig_fill(&r, 7);
    CHECK_I64(ckpt_save(k, r.q, &r.state, 7, 7, ""), ==, KR_OK);
    rig_fill(&r, 99); /* training goes on */
    for (int step = 0; step < 2000 && ckpt_newest(k) != 7; step++) {
        mine = ckpt_phase(k);
        rig_must(comm_all_gather_bytes(group, &mine, sizeof mine, all));
        CHECK_I64(ckpt_advance(k, all), ==, KR_OK);
        clock_sleep(0.002);
    }
    all_say(ckpt_newest(k), 7);
    rig_close(&r);
    ckpt_close(k);
    all_say(load(run, 2), 7);
}

/* One rank may write no byte: nobody's save counts, and the next one is whole. */
static void one_rank_that_cannot_write_voids_the_save_of_all(void)
{
    struct rlimit old, none;
    char run[FS_PATH];
    struct ckpt *k;
    struct rig r;
    bool saved;

    new_run(run);
    k = open_run(run, false);
    open_rig(&r, 0);
    all_say(save(k, &r, 10), true);
    rig_must(getrlimit(RLIMIT_FSIZE, &old) == 0 ? KR_OK : KR_ERR_IO);
    none = (struct rlimit){ 100, old.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    if (rank == size - 1) setrlimit(RLIMIT_FSIZE, &none);
    log_mute(true);
    saved = save(k, &r, 20);
    log_mute(false);
    setrlimit(RLIMIT_FSIZE, &old);
    all_say(saved, false);
    all_say(load(run, 1), 10);
    all_say(save(k, &r, 30), true);
    all_say(load(run, 1), 30);
    rig_close(&r);
    ckpt_close(k);
}

/* The shard of one rank is damaged: all ranks go back to the same older checkpoint, also
 * those whose own part is right. */
static void one_damaged_shard_sends_all_ranks_back(void)
{
    char run[FS_PATH], path[FS_PATH];
    struct ckpt *k;
    struct rig r;

    new_run(run);
    k = open_run(run, false);
    open_rig(&r, 0);
    all_say(save(k, &r, 10), true);
    all_say(save(k, &r, 20), true);
    rig_close(&r);
    ckpt_close(k);
    if (rank == 0) {
        rig_must(
            fs_path(path, "%s/checkpoints/step-00000020/shard-%05d.h5", run, size - 1));
        CHECK_I64(truncate(path, 1000), ==, 0);
    }
    rig_must(comm_agree(group, KR_OK));
    log_mute(true);
    all_say(load(run, 0), 10);
    log_mute(false);
}

int main(void)
{
    ranks_open("t_ckpt_mpi");
    if (rank == 0) rig_folder(root, "t_ckpt_mpi");
    rig_must(comm_share(group, root, sizeof root));
    RUN(what_is_saved_together_loads_in_any_shares);
    RUN(ranks_may_hold_nothing);
    RUN(phases_told_once_a_step_bring_a_save_to_its_end);
    RUN(one_rank_that_cannot_write_voids_the_save_of_all);
    RUN(one_damaged_shard_sends_all_ranks_back);
    if (rank == 0) rig_must(fs_remove_tree(root));
    return ranks_close();
}
