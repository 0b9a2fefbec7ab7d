/* hf_output.c - beside, then in place. */
#include "trainer/hf/hf_output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static kr_status must_be_free(const char *path)
{
    char **names;
    size_t count;
    struct stat s;

    if (lstat(path, &s) != 0) return KR_OK;
    if (!S_ISDIR(s.st_mode)) return KR_FAIL(KR_ERR_ARG, "%s: is there already", path);
    TRY(fs_list(path, &names, &count));
    fs_free_names(names, count);
    return count ? KR_FAIL(KR_ERR_ARG, "%s: is there already and not empty", path)
                 : KR_OK;
}

static kr_status enough_room(const char *folder, uint64_t bytes)
{
    uint64_t have;

    TRY(fs_free_bytes(folder, &have));
    if (have >= bytes) return KR_OK;
    return KR_FAIL(KR_ERR_IO, "%s: %" PRIu64 " MiB free, this needs %" PRIu64 " MiB",
                   folder, have >> 20, bytes >> 20);
}

kr_status hf_output_begin(struct hf_output *out, const char *path, uint64_t bytes)
{
    struct hf_output o;
    size_t n;
    kr_status st;

    TRY(fs_path(o.path, "%s", path));
    for (n = strlen(o.path); n > 1 && o.path[n - 1] == '/'; n--)
        o.path[n - 1] = '\0';
    TRY(must_be_free(o.path));
    TRY(fs_path(o.partial, "%s.partial-%d", o.path, (int)getpid()));
    TRY(fs_mkdirs(o.partial));
    st = enough_room(o.partial, bytes);
    if (st == KR_OK)
        *out = o;
    else
        (void)fs_remove_tree(o.partial);
    return st;
}

static kr_status put_in_place(const struct hf_output *o)
{
    char parent[FS_PATH];
    char *slash;

    TRY(fs_fsync_dir(o->partial));
    TRY(fs_rename(o->partial, o->path));
    TRY(fs_path(parent, "%s", o->path));
    slash = strrchr(parent, '/');
    if (!slash) return fs_fsync_dir(".");
    slash[slash == parent] = '\0';
    return fs_fsync_dir(parent);
}

kr_status hf_output_end(struct hf_output *out, kr_status st)
{
    if (st == KR_OK) st = put_in_place(out);
    if (st != KR_OK) (void)fs_remove_tree(out->partial);
    return st;
}

kr_status hf_output_copy(const char *from_folder, const char *to_folder, const char *name,
                         bool *there)
{
    char from[FS_PATH], to[FS_PATH];
    struct stat s;

    TRY(fs_path(from, "%s/%s", from_folder, name));
    TRY(fs_path(to, "%s/%s", to_folder, name));
    *there = stat(from, &s) == 0 && S_ISREG(s.st_mode);
    return *there ? fs_copy(from, to) : KR_OK;
}
