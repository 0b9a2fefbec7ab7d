/* t_ckpt.c - what is saved is loaded, and what is kept. */
#include <fcntl.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/unit/rig_run.h"

/* ---- saving --------------------------------------------------------------------------- */

static void an_empty_run_has_nothing_to_load(void)
{
    char run[FS_PATH];

    new_run(run);
    CHECK_I64(newest(run, true), ==, -1);
    CHECK(!fs_exists(run));
    CHECK_I64(newest(run, false), ==, -1);
}

static void what_was_saved_is_loaded(void)
{
    char run[FS_PATH];
    struct rig r;
    struct ckpt *k;
    struct ckpt_info info;

    new_run(run);
    CHECK_I64(save_steps(run, 10, 30, 2), ==, 0);
    CHECK_I64(newest(run, false), ==, 30);
    CHECK_I64(steps_there(run), ==, 2);
    CHECK_I64(leftovers(run), ==, 0);
    open_rig(&r);
    CHECK_I64(open_run(&k, &r, run, 2, true), ==, KR_OK);
    CHECK_I64(ckpt_next(k, &info), ==, KR_OK);
    CHECK_I64(info.step, ==, 30);
    CHECK_I64(info.samples, ==, 240);
    CHECK_I64(info.world, ==, 1);
    CHECK_STR(info.settings, "[a]\nb = 1\n");
    mem_free(info.settings);
    ckpt_close(k);
    close_rig(&r);
}

/* The copy is taken at once: what the trainer does afterwards is not in it. */
static void training_may_go_on_while_it_is_written(void)
{
    char run[FS_PATH];
    struct rig r;
    struct ckpt *k;
    enum ckpt_phase phase;
    bool saved = false;

    new_run(run);
    open_rig(&r);
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_OK);
    CHECK_I64(ckpt_newest(k), ==, -1);
    rig_fill(&r, 10);
    CHECK_I64(ckpt_save(k, r.q, &r.state, 10, 80, ""), ==, KR_OK);
    rig_fill(&r, 77);
    for (int i = 0; i < 5000 && ckpt_newest(k) != 10; i++) {
        phase = ckpt_phase(k);
        CHECK_I64(ckpt_advance(k, &phase), ==, KR_OK);
        clock_sleep(0.001);
    }
    CHECK_I64(ckpt_newest(k), ==, 10);
    CHECK_I64(ckpt_wait(k, &saved), ==, KR_OK);
    CHECK(saved);
    ckpt_close(k);
    close_rig(&r);
    CHECK_I64(newest(run, false), ==, 10);
}

/* Tensors of several blocks, and a load in other pieces than the save. */
static void blocks_and_other_pieces(void)
{
    static const struct ckpt_tensor big[RIG_TENSORS] = {
        { "weight/big", 1100, 1021, KERN_F32 }, /* 4.3 MiB: two blocks */
        { "weight/norm.gain", 1, 333, KERN_F32 },
        { "weight/half", 9, 13, KERN_BF16 },
        { "adam_m/big", 600, 1021, KERN_F64 },
    };
    struct comm_config self = { "self", 10, "" };
    char run[FS_PATH];
    struct rig r;
    struct ckpt *k;
    int64_t step = 0;

    new_run(run);
    rig_open(&r, big);
    rig_must(comm_open(&r.comm, &self));
    for (int32_t part = 0; part < 3; part++)
        rig_split(&r, part, 3, 2);
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_OK);
    CHECK(save_one(k, &r, 10));
    ckpt_close(k);
    close_rig(&r);
    rig_open(&r, big);
    rig_must(comm_open(&r.comm, &self));
    rig_add_piece(&r, 0, 17, 1100 * 1021 - 5);
    rig_add_piece(&r, 0, 0, 18); /* overlapping is fine */
    rig_add_piece(&r, 3, 524287, 524290);
    CHECK_I64(open_run(&k, &r, run, 2, true), ==, KR_OK);
    CHECK_I64(rig_load(k, &r, &step), ==, KR_OK);
    CHECK_I64(step, ==, 10);
    CHECK_I64(rig_wrong(&r, 10), ==, 0);
    ckpt_close(k);
    close_rig(&r);
}

/* A piece outside its tensor, or a tensor of another shape, is an error, not memory left
 * as it was. */
static void wrong_shapes_are_refused(void)
{
    char run[FS_PATH];
    struct rig r;
    struct ckpt *k;
    struct ckpt_info info;

    new_run(run);
    CHECK_I64(save_steps(run, 10, 10, 2), ==, 0);
    open_rig(&r);
    CHECK_I64(open_run(&k, &r, run, 2, true), ==, KR_OK);
    CHECK_I64(ckpt_next(k, &info), ==, KR_OK);
    mem_free(info.settings);
    r.tensors[0].rows++;
    CHECK_I64(ckpt_read(k, r.q, &r.state), ==, KR_ERR_ARG);
    r.tensors[0].rows--;
    r.tensors[1].type = KERN_BF16;
    CHECK_I64(ckpt_read(k, r.q, &r.state), ==, KR_ERR_ARG);
    r.tensors[1].type = KERN_F32;
    strcpy(r.tensors[1].name, "weight/other");
    CHECK_I64(ckpt_read(k, r.q, &r.state), ==, KR_ERR_ARG);
    strcpy(r.tensors[1].name, rig_small[1].name);
    r.pieces[1].begin = 5;
    CHECK_I64(ckpt_read(k, r.q, &r.state), ==, KR_ERR_ARG);
    r.pieces[1].begin = 0;
    CHECK_I64(ckpt_read(k, r.q, &r.state), ==, KR_OK);
    ckpt_close(k);
    close_rig(&r);
}

/* Pieces that do not tile the tensors are no checkpoint; the older one stays. */
static void a_state_with_a_hole_is_not_committed(void)
{
    char run[FS_PATH];
    struct rig r;
    struct ckpt *k;
    bool saved = true;

    new_run(run);
    CHECK_I64(save_steps(run, 10, 10, 2), ==, 0);
    open_rig(&r);
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_OK);
    r.pieces[0].count--;
    rig_fill(&r, 10);
    CHECK_I64(ckpt_save(k, r.q, &r.state, 10, 80, ""), ==, KR_OK);
    CHECK_I64(ckpt_wait(k, &saved), ==, KR_OK);
    CHECK(!saved);
    r.pieces[0].count++;
    ckpt_close(k);
    close_rig(&r);
    CHECK_I64(newest(run, false), ==, 10);
    CHECK_I64(leftovers(run), ==, 0);
}

static void the_same_step_twice(void)
{
    char run[FS_PATH], path[FS_PATH];

    new_run(run);
    CHECK_I64(save_steps(run, 10, 10, 2), ==, 0);
    CHECK_I64(save_steps(run, 10, 10, 2), ==, 0);
    CHECK_I64(newest(run, false), ==, 10);
    CHECK_I64(steps_there(run), ==, 1);
    file_of(path, run, 10, "manifest.json");
    rig_must(fs_replace(path, "{}", 2));
    CHECK_I64(newest(run, false), ==, -2);
    CHECK_I64(save_steps(run, 10, 10, 2), ==, 0);
    CHECK_I64(newest(run, false), ==, 10);
    CHECK_I64(leftovers(run), ==, 0);
}

static int loose_modes(const char *path)
{
    struct stat st;
    char **names, child[FS_PATH];
    size_t count;
    int bad = 0;

    if (lstat(path, &st) == 0 && (st.st_mode & 077)) {
        printf("# mode %03o: %s\n", st.st_mode & 0777, path);
        bad++;
    }
    if (!S_ISDIR(st.st_mode)) return bad;
    rig_must(fs_list(path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        rig_must(fs_path(child, "%s/%s", path, names[i]));
        bad += loose_modes(child);
    }
    fs_free_names(names, count);
    return bad;
}

static void nobody_else_may_read(void)
{
    char run[FS_PATH];
    mode_t old = umask(0);

    new_run(run);
    CHECK_I64(save_steps(run, 10, 20, 2), ==, 0);
    umask(old);
    CHECK_I64(loose_modes(run), ==, 0);
}

/* ---- keeping -------------------------------------------------------------------------- */

static void the_newest_steps_stay_whatever_their_dates(void)
{
    struct timespec old[2] = { { 1, 0 }, { 1, 0 } };
    char run[FS_PATH], path[FS_PATH];

    new_run(run);
    CHECK_I64(save_steps(run, 10, 20, 2), ==, 0);
    file_of(path, run, 20, "");
    utimensat(AT_FDCWD, path, old, 0);
    CHECK_I64(save_steps(run, 30, 30, 2), ==, 0);
    file_of(path, run, 20, "manifest.json");
    CHECK(fs_exists(path));
    file_of(path, run, 10, "");
    CHECK(!fs_exists(path));
    CHECK_I64(newest(run, true), ==, 30);
}

static void newer_generations_are_never_deleted(void)
{
    char run[FS_PATH];
    int32_t removed;

    new_run(run);
    for (int step = 10; step <= 40; step += 10)
        CHECK_I64(save_steps(run, step, step, 9), ==, 0); /* generations 1 to 4 */
    CHECK_I64(catalog_prune(run, 1, 2, false, &removed), ==, KR_OK);
    CHECK_I64(removed, ==, 1);
    CHECK_I64(steps_there(run), ==, 3); /* 40 and 30 are newer, 20 is kept */
    CHECK_I64(newest(run, true), ==, 40);
}

int main(int argc, char **argv)
{
    log_mute(getenv("T_CKPT_LOUD") == NULL);
    (void)argc, (void)argv;
    rig_folder(root, "t_ckpt");
    RUN(an_empty_run_has_nothing_to_load);
    RUN(what_was_saved_is_loaded);
    RUN(training_may_go_on_while_it_is_written);
    RUN(blocks_and_other_pieces);
    RUN(wrong_shapes_are_refused);
    RUN(a_state_with_a_hole_is_not_committed);
    RUN(the_same_step_twice);
    RUN(nobody_else_may_read);
    RUN(the_newest_steps_stay_whatever_their_dates);
    RUN(newer_generations_are_never_deleted);
    rig_must(fs_remove_tree(root));
    return check_done();
}
