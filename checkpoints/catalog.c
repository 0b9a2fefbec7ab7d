/* catalog.c - find, order, prune. */
#include "checkpoints/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

static kr_status folder_of(char out[FS_PATH], const char *run)
{
    return fs_path(out, "%s/checkpoints", run);
}

static void look(struct catalog_entry *e)
{
    struct manifest m;

    if (manifest_read(&m, e->path) != KR_OK) return;
    e->valid = true;
    e->step = m.step;
    e->generation = m.generation;
    e->world = m.world;
    for (int32_t i = 0; i < m.shard_count; i++)
        e->bytes += m.shards[i].bytes;
    manifest_free(&m);
}

static int newest_first(const void *a, const void *b)
{
    const struct catalog_entry *x = a, *y = b;

    if (x->valid != y->valid) return x->valid ? -1 : 1;
    if (x->step != y->step) return x->step > y->step ? -1 : 1;
    if (x->generation != y->generation) return x->generation > y->generation ? -1 : 1;
    return strcmp(x->path, y->path);
}

kr_status catalog_open(struct catalog *out, const char *run)
{
    struct catalog c = { 0 };
    char folder[FS_PATH], **names = NULL;
    size_t count = 0;
    kr_status st;

    TRY(folder_of(folder, run));
    if (!fs_exists(folder)) {
        *out = c;
        return KR_OK;
    }
    TRY(fs_list(folder, &names, &count));
    TRY_OR(st, mem_alloc(&c.list, count, sizeof *c.list, "list of checkpoints"), done);
    for (size_t i = 0; i < count; i++) {
        struct catalog_entry *e = &c.list[c.count];

        if (strncmp(names[i], "step-", 5) != 0) continue;
        TRY_OR(st, fs_path(e->path, "%s/%s", folder, names[i]), done);
        look(e);
        c.valid += e->valid;
        c.count++;
    }
    if (c.count) qsort(c.list, (size_t)c.count, sizeof *c.list, newest_first);
    *out = c;
done:
    fs_free_names(names, count);
    if (st != KR_OK) catalog_close(&c);
    return st;
}

void catalog_close(struct catalog *c)
{
    mem_free(c->list);
    *c = (struct catalog){ 0 };
}

kr_status catalog_remove(const char *path)
{
    const char *name = strrchr(path, '/');
    char parent[FS_PATH], gone[FS_PATH];

    if (!name) return KR_FAIL(KR_ERR_ARG, "%s: not the path of a checkpoint", path);
    TRY(fs_path(parent, "%.*s", (int)(name - path), path));
    TRY(fs_path(gone, "%s/.removed-%s", parent, name + 1));
    TRY(fs_remove_tree(gone));
    TRY(fs_rename(path, gone));
    TRY(fs_fsync_dir(parent));
    return fs_remove_tree(gone);
}

kr_status catalog_prune(const char *run, int32_t keep, int64_t generation,
                        bool invalid_too, int32_t *removed)
{
    struct catalog c;
    int32_t kept = 0;
    kr_status st = KR_OK;

    *removed = 0;
    TRY(catalog_open(&c, run));
    for (int32_t i = 0; i < c.count && st == KR_OK; i++) {
        const struct catalog_entry *e = &c.list[i];

        if (e->valid && (e->generation > generation || kept++ < keep)) continue;
        if (!e->valid && !invalid_too) continue;
        st = catalog_remove(e->path);
        *removed += st == KR_OK;
    }
    catalog_close(&c);
    return st;
}

kr_status catalog_sweep(const char *run)
{
    char folder[FS_PATH], path[FS_PATH], **names = NULL;
    size_t count = 0;
    kr_status st = KR_OK;

    TRY(folder_of(folder, run));
    if (!fs_exists(folder)) return KR_OK;
    TRY(fs_list(folder, &names, &count));
    for (size_t i = 0; i < count && st == KR_OK; i++) {
        bool attempt = strncmp(names[i], ".attempt-", 9) == 0;

        if (!attempt && strncmp(names[i], ".removed-", 9) != 0 &&
            strncmp(names[i], "latest.tmp.", 11) != 0)
            continue;
        if (attempt) LOG_NOTE("removing the unfinished checkpoint %s", names[i]);
        st = fs_path(path, "%s/%s", folder, names[i]);
        if (st == KR_OK) st = fs_remove_tree(path);
    }
    fs_free_names(names, count);
    return st;
}
