/* manifest.c - JSON out, JSON in, and every doubt in between. */
#include "checkpoints/manifest.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { MANIFEST_MAX = 1 << 30, COUNT_MAX = 1 << 24 };

/* The checksum is the last member; its text has a fixed length, so it is found without
 * parsing what it protects. */
#define SEAL_FRONT ",\n\"checksum\": \""
#define SEAL_BACK  "\"\n}\n"
enum { SEAL = sizeof SEAL_FRONT - 1 + 16 + sizeof SEAL_BACK - 1 };

static const char *const type_names[] = { "f32", "f64", "bf16" };

int64_t manifest_blocks(const struct ckpt_tensor *t, int64_t count)
{
    int64_t bytes = count * (int64_t)kern_dtype_bytes(t->type);

    return (bytes + CKPT_BLOCK - 1) / CKPT_BLOCK;
}

int32_t manifest_find(const struct manifest *m, const char *name)
{
    return (int32_t)words_find(&m->names, name, strlen(name));
}

void manifest_free(struct manifest *m)
{
    for (int32_t i = 0; m->ranges && i < m->range_count; i++)
        mem_free(m->ranges[i].blocks);
    mem_free(m->tensors);
    mem_free(m->ranges);
    mem_free(m->shards);
    mem_free(m->settings);
    mem_free(m->about);
    words_free(&m->names);
    *m = (struct manifest){ 0 };
}

/* ---- printing --------------------------------------------------------------------------- */

/* Settings may hold paths, and paths any bytes. */
static void put_string(struct mem_text *t, const char *s)
{
    mem_append(t, "\"", 1);
    utf8_json_kept(t, s, strlen(s));
    mem_append(t, "\"", 1);
}

static void put_range(struct mem_text *t, const struct manifest *m,
                      const struct ckpt_range *r)
{
    int64_t blocks = manifest_blocks(&m->tensors[r->tensor], r->count);

    mem_printf(t,
               "{\"tensor\":%" PRId32 ",\"shard\":%" PRId32 ",\"begin\":%" PRId64
               ",\"count\":%" PRId64 ",\"offset\":%" PRIu64 ",\"blocks\":\"",
               r->tensor, r->shard, r->begin, r->count, r->offset);
    for (int64_t b = 0; b < blocks; b++)
        mem_printf(t, "%016" PRIx64, r->blocks[b]);
    mem_printf(t, "\"}");
}

static void put_lists(struct mem_text *t, const struct manifest *m)
{
    mem_printf(t, ",\n\"tensors\": [");
    for (int32_t i = 0; i < m->tensor_count; i++) {
        const struct ckpt_tensor *x = &m->tensors[i];

        mem_printf(t,
                   "%s\n{\"name\":\"%s\",\"rows\":%" PRId64 ",\"cols\":%" PRId64
                   ",\"type\":\"%s\"}",
                   i ? "," : "", x->name, x->rows, x->cols, type_names[x->type]);
    }
    mem_printf(t, "],\n\"shards\": [");
    for (int32_t i = 0; i < m->shard_count; i++)
        mem_printf(
            t, "%s\n{\"file\":\"%s\",\"bytes\":%" PRIu64 ",\"frame\":\"%016" PRIx64 "\"}",
            i ? "," : "", m->shards[i].file, m->shards[i].bytes, m->shards[i].frame);
    mem_printf(t, "],\n\"ranges\": [");
    for (int32_t i = 0; i < m->range_count; i++) {
        mem_printf(t, "%s\n", i ? "," : "");
        put_range(t, m, &m->ranges[i]);
    }
    mem_printf(t, "]");
}

kr_status manifest_print(const struct manifest *m, char **text)
{
    struct mem_text t = { 0 };

    mem_printf(
        &t,
        "{\"kilorank_checkpoint\": %d,\n\"step\": %" PRId64 ", \"samples\": %" PRId64
        ", \"generation\": %" PRId64 ", \"world\": %" PRId32 ", \"block\": %d",
        MANIFEST_VERSION, m->step, m->samples, m->generation, m->world, CKPT_BLOCK);
    mem_printf(&t, ",\n\"about\": ");
    put_string(&t, m->about ? m->about : "");
    mem_printf(&t, ",\n\"settings\": ");
    put_string(&t, m->settings ? m->settings : "");
    put_lists(&t, m);
    if (!t.failed)
        mem_printf(&t, SEAL_FRONT "%016" PRIx64 SEAL_BACK, hash64(t.at, t.len));
    if (t.failed) {
        mem_text_free(&t);
        return KR_FAIL(KR_ERR_MEM, "no memory for the manifest");
    }
    *text = t.at;
    return KR_OK;
}

/* ---- parsing ---------------------------------------------------------------------------- */

struct reader {
    const char *source;
    struct manifest *m;
};

static kr_status bad(const struct reader *r, const char *what)
{
    return KR_FAIL(KR_ERR_DATA, "%s: %s", r->source, what);
}

/* A whole number of member `key`, within [low, high] and exact in a double. */
static bool whole(const cJSON *in, const char *key, int64_t low, int64_t high,
                  int64_t *out)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(in, key);

    if (!cJSON_IsNumber(j) || j->valuedouble != floor(j->valuedouble) ||
        j->valuedouble < (double)low || j->valuedouble > (double)high ||
        fabs(j->valuedouble) > 0x1p53)
        return false;
    *out = (int64_t)j->valuedouble;
    return true;
}

static const char *string(const cJSON *in, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(in, key));
}

/* Exactly 16 hexadecimal digits, lower case as printed: a flipped case bit is an error. */
static bool hex64(const char *text, uint64_t *out)
{
    uint64_t v = 0;

    for (int i = 0; i < 16; i++) {
        int c = (unsigned char)text[i];

        if (!isxdigit(c) || isupper(c)) return false;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *out = v;
    return true;
}

/* Letters, digits, '.', '_', '-', and `slashes` slashes inside; no leading dot. */
static bool plain_name(const char *s, int slashes)
{
    size_t n = s ? strlen(s) : 0;

    if (n == 0 || n >= CKPT_NAME || s[0] == '.' || s[0] == '/' || s[n - 1] == '/')
        return false;
    for (; *s; s++)
        if (*s == '/' ? slashes-- == 0
                      : !isalnum((unsigned char)*s) && !strchr("._-", *s))
            return false;
    return slashes == 0;
}

static kr_status count_of(const struct reader *r, const cJSON *list, int32_t *out)
{
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;

    if (n < 0 || n > COUNT_MAX) return bad(r, "a list is missing or too long");
    *out = n;
    return KR_OK;
}

static kr_status read_tensor(const struct reader *r, const cJSON *j,
                             struct ckpt_tensor *t)
{
    const char *name = string(j, "name"), *type = string(j, "type");

    if (!plain_name(name, 1)) return bad(r, "a tensor with a bad name");
    if (!whole(j, "rows", 1, (int64_t)1 << 40, &t->rows) ||
        !whole(j, "cols", 1, (int64_t)1 << 40, &t->cols) ||
        t->rows > ((int64_t)1 << 50) / t->cols)
        return bad(r, "a tensor with a bad shape");
    snprintf(t->name, sizeof t->name, "%s", name);
    for (int i = 0; i < 3; i++)
        if (type && strcmp(type, type_names[i]) == 0) {
            t->type = (enum kern_dtype)i;
            return KR_OK;
        }
    return bad(r, "a tensor of an unknown type");
}

static kr_status read_shard(const struct reader *r, const cJSON *j, struct ckpt_shard *s)
{
    const char *file = string(j, "file"), *frame = string(j, "frame");
    int64_t bytes;

    if (!plain_name(file, 0)) return bad(r, "a shard with a bad file name");
    if (!whole(j, "bytes", 0, (int64_t)1 << 52, &bytes) || !frame ||
        strlen(frame) != 16 || !hex64(frame, &s->frame))
        return bad(r, "a shard with a bad size or checksum");
    snprintf(s->file, sizeof s->file, "%s", file);
    s->bytes = (uint64_t)bytes;
    return KR_OK;
}

static kr_status read_blocks(const struct reader *r, const char *hex, int64_t blocks,
                             uint64_t **out)
{
    uint64_t *list = NULL;

    if (!hex || strlen(hex) != (size_t)blocks * 16)
        return bad(r, "a range with the wrong number of checksums");
    TRY(mem_alloc(&list, (size_t)blocks, sizeof *list, "checksums"));
    for (int64_t b = 0; b < blocks; b++)
        if (!hex64(hex + 16 * b, &list[b])) {
            mem_free(list);
            return bad(r, "a range with a bad checksum");
        }
    *out = list;
    return KR_OK;
}

static kr_status read_range(const struct reader *r, const cJSON *j, struct ckpt_range *x)
{
    const struct manifest *m = r->m;
    const struct ckpt_tensor *t;
    int64_t tensor, shard, offset, bytes;

    if (!whole(j, "tensor", 0, m->tensor_count - 1, &tensor) ||
        !whole(j, "shard", 0, m->shard_count - 1, &shard))
        return bad(r, "a range of no tensor or shard");
    t = &m->tensors[tensor];
    if (!whole(j, "begin", 0, t->rows * t->cols - 1, &x->begin) ||
        !whole(j, "count", 1, t->rows * t->cols - x->begin, &x->count) ||
        !whole(j, "offset", 0, (int64_t)1 << 52, &offset))
        return bad(r, "a range outside its tensor");
    bytes = x->count * (int64_t)kern_dtype_bytes(t->type);
    if ((uint64_t)(offset + bytes) > m->shards[shard].bytes)
        return bad(r, "a range outside its shard");
    x->tensor = (int32_t)tensor;
    x->shard = (int32_t)shard;
    x->offset = (uint64_t)offset;
    return read_blocks(r, string(j, "blocks"), manifest_blocks(t, x->count), &x->blocks);
}

static kr_status read_lists(const struct reader *r, const cJSON *root)
{
    const cJSON *tensors = cJSON_GetObjectItemCaseSensitive(root, "tensors");
    const cJSON *shards = cJSON_GetObjectItemCaseSensitive(root, "shards");
    const cJSON *ranges = cJSON_GetObjectItemCaseSensitive(root, "ranges"), *j;
    struct manifest *m = r->m;
    int32_t nt = 0, ns = 0, nr = 0;

    TRY(count_of(r, tensors, &nt));
    TRY(count_of(r, shards, &ns));
    TRY(count_of(r, ranges, &nr));
    TRY(mem_alloc(&m->tensors, (size_t)nt, sizeof *m->tensors, "list of tensors"));
    TRY(mem_alloc(&m->shards, (size_t)ns, sizeof *m->shards, "list of shards"));
    TRY(mem_alloc(&m->ranges, (size_t)nr, sizeof *m->ranges, "list of ranges"));
    cJSON_ArrayForEach(j, tensors) TRY(read_tensor(r, j, &m->tensors[m->tensor_count++]));
    cJSON_ArrayForEach(j, shards) TRY(read_shard(r, j, &m->shards[m->shard_count++]));
    cJSON_ArrayForEach(j, ranges) TRY(read_range(r, j, &m->ranges[m->range_count++]));
    return KR_OK;
}

static kr_status read_head(const struct reader *r, const cJSON *root)
{
    struct manifest *m = r->m;
    int64_t version, block, world;
    const char *settings = string(root, "settings"), *about = string(root, "about");

    if (!whole(root, "kilorank_checkpoint", 1, 1 << 20, &version))
        return bad(r, "is no manifest of a checkpoint");
    if (version > MANIFEST_VERSION)
        return bad(r, "was written by a newer version of Kilorank");
    if (!whole(root, "step", 0, (int64_t)1 << 52, &m->step) ||
        !whole(root, "samples", 0, (int64_t)1 << 52, &m->samples) ||
        !whole(root, "generation", 0, (int64_t)1 << 52, &m->generation) ||
        !whole(root, "world", 1, 1 << 24, &world) ||
        !whole(root, "block", CKPT_BLOCK, CKPT_BLOCK, &block) || !settings || !about)
        return bad(r, "a member is missing or out of range");
    m->world = (int32_t)world;
    TRY(mem_alloc(&m->settings, strlen(settings) + 1, 1, "settings"));
    TRY(mem_alloc(&m->about, strlen(about) + 1, 1, "settings"));
    strcpy(m->settings, settings);
    strcpy(m->about, about);
    return KR_OK;
}

/* ---- consistency ------------------------------------------------------------------------ */

/* Add a name that must not be there yet. */
static kr_status add_name(const struct reader *r, struct words *names, const char *name)
{
    int64_t number, before = names->count;

    TRY(words_add(names, name, strlen(name), &number));
    return number == before ? KR_OK : bad(r, "a name occurs twice");
}

static kr_status names_differ(const struct reader *r)
{
    struct manifest *m = r->m;
    struct words files = { 0 };
    kr_status st = KR_OK;

    for (int32_t i = 0; i < m->tensor_count && st == KR_OK; i++)
        st = add_name(r, &m->names, m->tensors[i].name);
    for (int32_t i = 0; i < m->shard_count && st == KR_OK; i++)
        st = add_name(r, &files, m->shards[i].file);
    words_free(&files);
    return st;
}

static int by_element(const void *a, const void *b)
{
    const struct ckpt_range *x = a, *y = b;

    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static int by_place(const void *a, const void *b)
{
    const struct ckpt_range *x = *(const struct ckpt_range *const *)a;
    const struct ckpt_range *y = *(const struct ckpt_range *const *)b;

    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Ranges, sorted, tile every tensor exactly. */
static kr_status tiles(const struct reader *r)
{
    const struct manifest *m = r->m;
    int32_t i = 0;

    for (int32_t t = 0; t < m->tensor_count; t++) {
        int64_t at = 0;

        for (; i < m->range_count && m->ranges[i].tensor == t; i++) {
            if (m->ranges[i].begin != at) return bad(r, "ranges overlap or leave a gap");
            at += m->ranges[i].count;
        }
        if (at != m->tensors[t].rows * m->tensors[t].cols)
            return bad(r, "a tensor is not there as a whole");
    }
    return KR_OK;
}

static uint64_t range_end(const struct manifest *m, const struct ckpt_range *x)
{
    return x->offset + (uint64_t)x->count * kern_dtype_bytes(m->tensors[x->tensor].type);
}

/* No two ranges share bytes of a shard. */
static kr_status apart(const struct reader *r)
{
    const struct manifest *m = r->m;
    const struct ckpt_range **list = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&list, (size_t)m->range_count, sizeof *list, "list of ranges"));
    for (int32_t i = 0; i < m->range_count; i++)
        list[i] = &m->ranges[i];
    if (m->range_count) qsort(list, (size_t)m->range_count, sizeof *list, by_place);
    for (int32_t i = 1; i < m->range_count && st == KR_OK; i++)
        if (list[i]->shard == list[i - 1]->shard &&
            list[i]->offset < range_end(m, list[i - 1]))
            st = bad(r, "two ranges lie over each other");
    mem_free(list);
    return st;
}

static kr_status check_seal(const struct reader *r, const char *text, size_t bytes)
{
    const char *seal;
    uint64_t want;

    if (bytes < SEAL) return bad(r, "is too short for a manifest");
    seal = text + bytes - SEAL;
    if (memcmp(seal, SEAL_FRONT, sizeof SEAL_FRONT - 1) != 0 ||
        memcmp(text + bytes - (sizeof SEAL_BACK - 1), SEAL_BACK, sizeof SEAL_BACK - 1) !=
            0 ||
        !hex64(seal + sizeof SEAL_FRONT - 1, &want))
        return bad(r, "does not end with its checksum: cut short?");
    if (hash64(text, bytes - SEAL) != want) return bad(r, "differs from its checksum");
    return KR_OK;
}

kr_status manifest_parse(struct manifest *out, const char *text, size_t bytes,
                         const char *source)
{
    struct manifest m = { 0 };
    struct reader r = { source, &m };
    const char *end = NULL;
    cJSON *root;
    kr_status st;

    TRY(check_seal(&r, text, bytes));
    root = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
    if (!root) return bad(&r, "is no JSON");
    /* the object must be all there is, or what the seal covers is not what was parsed */
    if (end != text + bytes - 1) {
        st = bad(&r, "has text behind its object");
        goto done;
    }
    TRY_OR(st, read_head(&r, root), done);
    TRY_OR(st, read_lists(&r, root), done);
    TRY_OR(st, names_differ(&r), done);
    if (m.range_count)
        qsort(m.ranges, (size_t)m.range_count, sizeof *m.ranges, by_element);
    TRY_OR(st, tiles(&r), done);
    st = apart(&r);
done:
    cJSON_Delete(root);
    if (st == KR_OK)
        *out = m;
    else
        manifest_free(&m);
    return st;
}

kr_status manifest_read(struct manifest *out, const char *folder)
{
    char path[FS_PATH], *text = NULL;
    size_t bytes;
    kr_status st;

    TRY(fs_path(path, "%s/manifest.json", folder));
    TRY(fs_read_all(path, &text, &bytes, MANIFEST_MAX));
    st = manifest_parse(out, text, bytes, path);
    mem_free(text);
    return st;
}
