/* hf_output.c - beside, then in place. */
#include "trainer/hf/hf_output.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

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

/* The folder that holds `path`, and what it is called there. */
static kr_status split(const char *path, char parent[FS_PATH], const char **name)
{
    const char *slash = strrchr(path, '/');

    *name = slash ? slash + 1 : path;
    if (!slash) return fs_path(parent, ".");
    return fs_path(parent, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* ---- what others left ------------------------------------------------------------------- */

/* Open and lock a folder; -1: it is none, it is locked, or its disk knows no locks. */
static int lock_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    (void)close(fd);
    return -1;
}

/* own_host: locks tell.  Whoever held it is gone then, for it dies with its process. */
static kr_status meet(const char *folder, bool own_host)
{
    int lock = own_host ? lock_folder(folder) : -1;
    kr_status st;

    if (lock < 0) {
        LOG_NOTE("%s: is of another import or export; remove it if that has gone",
                 folder);
        return KR_OK;
    }
    LOG_NOTE("%s: its process has gone; it is removed", folder);
    st = fs_remove_tree(folder);
    (void)close(lock);
    return st;
}

/* Partial folders of the same target; start: what those of this host begin with. */
static kr_status meet_others(const char *path, const char *start)
{
    char parent[FS_PATH], folder[FS_PATH], **names;
    const char *name, *own;
    size_t count, n;
    kr_status st = KR_OK;

    TRY(split(path, parent, &name));
    if (!fs_exists(parent)) return KR_OK;
    TRY(fs_list(parent, &names, &count));
    own = start + (name - path);
    n = strlen(name);
    for (size_t i = 0; i < count && st == KR_OK; i++) {
        bool here = strncmp(names[i], own, strlen(own)) == 0;
        const char *pid = here ? names[i] + strlen(own) : "";

        if (strncmp(names[i], name, n) != 0 || strncmp(names[i] + n, ".partial-", 9) != 0)
            continue;
        st = fs_path(folder, "%s/%s", parent, names[i]);
        if (st == KR_OK)
            st = meet(folder, *pid && pid[strspn(pid, "0123456789")] == '\0');
    }
    fs_free_names(names, count);
    return st;
}

/* ---- begin and end ---------------------------------------------------------------------- */

/* Make it and lock it.  Between the two another process may have found it unlocked and
 * removed it; on a disk without locks it stays if we are killed. */
static kr_status make(struct hf_output *o)
{
    if (fs_exists(o->partial))
        return KR_FAIL(KR_ERR_IO, "%s: is in the way; remove it if its process has gone",
                       o->partial);
    TRY(fs_mkdirs(o->partial));
    o->lock = lock_folder(o->partial);
    return fs_exists(o->partial)
               ? KR_OK
               : KR_FAIL(KR_ERR_BUSY, "%s: another process has removed it", o->partial);
}

kr_status hf_output_begin(struct hf_output *out, const char *path, uint64_t bytes)
{
    struct hf_output o = { .lock = -1 };
    char start[FS_PATH], host[128] = "";
    size_t n;
    kr_status st;

    TRY(fs_path(o.path, "%s", path));
    for (n = strlen(o.path); n > 1 && o.path[n - 1] == '/'; n--)
        o.path[n - 1] = '\0';
    TRY(must_be_free(o.path));
    (void)gethostname(host, sizeof host - 1);
    TRY(fs_path(start, "%s.partial-%s-", o.path, host));
    TRY(meet_others(o.path, start));
    TRY(fs_path(o.partial, "%s%d", start, (int)getpid()));
    TRY(make(&o));
    st = enough_room(o.partial, bytes);
    if (st == KR_OK)
        *out = o;
    else
        (void)hf_output_end(&o, st);
    return st;
}

static kr_status put_in_place(const struct hf_output *o)
{
    char parent[FS_PATH];
    const char *name;

    TRY(fs_fsync_dir(o->partial));
    TRY(fs_rename(o->partial, o->path));
    TRY(split(o->path, parent, &name));
    return fs_fsync_dir(parent);
}

kr_status hf_output_end(struct hf_output *out, kr_status st)
{
    if (st == KR_OK) st = put_in_place(out);
    if (st != KR_OK) (void)fs_remove_tree(out->partial);
    if (out->lock >= 0) (void)close(out->lock);
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
