/*
 * t_ckpt_faults.c - a checkpoint exists wholly or not at all, whatever happens to the
 * process or the disk.
 *
 * Crashes and failing calls are injected by KILORANK_FS_FAULT into this program started
 * again as   t_ckpt_faults save RUN FROM TO   : one save for each step from FROM to TO by
 * tens.
 */
#include <signal.h>
#include <sys/resource.h>

#include "base/log.h"
#include "tests/unit/rig_run.h"

/* ---- crashes -------------------------------------------------------------------------- */

struct scene {
    const char *name;
    int64_t before, after; /* steps: what is there, what is saved when the crash comes */
};

/* Crash at the n-th call; false when the save ended before. */
static bool crash_at(const struct scene *s, const char *how, int n)
{
    char run[FS_PATH], fault[64], after[24];
    int64_t found;
    int end;

    new_run(run);
    if (save_steps(run, s->before, s->before, 1) != 0) rig_must(KR_ERR_IO);
    snprintf(fault, sizeof fault, "any:%d:%s", n, how);
    snprintf(after, sizeof after, "%" PRId64, s->after);
    end = ended(start("save", run, after, after, fault));
    if (end == 0) return false;
    CHECK_I64(end, ==, 1000 + SIGKILL);
    found = newest(run, false);
    if (found != s->before && found != s->after) {
        printf("# %s: call %d: loaded %" PRId64 "\n", s->name, n, found);
        check_bad_here++;
    }
    if (leftovers(run) != 0) {
        printf("# %s: call %d\n", s->name, n);
        check_bad_here++;
    }
    CHECK_I64(save_steps(run, s->after + 10, s->after + 10, 1), ==, 0);
    CHECK_I64(newest(run, false), ==, s->after + 10);
    rig_must(fs_remove_tree(run));
    return true;
}

static void crashes(const struct scene *s)
{
    int n = 1;

    while (crash_at(s, "crash", n))
        n++;
    printf("# %s: killed at each of %d calls\n", s->name, n - 1);
    CHECK_I64(n, >, 30);
}

static void a_crash_anywhere_leaves_the_old_or_the_new(void)
{
    static const struct scene s = { "next step", 10, 20 };

    crashes(&s);
}

static void a_crash_while_a_step_is_saved_again(void)
{
    static const struct scene s = { "same step", 10, 10 };

    crashes(&s);
}

/* ---- failing calls -------------------------------------------------------------------- */

enum { SAVED = 20 }; /* exit code: SAVED, + 1 if step 20 was saved, + 2 if step 30 was */

/* The process under test: save steps 20 and 30, with the fault in one of them. */
static int save_through_fault(const char *run)
{
    struct rig r;
    struct ckpt *k;
    int code = SAVED;

    open_rig(&r);
    if (open_run(&k, &r, run, 2, false) != KR_OK) {
        close_rig(&r);
        return REFUSED;
    }
    code += save_one(k, &r, 20);
    code += 2 * save_one(k, &r, 30);
    ckpt_close(k);
    close_rig(&r);
    return code;
}

/* Calls fail as `fmt` says from or at the n-th one on; the exit code. */
static int fail_at(int n, const char *fmt)
{
    char run[FS_PATH], fault[64];
    int64_t found, least;
    int end;

    new_run(run);
    if (save_steps(run, 10, 10, 2) != 0) rig_must(KR_ERR_IO);
    snprintf(fault, sizeof fault, fmt, n);
    end = ended(start("fault", run, "", "", fault));
    least = end >= SAVED + 2 ? 30 : end == SAVED + 1 ? 20 : 10;
    found = newest(run, false);
    if ((end != REFUSED && (end < SAVED || end > SAVED + 3)) || found < least) {
        printf("# %s: ended with %d, then loaded %" PRId64 "\n", fault, end, found);
        check_bad_here++;
    }
    CHECK_I64(leftovers(run), ==, 0);
    CHECK_I64(save_steps(run, 40, 40, 2), ==, 0);
    CHECK_I64(newest(run, false), ==, 40);
    rig_must(fs_remove_tree(run));
    return end;
}

/* One failing call costs one save at most, and training goes on. */
static void any_call_may_fail_once(void)
{
    int lost_20 = 0, lost_30 = 0;

    for (int n = 1; n <= 100; n++) {
        int end = fail_at(n, "any:%d:EIO");

        CHECK_I64(end, !=, SAVED);
        lost_20 += end == SAVED + 2;
        lost_30 += end == SAVED + 1;
    }
    printf("# step 20 was lost by %d calls, step 30 by %d\n", lost_20, lost_30);
    CHECK_I64(lost_20, >, 10);
    CHECK_I64(lost_30, >, 10);
}

/* Also the calls that read back: the old one is there until the new one is known to be
 * right, though no other checkpoint is. */
static void a_step_saved_again_is_never_lost(void)
{
    int lost = 0, n = 1;

    for (int end = NOT_SAVED; end != 0; n++) {
        char run[FS_PATH], fault[64];

        new_run(run);
        if (save_steps(run, 10, 10, 1) != 0) rig_must(KR_ERR_IO);
        snprintf(fault, sizeof fault, "any:%d:EIO", n);
        end = ended(start("save", run, "10", "10", fault));
        if (end != 0) CHECK(end == NOT_SAVED || end == REFUSED);
        lost += end == NOT_SAVED;
        if (newest(run, false) != 10) {
            printf("# call %d failed, and step 10 is lost\n", n);
            check_bad_here++;
        }
        CHECK_I64(leftovers(run), ==, 0);
        rig_must(fs_remove_tree(run));
        if (n < 60) end = NOT_SAVED; /* some calls may fail without harm */
    }
    printf("# %d of %d calls cost the save\n", lost, n - 1);
    CHECK_I64(lost, >, 20);
}

static void the_disk_may_be_full(void)
{
    for (int n = 1; n <= 12; n++) /* from the lease to the manifest of step 30 */
        CHECK_I64(fail_at(n, "write:%d+:ENOSPC"), <=, SAVED + 1);
}

static void fsync_may_fail_for_good(void)
{
    for (int n = 1; n <= 8; n++)
        (void)fail_at(n, "fsync:%d+:EIO");
}

/* The limit hits the HDF5 library's own writes too, which no injected fault reaches. */
static void no_file_may_grow(void)
{
    struct rlimit old, small;
    char run[FS_PATH];
    struct rig r;
    struct ckpt *k;

    new_run(run);
    CHECK_I64(save_steps(run, 10, 10, 2), ==, 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    open_rig(&r);
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_OK);
    for (rlim_t bytes = 1; bytes < 40000; bytes = bytes * 3 + 1) {
        small = (struct rlimit){ bytes, old.rlim_max };
        setrlimit(RLIMIT_FSIZE, &small);
        CHECK(!save_one(k, &r, 20));
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK_I64(newest(run, true), ==, 10);
    }
    CHECK(save_one(k, &r, 20));
    ckpt_close(k);
    close_rig(&r);
    CHECK_I64(newest(run, false), ==, 20);
    CHECK_I64(leftovers(run), ==, 0);
}

/* ---- main ----------------------------------------------------------------------------- */

static int other(char **argv)
{
    const char *what = argv[1], *run = argv[2];

    if (strcmp(what, "save") == 0)
        return save_steps(run, atoi(argv[3]), atoi(argv[4]), 1);
    if (strcmp(what, "fault") == 0) return save_through_fault(run);
    return 97;
}

int main(int argc, char **argv)
{
    log_mute(getenv("T_CKPT_LOUD") == NULL);
    if (argc == 5) return other(argv);
    rig_folder(root, "t_ckpt_faults");
    RUN(a_crash_anywhere_leaves_the_old_or_the_new);
    RUN(a_crash_while_a_step_is_saved_again);
    RUN(any_call_may_fail_once);
    RUN(a_step_saved_again_is_never_lost);
    RUN(the_disk_may_be_full);
    RUN(fsync_may_fail_for_good);
    RUN(no_file_may_grow);
    rig_must(fs_remove_tree(root));
    return check_done();
}
