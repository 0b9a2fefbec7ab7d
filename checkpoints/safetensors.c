/* safetensors.c - header JSON in and out, elements in and out. */
#include "checkpoints/safetensors.h"

#include <cjson/cJSON.h>
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/fp16.h"
#include "base/mem.h"

enum { PIECE = 1 << 16 /* elements converted at a time */ };

/* In the order of enum st_type, then those that only have a size. */
static const struct {
    const char *name;
    int bits;
} types[] = {
    { "F64", 64 },    { "F32", 32 },        { "F16", 16 },        { "BF16", 16 },
    { "BOOL", 8 },    { "U8", 8 },          { "I8", 8 },          { "I16", 16 },
    { "U16", 16 },    { "I32", 32 },        { "U32", 32 },        { "I64", 64 },
    { "U64", 64 },    { "C64", 64 },        { "F8_E4M3", 8 },     { "F8_E5M2", 8 },
    { "F8_E8M0", 8 }, { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 }, { "F6_E2M3", 6 },
    { "F6_E3M2", 6 }, { "F4", 4 },
};
enum { TYPES = sizeof types / sizeof *types };

const char *st_type_name(int type) { return types[type].name; }

int st_type_of(const char *name)
{
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, name) == 0) return i;
    return -1;
}

int64_t st_elements(const struct st_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->dims; i++)
        n *= t->shape[i];
    return n;
}

uint64_t st_bytes(const struct st_tensor *t)
{
    return (uint64_t)st_elements(t) * (uint64_t)types[t->type].bits / 8;
}

/* ---- parsing ---------------------------------------------------------------------------- */

static kr_status bad(const char *source, const char *name, const char *what)
{
    return KR_FAIL(KR_ERR_DATA, "%s: %s%s%s", source, name, name[0] ? ": " : "", what);
}

/* A whole number of at least 0, exact in a double. */
static bool whole(const cJSON *j, int64_t *out)
{
    if (!cJSON_IsNumber(j) || j->valuedouble != floor(j->valuedouble) ||
        j->valuedouble < 0 || j->valuedouble > 0x1p53)
        return false;
    *out = (int64_t)j->valuedouble;
    return true;
}

bool st_plain_name(const char *s)
{
    size_t n = s ? strlen(s) : 0;

    if (n == 0 || n >= ST_NAME) return false;
    for (; *s; s++)
        if (*s < '!' || *s > '~') return false;
    return true;
}

static bool read_shape(const cJSON *list, struct st_tensor *t)
{
    const cJSON *j;
    int64_t n = 1;

    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > ST_DIMS) return false;
    cJSON_ArrayForEach(j, list)
    {
        int64_t len;

        if (!whole(j, &len) || (len > 0 && n > ((int64_t)1 << 50) / len)) return false;
        t->shape[t->dims++] = len;
        n *= len;
    }
    return true;
}

/* One member of the header.  Exactly three members, all found, leave no room for a second
 * of the same name. */
static kr_status read_tensor(const char *source, const cJSON *j, uint64_t buffer,
                             struct st_tensor *t)
{
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "dtype"));
    const cJSON *place = cJSON_GetObjectItemCaseSensitive(j, "data_offsets");
    int64_t begin, end;

    if (!st_plain_name(j->string)) return bad(source, "", "a tensor with a bad name");
    strcpy(t->name, j->string);
    if (!type || !place || cJSON_GetArraySize(j) != 3)
        return bad(source, t->name, "want dtype, shape and data_offsets, once each");
    t->type = st_type_of(type);
    if (t->type < 0) return bad(source, t->name, "unknown dtype");
    if (!read_shape(cJSON_GetObjectItemCaseSensitive(j, "shape"), t))
        return bad(source, t->name, "bad shape");
    if (!cJSON_IsArray(place) || cJSON_GetArraySize(place) != 2 ||
        !whole(cJSON_GetArrayItem(place, 0), &begin) ||
        !whole(cJSON_GetArrayItem(place, 1), &end) || begin > end ||
        (uint64_t)end > buffer)
        return bad(source, t->name, "data_offsets are outside the file");
    if (st_elements(t) * types[t->type].bits % 8 != 0 ||
        st_bytes(t) != (uint64_t)(end - begin))
        return bad(source, t->name, "data_offsets do not fit dtype and shape");
    t->begin = (uint64_t)begin;
    t->end = (uint64_t)end;
    return KR_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;

    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name,
                  ((const struct st_tensor *)b)->name);
}

/* Sorted by place they touch; sorted by name no two are alike.  Leaves them by name. */
static kr_status check_list(const char *source, struct st_header *h)
{
    uint64_t at = 0;

    if (h->count) qsort(h->list, (size_t)h->count, sizeof *h->list, by_place);
    for (int32_t i = 0; i < h->count; at = h->list[i++].end)
        if (h->list[i].begin != at)
            return bad(source, h->list[i].name,
                       h->list[i].begin < at ? "overlaps another tensor"
                                             : "bytes before it belong to no tensor");
    if (at != h->bytes) return bad(source, "", "bytes at the end belong to no tensor");
    if (h->count) qsort(h->list, (size_t)h->count, sizeof *h->list, by_name);
    for (int32_t i = 1; i < h->count; i++)
        if (strcmp(h->list[i - 1].name, h->list[i].name) == 0)
            return bad(source, h->list[i].name, "two tensors of this name");
    return KR_OK;
}

static kr_status read_members(const char *source, const cJSON *root, struct st_header *h)
{
    const cJSON *j;

    TRY(mem_alloc(&h->list, (size_t)cJSON_GetArraySize(root), sizeof *h->list,
                  "list of tensors"));
    cJSON_ArrayForEach(j, root)
    {
        if (j->string && strcmp(j->string, "__metadata__") == 0) continue;
        TRY(read_tensor(source, j, h->bytes, &h->list[h->count]));
        h->count++;
    }
    return check_list(source, h);
}

/* A character 0 in a name would end it for us and not for others. */
static bool holds_nul(const char *text, size_t bytes)
{
    static const char escape[] = "\\u0000";

    return memchr(text, 0, bytes) || memmem(text, bytes, escape, sizeof escape - 1);
}

kr_status st_header_parse(struct st_header *out, const char *text, size_t bytes,
                          uint64_t buffer, const char *source)
{
    struct st_header h = { .bytes = buffer };
    const char *end = NULL;
    cJSON *root = NULL;
    kr_status st;

    if (bytes == 0 || text[0] != '{' || holds_nul(text, bytes))
        return bad(source, "", "the header is no JSON object");
    root = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
    while (root && end < text + bytes && *end == ' ')
        end++;
    if (!cJSON_IsObject(root) || end != text + bytes)
        st = bad(source, "", "the header is no JSON object");
    else
        st = read_members(source, root, &h);
    cJSON_Delete(root);
    if (st == KR_OK)
        *out = h;
    else
        st_header_free(&h);
    return st;
}

void st_header_free(struct st_header *h)
{
    mem_free(h->list);
    *h = (struct st_header){ 0 };
}

int32_t st_header_find(const struct st_header *h, const char *name)
{
    int32_t low = 0, high = h->count;

    while (low < high) {
        int32_t mid = low + (high - low) / 2;
        int order = strcmp(name, h->list[mid].name);

        if (order == 0) return mid;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return -1;
}

/* ---- printing --------------------------------------------------------------------------- */

static int by_width(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;

    if (types[x->type].bits != types[y->type].bits)
        return types[x->type].bits > types[y->type].bits ? -1 : 1;
    return strcmp(x->name, y->name);
}

void st_header_lay_out(struct st_header *h)
{
    h->bytes = 0;
    if (h->count) qsort(h->list, (size_t)h->count, sizeof *h->list, by_width);
    for (int32_t i = 0; i < h->count; i++) {
        h->list[i].begin = h->bytes;
        h->bytes += st_bytes(&h->list[i]);
        h->list[i].end = h->bytes;
    }
}

/* Names need no escapes but for quotes and backslashes. */
static void print_name(struct mem_text *t, const char *name)
{
    for (; *name; name++)
        mem_printf(t, "%s%c", *name == '"' || *name == '\\' ? "\\" : "", *name);
}

static kr_status print_header(const struct st_header *h, struct mem_text *t)
{
    mem_printf(t, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int32_t i = 0; i < h->count; i++) {
        const struct st_tensor *x = &h->list[i];

        mem_printf(t, ",\"");
        print_name(t, x->name);
        mem_printf(t, "\":{\"dtype\":\"%s\",\"shape\":[", types[x->type].name);
        for (int d = 0; d < x->dims; d++)
            mem_printf(t, "%s%" PRId64, d ? "," : "", x->shape[d]);
        mem_printf(t, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", x->begin, x->end);
    }
    mem_printf(t, "}");
    while (!t->failed && t->len % 8 != 0)
        mem_append(t, " ", 1);
    return t->failed ? KR_FAIL(KR_ERR_MEM, "no memory for a header") : KR_OK;
}

/* ---- reading ---------------------------------------------------------------------------- */

static kr_status read_header(struct st_file *f, uint64_t size)
{
    uint64_t len;
    char *text = NULL;
    kr_status st;

    if (size < sizeof len) return bad(f->path, "", "too short for a file of safetensors");
    TRY(fs_pread(f->fd, f->path, &len, sizeof len, 0));
    len = le64toh(len);
    if (len > ST_HEADER_MOST || len > size - sizeof len)
        return KR_FAIL(KR_ERR_DATA, "%s: a header of %" PRIu64 " bytes does not fit",
                       f->path, len);
    TRY(mem_alloc(&text, (size_t)len + 1, 1, "header"));
    f->data = sizeof len + len;
    st = fs_pread(f->fd, f->path, text, (size_t)len, sizeof len);
    if (st == KR_OK)
        st = st_header_parse(&f->header, text, (size_t)len, size - f->data, f->path);
    mem_free(text);
    return st;
}

kr_status st_open(struct st_file *out, const char *path)
{
    struct st_file f = { 0 };
    uint64_t size;
    kr_status st;

    TRY(fs_path(f.path, "%s", path));
    TRY(fs_open(&f.fd, path, O_RDONLY));
    st = fs_size(f.fd, path, &size);
    if (st == KR_OK) st = read_header(&f, size);
    if (st == KR_OK)
        *out = f;
    else
        st_close(&f);
    return st;
}

void st_close(struct st_file *f)
{
    if (f->path[0]) (void)fs_close(f->fd, f->path);
    st_header_free(&f->header);
    *f = (struct st_file){ 0 };
}

/* Little-endian elements, wherever they lie, to float. */
static float decode(int type, const char *at)
{
    uint64_t wide;
    uint32_t single;
    uint16_t half;
    double d;
    float x;

    switch (type) {
    case ST_F64:
        memcpy(&wide, at, sizeof wide);
        wide = le64toh(wide);
        memcpy(&d, &wide, sizeof d);
        return (float)d;
    case ST_F32:
        memcpy(&single, at, sizeof single);
        single = le32toh(single);
        memcpy(&x, &single, sizeof x);
        return x;
    default:
        memcpy(&half, at, sizeof half);
        half = le16toh(half);
        return type == ST_BF16 ? bf16_value(half) : fp16_value(half);
    }
}

static void encode(int type, float x, char *at)
{
    uint64_t wide;
    uint32_t single;
    uint16_t half;
    double d = (double)x;

    switch (type) {
    case ST_F64:
        memcpy(&wide, &d, sizeof wide);
        wide = htole64(wide);
        memcpy(at, &wide, sizeof wide);
        return;
    case ST_F32:
        memcpy(&single, &x, sizeof single);
        single = htole32(single);
        memcpy(at, &single, sizeof single);
        return;
    default:
        half = htole16(type == ST_BF16 ? bf16_round(x) : fp16_round(x));
        memcpy(at, &half, sizeof half);
    }
}

kr_status st_read(const struct st_file *f, const struct st_tensor *t, int64_t first,
                  int64_t count, float *out)
{
    size_t width = (size_t)types[t->type].bits / 8;
    size_t room = (size_t)(count < PIECE ? count : PIECE);
    char *raw = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&raw, room, width, "a buffer to read into"));
    for (int64_t at = 0; at < count && st == KR_OK; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;

        st = fs_pread(f->fd, f->path, raw, (size_t)n * width,
                      f->data + t->begin + (uint64_t)(first + at) * width);
        for (int64_t i = 0; st == KR_OK && i < n; i++)
            out[at + i] = decode(t->type, raw + (size_t)i * width);
    }
    mem_free(raw);
    return st;
}

/* ---- writing ---------------------------------------------------------------------------- */

kr_status st_create(struct st_writer *out, const char *path, const struct st_header *h)
{
    struct st_writer w = { 0 };
    struct mem_text t = { 0 };
    uint64_t len;
    kr_status st;

    TRY(fs_path(w.path, "%s", path));
    TRY_OR(st, print_header(h, &t), done);
    TRY_OR(st, fs_open(&w.fd, path, O_WRONLY | O_CREAT | O_TRUNC), done);
    len = htole64(t.len);
    st = fs_pwrite(w.fd, path, &len, sizeof len, 0);
    if (st == KR_OK) st = fs_pwrite(w.fd, path, t.at, t.len, sizeof len);
    w.at = sizeof len + t.len;
    if (st == KR_OK)
        *out = w;
    else
        (void)fs_close(w.fd, path);
done:
    mem_text_free(&t);
    return st;
}

kr_status st_write(struct st_writer *w, int type, const float *from, int64_t count)
{
    size_t width = (size_t)types[type].bits / 8;
    size_t room = (size_t)(count < PIECE ? count : PIECE);
    char *raw = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&raw, room, width, "a buffer to write from"));
    for (int64_t at = 0; at < count && st == KR_OK; at += PIECE) {
        int64_t n = count - at < PIECE ? count - at : PIECE;

        for (int64_t i = 0; i < n; i++)
            encode(type, from[at + i], raw + (size_t)i * width);
        st = fs_pwrite(w->fd, w->path, raw, (size_t)n * width, w->at);
        fs_start_flush(w->fd, w->at, (size_t)n * width);
        w->at += (uint64_t)n * width;
    }
    mem_free(raw);
    return st;
}

kr_status st_finish(struct st_writer *w, kr_status st)
{
    kr_status closed;

    if (st == KR_OK) st = fs_fsync(w->fd, w->path);
    closed = fs_close(w->fd, w->path);
    return st == KR_OK ? closed : st;
}
