/* hf_origin.c - a list of lines, and files that travel along. */
#include "trainer/hf/hf_origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "trainer/hf/hf_output.h"

enum { LIST_MOST = 64 << 20 /* bytes */ };

/* Small files are what tokenizers, templates and code come in; weights are not. */
static bool travels(const char *name)
{
    static const char *const endings[] = { ".json",  ".txt", ".model",
                                           ".jinja", ".py",  ".tiktoken" };
    size_t n = strlen(name);

    if (strcmp(name, "config.json") == 0 || strstr(name, ".index.json") || name[0] == '.')
        return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);

        if (n > m && strcmp(name + n - m, endings[i]) == 0) return true;
    }
    return false;
}

kr_status hf_origin_carry(const char *from, const char *to)
{
    char **names;
    size_t count;
    kr_status st = KR_OK;
    bool there;

    TRY(fs_list(from, &names, &count));
    for (size_t i = 0; i < count && st == KR_OK; i++)
        if (travels(names[i])) st = hf_output_copy(from, to, names[i], &there);
    fs_free_names(names, count);
    return st;
}

kr_status hf_origin_save(const char *folder, const char *from, const struct hf_plan *plan,
                         const struct st_folder *stored)
{
    char path[FS_PATH];
    struct mem_text t = { 0 };
    kr_status st;
    bool there;

    TRY(fs_mkdir(folder));
    TRY(hf_output_copy(from, folder, "config.json", &there));
    TRY(hf_origin_carry(from, folder));
    for (int32_t i = 0; i < plan->count; i++) {
        const struct st_file *file;
        const struct st_tensor *at = st_folder_find(stored, plan->list[i].name, &file);

        if (at) mem_printf(&t, "%s\t%s\n", st_type_name(at->type), at->name);
    }
    st = t.failed ? KR_FAIL(KR_ERR_MEM, "no memory for a list of tensors")
                  : fs_path(path, "%s/tensors.tsv", folder);
    if (st == KR_OK) st = fs_replace(path, t.at, t.len);
    mem_text_free(&t);
    return st;
}

/* ---- reading it back -------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct hf_kept *)a)->name, ((const struct hf_kept *)b)->name);
}

static bool read_line(char *line, struct hf_kept *out)
{
    char *tab = strchr(line, '\t');

    if (!tab || strlen(tab + 1) >= ST_NAME || !tab[1]) return false;
    *tab = '\0';
    out->type = st_type_of(line);
    strcpy(out->name, tab + 1);
    return out->type >= 0 && out->type < ST_FLOATS;
}

static kr_status read_lines(struct hf_origin *o, char *text, const char *path)
{
    size_t lines = 0;
    char *next;

    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    TRY(mem_alloc(&o->list, lines, sizeof *o->list, "list of tensors"));
    for (char *line = text; *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = '\0';
        if (!next || !read_line(line, &o->list[o->count++]))
            return KR_FAIL(KR_ERR_DATA, "%s: line %d: want a dtype, a tab and a name",
                           path, o->count);
    }
    if (o->count) qsort(o->list, (size_t)o->count, sizeof *o->list, by_name);
    return KR_OK;
}

kr_status hf_origin_open(struct hf_origin *out, const char *folder)
{
    struct hf_origin o = { 0 };
    char path[FS_PATH], *text;
    size_t bytes;
    kr_status st;

    TRY(fs_path(path, "%s/tensors.tsv", folder));
    TRY(fs_read_all(path, &text, &bytes, LIST_MOST));
    st = read_lines(&o, text, path);
    mem_free(text);
    if (st == KR_OK)
        *out = o;
    else
        hf_origin_close(&o);
    return st;
}

void hf_origin_close(struct hf_origin *o)
{
    mem_free(o->list);
    *o = (struct hf_origin){ 0 };
}

int hf_origin_type(const struct hf_origin *o, const char *name)
{
    struct hf_kept key = { .type = 0 };
    const struct hf_kept *at;

    if (o->count == 0) return -1;
    snprintf(key.name, sizeof key.name, "%s", name);
    at = bsearch(&key, o->list, (size_t)o->count, sizeof *o->list, by_name);
    return at ? at->type : -1;
}
