/* st_folder.c - the index, and that it tells the truth about its shards. */
#include "checkpoints/st_folder.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { INDEX_MOST = 100000000 /* bytes */ };

static kr_status bad(const char *source, const char *name, const char *what)
{
    return KR_FAIL(KR_ERR_DATA, "%s: %s%s%s", source, name, name[0] ? ": " : "", what);
}

/* A file of this folder: letters, digits, '.', '_', '-'; no leading dot, no slash. */
static bool plain_file(const char *s)
{
    static const char ending[] = ".safetensors";
    size_t n = s ? strlen(s) : 0, m = sizeof ending - 1;

    if (n <= m || n >= ST_FILE_NAME || s[0] == '.' || strcmp(s + n - m, ending) != 0)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-", *s)) return false;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_place *)a)->name, ((const struct st_place *)b)->name);
}

static kr_status read_map(const char *source, const cJSON *map, struct st_index *x)
{
    const cJSON *j;

    if (!cJSON_IsObject(map)) return bad(source, "", "weight_map is missing");
    TRY(mem_alloc(&x->list, (size_t)cJSON_GetArraySize(map), sizeof *x->list, "index"));
    cJSON_ArrayForEach(j, map)
    {
        const char *file = cJSON_GetStringValue(j);

        if (!st_plain_name(j->string)) return bad(source, "", "a tensor with a bad name");
        if (!plain_file(file)) return bad(source, j->string, "a bad name of a file");
        strcpy(x->list[x->count].name, j->string);
        strcpy(x->list[x->count++].file, file);
    }
    if (x->count) qsort(x->list, (size_t)x->count, sizeof *x->list, by_name);
    for (int32_t i = 1; i < x->count; i++)
        if (strcmp(x->list[i - 1].name, x->list[i].name) == 0)
            return bad(source, x->list[i].name, "listed twice");
    return x->count ? KR_OK : bad(source, "", "lists no tensor");
}

kr_status st_index_parse(struct st_index *out, const char *text, size_t bytes,
                         const char *source)
{
    static const char nul[] = "\\u0000";
    struct st_index x = { 0 };
    cJSON *root = NULL;
    kr_status st;

    if (bytes && !memchr(text, 0, bytes) && !memmem(text, bytes, nul, sizeof nul - 1))
        root = cJSON_ParseWithLength(text, bytes);
    if (cJSON_IsObject(root))
        st = read_map(source, cJSON_GetObjectItemCaseSensitive(root, "weight_map"), &x);
    else
        st = bad(source, "", "is no JSON object");
    cJSON_Delete(root);
    if (st == KR_OK)
        *out = x;
    else
        st_index_free(&x);
    return st;
}

void st_index_free(struct st_index *x)
{
    mem_free(x->list);
    *x = (struct st_index){ 0 };
}

/* ---- the folder ------------------------------------------------------------------------- */

static struct st_file *find_file(const struct st_folder *f, const char *path)
{
    for (int32_t i = 0; i < f->count; i++)
        if (strcmp(f->files[i].path, path) == 0) return &f->files[i];
    return NULL;
}

/* Open each shard of the index once, and check that it holds what the index says. */
static kr_status open_shards(struct st_folder *f, const char *path,
                             const struct st_index *x)
{
    char file[FS_PATH];
    int64_t held = 0;

    TRY(mem_alloc(&f->files, (size_t)x->count, sizeof *f->files, "list of shards"));
    for (int32_t i = 0; i < x->count; i++) {
        struct st_file *at;

        TRY(fs_path(file, "%s/%s", path, x->list[i].file));
        at = find_file(f, file);
        if (!at) {
            at = &f->files[f->count];
            TRY(st_open(at, file));
            f->count++;
            held += at->header.count;
        }
        if (st_header_find(&at->header, x->list[i].name) < 0)
            return bad(file, x->list[i].name, "the index says it is here; it is not");
    }
    if (held != x->count)
        return bad(path, "", "the shards hold tensors that the index does not list");
    return KR_OK;
}

static kr_status open_index(struct st_folder *f, const char *path, const char *index)
{
    struct st_index x = { 0 };
    char *text = NULL;
    size_t bytes;
    kr_status st;

    TRY(fs_read_all(index, &text, &bytes, INDEX_MOST));
    st = st_index_parse(&x, text, bytes, index);
    if (st == KR_OK) st = open_shards(f, path, &x);
    st_index_free(&x);
    mem_free(text);
    return st;
}

static kr_status open_single(struct st_folder *f, const char *path, const char *single)
{
    if (!fs_exists(single))
        return KR_FAIL(KR_ERR_ARG, "%s: neither %s nor %s is there", path, ST_SINGLE,
                       ST_INDEX);
    TRY(mem_alloc(&f->files, 1, sizeof *f->files, "list of shards"));
    TRY(st_open(f->files, single));
    f->count = 1;
    return KR_OK;
}

kr_status st_folder_open(struct st_folder *out, const char *path)
{
    char index[FS_PATH], single[FS_PATH];
    struct st_folder f = { 0 };
    kr_status st;

    TRY(fs_path(index, "%s/%s", path, ST_INDEX));
    TRY(fs_path(single, "%s/%s", path, ST_SINGLE));
    st = fs_exists(index) ? open_index(&f, path, index) : open_single(&f, path, single);
    if (st == KR_OK)
        *out = f;
    else
        st_folder_close(&f);
    return st;
}

void st_folder_close(struct st_folder *f)
{
    for (int32_t i = 0; i < f->count; i++)
        st_close(&f->files[i]);
    mem_free(f->files);
    *f = (struct st_folder){ 0 };
}

const struct st_tensor *st_folder_find(const struct st_folder *f, const char *name,
                                       const struct st_file **file)
{
    for (int32_t i = 0; i < f->count; i++) {
        int32_t at = st_header_find(&f->files[i].header, name);

        if (at < 0) continue;
        *file = &f->files[i];
        return &f->files[i].header.list[at];
    }
    return NULL;
}
