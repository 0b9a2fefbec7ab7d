/* t_ckpt_reader.c - a bad file is found, and the checkpoint before it loaded. */
#include <fcntl.h>

#include "base/log.h"
#include "tests/unit/rig_run.h"

/* ---- bad files ------------------------------------------------------------------------ */

static char damaged_run[FS_PATH]; /* steps 10 and 20 */

static uint64_t size_of(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Flip a bit of step 20's file, load, flip it back. */
static void flip(const char *name, uint64_t byte, int bit)
{
    char path[FS_PATH], c = 0;
    int64_t found;
    int fd;

    file_of(path, damaged_run, 20, name);
    fd = open(path, O_RDWR);
    if (fd < 0 || pread(fd, &c, 1, (off_t)byte) != 1) rig_must(KR_ERR_IO);
    c = (char)(c ^ 1 << bit);
    if (pwrite(fd, &c, 1, (off_t)byte) != 1) rig_must(KR_ERR_IO);
    found = newest(damaged_run, true);
    if (found != 10) {
        printf("# %s: bit %d of byte %" PRIu64 " flipped: loaded %" PRId64 "\n", name,
               bit, byte, found);
        check_bad_here++;
    }
    c = (char)(c ^ 1 << bit);
    if (pwrite(fd, &c, 1, (off_t)byte) != 1) rig_must(KR_ERR_IO);
    close(fd);
}

static void flipped_bits_of_a_shard_are_found(void)
{
    char path[FS_PATH];
    uint64_t bytes;

    file_of(path, damaged_run, 20, "shard-00000.h5");
    bytes = size_of(path);
    for (uint64_t i = 0; i < 200; i++)
        flip("shard-00000.h5", rng_u64(5, RNG_TEST, 1, i) % bytes,
             (int)(rng_u64(5, RNG_TEST, 2, i) % 8));
    for (uint64_t i = 0; i < 200; i++) /* superblock, object headers */
        flip("shard-00000.h5", i < 100 ? i : rng_u64(5, RNG_TEST, 3, i) % 4096,
             (int)(i % 8));
}

static void flipped_bits_of_a_manifest_are_found(void)
{
    char path[FS_PATH];
    uint64_t bytes;

    file_of(path, damaged_run, 20, "manifest.json");
    bytes = size_of(path);
    for (uint64_t i = 0; i < bytes; i += 5)
        flip("manifest.json", i, (int)(i % 8));
}

static void copy(const char *from, const char *to)
{
    char *text;
    size_t bytes;

    rig_must(fs_read_all(from, &text, &bytes, 1 << 28));
    rig_must(fs_replace(to, text, bytes));
    mem_free(text);
}

/* Cut, lengthen, remove, swap one file of step 20. */
static void damage(const char *name)
{
    char path[FS_PATH], aside[FS_PATH], other[FS_PATH];
    uint64_t bytes;

    file_of(path, damaged_run, 20, name);
    file_of(other, damaged_run, 10, name);
    rig_must(fs_path(aside, "%s/aside", root));
    bytes = size_of(path);
    copy(path, aside);
    for (int how = 0; how < 4; how++) {
        static const int64_t parts[] = { 1, 2, 0, 0 };
        off_t len = (off_t)(how == 0     ? bytes - 1
                            : how == 3   ? bytes + 1
                            : parts[how] ? bytes / 2
                                         : 0);

        CHECK_I64(truncate(path, len), ==, 0);
        CHECK_I64(newest(damaged_run, true), ==, 10);
        copy(aside, path);
    }
    copy(other, path);
    CHECK_I64(newest(damaged_run, true), !=, -3);
    CHECK_I64(newest(damaged_run, true), ==, 10);
    CHECK_I64(unlink(path), ==, 0);
    CHECK_I64(newest(damaged_run, true), ==, 10);
    CHECK_I64(mkdir(path, 0700), ==, 0);
    CHECK_I64(newest(damaged_run, true), ==, 10);
    rmdir(path);
    copy(aside, path);
    CHECK_I64(newest(damaged_run, true), ==, 20);
}

static void cut_longer_missing_and_swapped_files_are_found(void)
{
    damage("shard-00000.h5");
    damage("manifest.json");
}

static void view_and_hint_are_not_trusted(void)
{
    char path[FS_PATH];

    file_of(path, damaged_run, 20, "model.h5");
    rig_must(fs_replace(path, "nonsense", 8));
    CHECK_I64(newest(damaged_run, true), ==, 20);
    CHECK_I64(unlink(path), ==, 0);
    rig_must(fs_path(path, "%s/checkpoints/latest", damaged_run));
    rig_must(fs_replace(path, "step-99999999", 13));
    CHECK_I64(newest(damaged_run, true), ==, 20);
    CHECK_I64(unlink(path), ==, 0);
    CHECK_I64(newest(damaged_run, true), ==, 20);
}

/* No silent start from scratch. */
static void all_bad_is_not_a_new_run(void)
{
    char run[FS_PATH], ten[FS_PATH], twenty[FS_PATH];

    new_run(run);
    CHECK_I64(save_steps(run, 10, 20, 2), ==, 0);
    file_of(ten, run, 10, "shard-00000.h5");
    file_of(twenty, run, 20, "shard-00000.h5");
    CHECK_I64(truncate(ten, 100), ==, 0);
    CHECK_I64(truncate(twenty, 100), ==, 0);
    CHECK_I64(newest(run, false), ==, -2);
    file_of(ten, run, 10, "manifest.json");
    file_of(twenty, run, 20, "manifest.json");
    CHECK_I64(unlink(ten), ==, 0);
    CHECK_I64(unlink(twenty), ==, 0);
    CHECK_I64(newest(run, false), ==, -2);
}

int main(int argc, char **argv)
{
    log_mute(getenv("T_CKPT_LOUD") == NULL);
    (void)argc, (void)argv;
    rig_folder(root, "t_ckpt_reader");
    new_run(damaged_run);
    if (save_steps(damaged_run, 10, 20, 2) != 0) rig_must(KR_ERR_IO);
    RUN(flipped_bits_of_a_shard_are_found);
    RUN(flipped_bits_of_a_manifest_are_found);
    RUN(cut_longer_missing_and_swapped_files_are_found);
    RUN(view_and_hint_are_not_trusted);
    RUN(all_bad_is_not_a_new_run);
    rig_must(fs_remove_tree(root));
    return check_done();
}
