/*
 * t_safetensors.c - the container byte by byte, what is refused, and 16-bit numbers.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/bf16.h"
#include "base/fp16.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/st_folder.h"
#include "tests/check.h"
#include "tests/unit/rig.h"

static char root[FS_PATH];
static char said[2048];

static void listen(enum log_level level, const char *text, void *arg)
{
    (void)arg;
    if (level == LOG_ERROR) snprintf(said, sizeof said, "%s", text);
}

static void path_of(char out[FS_PATH], const char *name)
{
    rig_must(fs_path(out, "%s/%s", root, name));
}

static void put(const char *name, const void *bytes, size_t n)
{
    char path[FS_PATH];

    path_of(path, name);
    rig_must(fs_replace(path, bytes, n));
}

/* A file with this header and a buffer of zeros. */
static void put_file(const char *name, const char *header, size_t buffer)
{
    size_t n = strlen(header);
    char *file = calloc(1, 8 + n + buffer);
    uint64_t len = n;

    memcpy(file, &len, sizeof len);
    memcpy(file + 8, header, n);
    put(name, file, 8 + n + buffer);
    free(file);
}

/* ---- the container ------------------------------------------------------------------------ */

#define REFERENCE                                                                   \
    "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2]," \
    "\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],"            \
    "\"data_offsets\":[8,12]}}  "

static void the_reference_bytes_are_written(void)
{
    static const unsigned char data[] = { 0, 0,    0x80, 0x3f, 0,    0,
                                          0, 0xc0, 0x80, 0x3f, 0x00, 0xc0 };
    struct st_tensor list[] = {
        { .name = "b", .type = ST_BF16, .dims = 2, .shape = { 1, 2 } },
        { .name = "a", .type = ST_F32, .dims = 1, .shape = { 2 } }
    };
    struct st_header h = { .list = list, .count = 2 };
    const float x[] = { 1, -2 };
    struct st_writer w;
    char path[FS_PATH], *text = NULL;
    size_t n;

    path_of(path, "reference.safetensors");
    st_header_lay_out(&h);
    CHECK(st_create(&w, path, &h) == KR_OK);
    CHECK(st_write(&w, ST_F32, x, 2) == KR_OK);
    CHECK(st_write(&w, ST_BF16, x, 2) == KR_OK);
    CHECK(st_finish(&w, KR_OK) == KR_OK);
    CHECK(fs_read_all(path, &text, &n, 1000) == KR_OK);
    CHECK_I64(n, ==, 164);
    CHECK(memcmp(text, "\x90\0\0\0\0\0\0", 8) == 0);
    CHECK(memcmp(text + 8, REFERENCE, 144) == 0);
    CHECK(memcmp(text + 152, data, sizeof data) == 0);
    mem_free(text);
}

static void what_was_written_is_read(void)
{
    struct st_file f;
    const struct st_tensor *b;
    char path[FS_PATH];
    float x[2];

    path_of(path, "reference.safetensors");
    CHECK(st_open(&f, path) == KR_OK);
    CHECK_I64(f.header.count, ==, 2);
    b = &f.header.list[st_header_find(&f.header, "b")];
    CHECK(b->type == ST_BF16 && b->dims == 2 && b->shape[1] == 2);
    CHECK(st_read(&f, b, 0, 2, x) == KR_OK);
    CHECK(x[0] == 1 && x[1] == -2);
    CHECK_I64(st_header_find(&f.header, "c"), ==, -1);
    st_close(&f);
}

/* Other types, no dimensions, dimensions of 0, any order of members, spaces at the end. */
static void unusual_files_are_read(void)
{
    struct st_file f;
    char path[FS_PATH];

    put_file("unusual.safetensors",
             "{\"s\":{\"data_offsets\":[3,7],\"shape\":[],\"dtype\":\"F32\"},"
             "\"e\":{\"dtype\":\"F64\",\"shape\":[0,5],\"data_offsets\":[7,7]},"
             "\"m\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[0,3]}}     ",
             7);
    path_of(path, "unusual.safetensors");
    CHECK(st_open(&f, path) == KR_OK);
    CHECK_I64(f.header.count, ==, 3);
    CHECK_I64(st_elements(&f.header.list[st_header_find(&f.header, "s")]), ==, 1);
    CHECK_I64(st_elements(&f.header.list[st_header_find(&f.header, "e")]), ==, 0);
    CHECK(f.header.list[st_header_find(&f.header, "m")].type >= ST_FLOATS);
    st_close(&f);
}

/* ---- hostile files ------------------------------------------------------------------------ */

#define ONE(name, dtype, shape, place)                                                  \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" place \
    "}"

static void hostile_headers_are_refused(void)
{
    static const struct {
        const char *header;
        size_t buffer;
        const char *why;
    } cases[] = {
        { "", 0, "no JSON object" },
        { "[]", 0, "no JSON object" },
        { " {}", 0, "no JSON object" },
        { "{", 0, "no JSON object" },
        { "{}x", 0, "no JSON object" },
        { "{\"a\\u0000b\":1}", 0, "no JSON object" },
        { "{\"a\":1}", 0, "want dtype, shape and data_offsets" },
        { "{" ONE("a", "F99", "[1]", "[0,4]") "}", 4, "a: unknown dtype" },
        { "{" ONE("a b", "F32", "[1]", "[0,4]") "}", 4, "bad name" },
        { "{" ONE("", "F32", "[1]", "[0,4]") "}", 4, "bad name" },
        { "{" ONE("a", "F32", "[1]", "[0,4]") "," ONE("a", "F32", "[1]", "[4,8]") "}", 8,
          "two tensors of this name" },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[1],"
          "\"data_offsets\":[0,4]}}",
          4, "once each" },
        { "{" ONE("a", "F32", "[-1]", "[0,4]") "}", 4, "bad shape" },
        { "{" ONE("a", "F32", "[1.5]", "[0,4]") "}", 4, "bad shape" },
        { "{" ONE("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "bad shape" },
        { "{" ONE("a", "F32", "[1099511627776,1099511627776,4]", "[0,4]") "}", 4,
          "bad shape" },
        { "{" ONE("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "bad shape" },
        { "{" ONE("a", "F32", "[1]", "[4,0]") "}", 4, "outside the file" },
        { "{" ONE("a", "F32", "[2]", "[0,8]") "}", 4, "outside the file" },
        { "{" ONE("a", "F32", "[1]", "[0,18446744073709551616]") "}", 4,
          "outside the file" },
        { "{" ONE("a", "F32", "[1]", "[-4,0]") "}", 4, "outside the file" },
        { "{" ONE("a", "F32", "[1]", "[0]") "}", 4, "outside the file" },
        { "{" ONE("a", "F32", "[2]", "[0,4]") "}", 4, "do not fit" },
        { "{" ONE("a", "F4", "[1]", "[0,1]") "}", 1, "do not fit" },
        { "{" ONE("a", "F32", "[1]", "[0,4]") "," ONE("b", "F32", "[1]", "[0,4]") "}", 4,
          "overlaps another" },
        { "{" ONE("a", "F32", "[2]", "[0,8]") "," ONE("b", "F32", "[1]", "[4,8]") "}", 8,
          "overlaps another" },
        { "{" ONE("a", "F32", "[1]", "[0,4]") "," ONE("b", "F32", "[1]", "[8,12]") "}",
          12, "belong to no tensor" },
        { "{" ONE("a", "F32", "[1]", "[4,8]") "}", 8, "belong to no tensor" },
        { "{" ONE("a", "F32", "[1]", "[0,4]") "}", 9, "at the end belong to no tensor" },
    };
    char path[FS_PATH];
    struct st_file f;

    path_of(path, "hostile.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_file("hostile.safetensors", cases[i].header, cases[i].buffer);
        said[0] = '\0';
        CHECK(st_open(&f, path) == KR_ERR_DATA);
        if (!strstr(said, cases[i].why)) printf("# %s: %s\n", cases[i].header, said);
        CHECK(strstr(said, cases[i].why) && strstr(said, path));
    }
}

static void lying_lengths_are_refused(void)
{
    static const uint64_t lies[] = { 3, 100, 100000001, INT64_MAX, UINT64_MAX };
    char path[FS_PATH], file[10] = "........{}";
    struct st_file f;

    path_of(path, "lying.safetensors");
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(file, &lies[i], 8);
        put("lying.safetensors", file, sizeof file);
        said[0] = '\0';
        CHECK(st_open(&f, path) == KR_ERR_DATA);
        CHECK(strstr(said, "does not fit"));
    }
    put("lying.safetensors", "1234567", 7);
    CHECK(st_open(&f, path) == KR_ERR_DATA);
    CHECK(strstr(said, "too short"));
}

static void deep_json_does_not_end_us(void)
{
    enum { DEEP = 100000 };
    char *header = malloc(DEEP + 6), path[FS_PATH];
    struct st_file f;

    strcpy(header, "{\"a\":");
    memset(header + 5, '[', DEEP);
    header[DEEP + 5] = '\0';
    put_file("deep.safetensors", header, 0);
    path_of(path, "deep.safetensors");
    CHECK(st_open(&f, path) == KR_ERR_DATA);
    free(header);
}

static void hostile_indexes_are_refused(void)
{
    static const struct {
        const char *map, *why;
    } cases[] = {
        { "\"a\":\"../x.safetensors\"", "bad name of a file" },
        { "\"a\":\"/etc/x.safetensors\"", "bad name of a file" },
        { "\"a\":\"b/x.safetensors\"", "bad name of a file" },
        { "\"a\":\".safetensors\"", "bad name of a file" },
        { "\"a\":\"x.bin\"", "bad name of a file" },
        { "\"a\":\"\"", "bad name of a file" },
        { "\"a\":7", "bad name of a file" },
        { "\"\":\"one.safetensors\"", "a tensor with a bad name" },
        { "\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"", "listed twice" },
        { "", "lists no tensor" },
        { "\"a\":\"missing.safetensors\"", "cannot open" },
        { "\"b\":\"one.safetensors\"", "it is not" },
        { "\"a\":\"one.safetensors\"", "that the index does not list" },
        { "\"a\":\"one.safetensors\",\"c\":\"one.safetensors\","
          "\"b\":\"two.safetensors\"",
          "that the index does not list" },
    };
    char text[400];
    struct st_folder f;

    put_file("one.safetensors",
             "{" ONE("a", "F32", "[1]", "[0,4]") "," ONE("c", "F32", "[1]", "[4,8]") "}",
             8);
    put_file("two.safetensors",
             "{" ONE("a", "F32", "[1]", "[0,4]") "," ONE("b", "F32", "[1]", "[4,8]") "}",
             8);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\"weight_map\":{%s}}", cases[i].map);
        put(ST_INDEX, text, strlen(text));
        said[0] = '\0';
        CHECK(st_folder_open(&f, root) != KR_OK);
        if (!strstr(said, cases[i].why)) printf("# %s: %s\n", cases[i].map, said);
        CHECK(strstr(said, cases[i].why));
    }
    put(ST_INDEX, "[", 1);
    CHECK(st_folder_open(&f, root) == KR_ERR_DATA);
}

/* A file that gets shorter while it is open is an error, no crash. */
static void a_file_that_shrinks_is_an_error(void)
{
    char path[FS_PATH];
    struct st_file f;
    float x[2];

    put_file("one.safetensors", "{" ONE("a", "F32", "[2]", "[0,8]") "}", 8);
    path_of(path, "one.safetensors");
    CHECK(st_open(&f, path) == KR_OK);
    CHECK(truncate(path, 60) == 0);
    CHECK(st_read(&f, &f.header.list[0], 0, 2, x) == KR_ERR_DATA);
    st_close(&f);
}

/* ---- 16 bits ------------------------------------------------------------------------------ */

static void every_half_survives(void)
{
    int64_t bad = 0;

    for (uint32_t h = 0; h < 65536; h++) {
        float x = fp16_value((uint16_t)h);
        uint16_t back = fp16_round(x);

        if (isnan(x))
            bad += (back | 0x200u) != (h | 0x200u);
        else
            bad += back != h;
    }
    CHECK_I64(bad, ==, 0);
    CHECK(fp16_value(0x3c00) == 1 && fp16_value(0xc000) == -2);
    CHECK(fp16_value(0x0001) == 0x1p-24f && fp16_value(0x7bff) == 65504);
}

/* Halfway cases go to even, at every binade's border and among the subnormals. */
static void halves_round_to_nearest_even(void)
{
    int64_t bad = 0;

    for (uint32_t h = 0; h < 0x7bff; h++) {
        double a = (double)fp16_value((uint16_t)h),
               b = (double)fp16_value((uint16_t)(h + 1));
        float middle = (float)((a + b) / 2); /* exact */

        bad += fp16_round(middle) != (h & 1 ? h + 1 : h);
        bad += fp16_round(nextafterf(middle, 0)) != h;
        bad += fp16_round(nextafterf(middle, INFINITY)) != h + 1;
        bad += fp16_round(-middle) != (0x8000u | (h & 1 ? h + 1 : h));
    }
    CHECK_I64(bad, ==, 0);
    CHECK_I64(fp16_round(65519.996f), ==, 0x7bff);
    CHECK_I64(fp16_round(65520), ==, 0x7c00);
    CHECK_I64(fp16_round(INFINITY), ==, 0x7c00);
    CHECK_I64(fp16_round(1e-9f), ==, 0);
}

int main(void)
{
    log_capture(listen, NULL);
    rig_folder(root, "safetensors");
    RUN(the_reference_bytes_are_written);
    RUN(what_was_written_is_read);
    RUN(unusual_files_are_read);
    RUN(hostile_headers_are_refused);
    RUN(lying_lengths_are_refused);
    RUN(deep_json_does_not_end_us);
    RUN(hostile_indexes_are_refused);
    RUN(a_file_that_shrinks_is_an_error);
    RUN(every_half_survives);
    RUN(halves_round_to_nearest_even);
    rig_must(fs_remove_tree(root));
    return check_done();
}
