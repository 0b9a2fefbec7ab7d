/* commit.c - see commit.h for the order, which is all that matters here. */
#include "checkpoints/commit.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/catalog.h"
#include "checkpoints/shard_file.h"

/* The view is for people: no view is a warning, not a failure. */
static void write_view(const struct commit_job *job)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/model.h5", job->attempt) != KR_OK ||
        shard_file_view(path, &job->manifest) != KR_OK) {
        LOG_WARNING("%s: no model.h5 view in this checkpoint", job->attempt);
        (void)fs_unlink(path);
    }
}

/* What no reader would take, say pieces that do not tile their tensors, is not committed. */
static kr_status try_to_read(const char *text, const char *path)
{
    struct manifest m;

    TRY(manifest_parse(&m, text, strlen(text), path));
    manifest_free(&m);
    return KR_OK;
}

static kr_status write_manifest(const struct commit_job *job)
{
    char path[FS_PATH], temp[FS_PATH], *text = NULL;
    kr_status st;
    int fd = -1;

    TRY(fs_path(path, "%s/manifest.json", job->attempt));
    TRY(fs_path(temp, "%s/manifest.json.tmp", job->attempt));
    TRY(manifest_print(&job->manifest, &text));
    TRY_OR(st, try_to_read(text, path), done);
    TRY_OR(st, fs_open(&fd, temp, O_WRONLY | O_CREAT | O_TRUNC), done);
    st = fs_pwrite(fd, temp, text, strlen(text), 0);
    if (st == KR_OK) st = fs_fsync(fd, temp);
    if (fs_close(fd, temp) != KR_OK && st == KR_OK) st = KR_ERR_IO;
    if (st == KR_OK) st = fs_rename(temp, path);
done:
    mem_free(text);
    return st;
}

kr_status commit_place(struct commit_job *job)
{
    if (fs_exists(job->final))
        return fs_path(job->place, "%s-g%" PRId64, job->final, job->manifest.generation);
    return fs_path(job->place, "%s", job->final);
}

static void write_hint(const struct commit_job *job, const char *place)
{
    const char *name = strrchr(place, '/') + 1;
    char path[FS_PATH];

    if (fs_path(path, "%s/checkpoints/latest", job->run) == KR_OK)
        (void)fs_replace(path, name, strlen(name));
}

kr_status commit(struct commit_job *job)
{
    char parent[FS_PATH];

    TRY(fs_path(parent, "%s/checkpoints", job->run));
    write_view(job);
    TRY(write_manifest(job));
    TRY(fs_fsync_dir(job->attempt));
    TRY(lease_check(job->lease));
    TRY(fs_rename(job->attempt, job->place));
    TRY(fs_fsync_dir(parent));
    write_hint(job, job->place);
    return KR_OK;
}

kr_status commit_settle(const struct commit_job *job)
{
    char parent[FS_PATH];

    if (strcmp(job->place, job->final) == 0) return KR_OK;
    TRY(fs_path(parent, "%s/checkpoints", job->run));
    if (fs_exists(job->final)) TRY(catalog_remove(job->final));
    TRY(fs_rename(job->place, job->final));
    TRY(fs_fsync_dir(parent));
    write_hint(job, job->final);
    return KR_OK;
}
