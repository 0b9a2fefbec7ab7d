/* origin.c - find a folder near a run; copy it. */
#include "trainer/run/origin.h"

bool origin_find(const char *path, char out[FS_PATH])
{
    /* in the run, above RUN/best, above RUN/checkpoints/step-N of either */
    static const char *const places[] = { "", "/..", "/../..", "/../../.." };
    char settings[FS_PATH], list[FS_PATH];

    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (fs_path(settings, "%s%s/config.ini", path, places[i]) == KR_OK &&
            fs_path(list, "%s%s/hf/tensors.tsv", path, places[i]) == KR_OK &&
            fs_exists(settings) && fs_exists(list))
            return fs_path(out, "%s%s/hf", path, places[i]) == KR_OK;
    return false;
}

static kr_status copy_folder(const char *from, const char *to)
{
    char a[FS_PATH], b[FS_PATH], **names;
    size_t count;
    kr_status st = KR_OK;

    TRY(fs_list(from, &names, &count));
    for (size_t i = 0; i < count && st == KR_OK; i++) {
        st = fs_path(a, "%s/%s", from, names[i]);
        if (st == KR_OK) st = fs_path(b, "%s/%s", to, names[i]);
        if (st == KR_OK) st = fs_copy(a, b);
    }
    fs_free_names(names, count);
    return st == KR_OK ? fs_fsync_dir(to) : st;
}

kr_status origin_keep(const char *init, const char *run)
{
    char from[FS_PATH], to[FS_PATH], partial[FS_PATH];
    kr_status st;

    TRY(fs_path(to, "%s/hf", run));
    TRY(fs_path(partial, "%s/.hf.partial", run));
    if (fs_exists(to) || !origin_find(init, from)) return KR_OK;
    TRY(fs_remove_tree(partial)); /* of a start that was killed */
    TRY(fs_mkdir(partial));
    st = copy_folder(from, partial);
    if (st == KR_OK) st = fs_rename(partial, to);
    if (st != KR_OK) (void)fs_remove_tree(partial);
    return st == KR_OK ? fs_fsync_dir(run) : st;
}
