/* Token files: each format gives its tokens, and no broken file gets past the door. */
#include "trainer/data/tokens.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/check.h"

static char folder[FS_PATH / 2]; /* all files of these tests */
static char errors[16384];       /* error lines of the call under test */

static void keep_errors(enum log_level level, const char *text, void *arg)
{
    size_t len = strlen(errors);

    (void)arg;
    if (level == LOG_ERROR) snprintf(errors + len, sizeof errors - len, "%s\n", text);
}

/* ---- making files ----------------------------------------------------------------------- */

static const char *in_folder(const char *name)
{
    static char paths[4][FS_PATH];
    static int turn;
    char *path = paths[turn++ % 4];

    snprintf(path, FS_PATH, "%s/%s", folder, name);
    return path;
}

static const char *put(const char *name, const void *from, size_t bytes)
{
    const char *path = in_folder(name);
    FILE *f = fopen(path, "wb");

    if (!f || (bytes && fwrite(from, bytes, 1, f) != 1) || fclose(f) != 0) abort();
    return path;
}

static const char *put_text(const char *name, const char *text)
{
    return put(name, text, strlen(text));
}

/* The parts of an index, in the order of the file; NULL arrays are made from the counts. */
struct index {
    uint64_t version, sequences, starts;
    uint8_t code;
    const int32_t *lengths;
    const int64_t *offsets, *documents;
};

static void put_index(const char *name, const struct index *x, size_t cut)
{
    struct mem_text t = { 0 };

    mem_append(&t, "MMIDIDX\0", 9);
    mem_append(&t, &x->version, 8);
    mem_append(&t, &x->code, 1);
    mem_append(&t, &x->sequences, 8);
    mem_append(&t, &x->starts, 8);
    mem_append(&t, x->lengths, x->sequences * 4);
    mem_append(&t, x->offsets, x->sequences * 8);
    mem_append(&t, x->documents, x->starts * 8);
    put(name, t.at, t.len - cut);
    mem_text_free(&t);
}

/* Two documents of 3 and 2 tokens: the index that Megatron's own writer makes of them. */
static const uint8_t vector[82] =
    "MMIDIDX\0\0\1\0\0\0\0\0\0\0\4\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\3\0\0\0\2\0\0\0"
    "\0\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0";
static const int32_t lengths[2] = { 3, 2 };
static const int64_t starts[3] = { 0, 1, 2 };
static const int32_t five[5] = { 7, 0, 256, 1, 99 };

static const char *put_llmc(const char *name, int32_t magic, int32_t version,
                            int32_t count, const void *tokens, size_t bytes)
{
    int32_t head[256] = { magic, version, count };
    struct mem_text t = { 0 };
    const char *path;

    mem_append(&t, head, sizeof head);
    mem_append(&t, tokens, bytes);
    path = put(name, t.at, t.len);
    mem_text_free(&t);
    return path;
}

/* ---- checks ----------------------------------------------------------------------------- */

static struct tokens *must_open(const char *path, enum tokens_part part, double held_out)
{
    struct tokens *t = NULL;

    errors[0] = '\0';
    CHECK_I64(tokens_open(&t, path, part, held_out, 257), ==, KR_OK);
    CHECK_STR(errors, "");
    return t;
}

static void check_row(const char *path, const int32_t *want, int64_t count)
{
    struct tokens *t = must_open(path, TOKENS_ALL, 0);
    int32_t got[64] = { 0 };

    if (!t) return;
    CHECK_I64(tokens_count(t), ==, count);
    CHECK_I64(tokens_read(t, 0, count, got), ==, KR_OK);
    for (int64_t i = 0; i < count; i++)
        CHECK_I64(got[i], ==, want[i]);
    CHECK_I64(tokens_read(t, count - 1, 1, got), ==, KR_OK);
    CHECK_I64(got[0], ==, want[count - 1]);
    CHECK(strstr(tokens_describe(t), path) != NULL);
    tokens_close(t);
}

/* Refused with one line that names `named` and holds `why`. */
static void check_refused(const char *path, int64_t vocab, const char *named,
                          const char *why)
{
    struct tokens *t = NULL;

    errors[0] = '\0';
    CHECK_I64(tokens_open(&t, path, TOKENS_ALL, 0, vocab), ==, KR_ERR_ARG);
    CHECK(t == NULL);
    CHECK(strstr(errors, named) != NULL);
    CHECK(strstr(errors, why) != NULL);
    CHECK(errors[0] && strchr(errors, '\n') == errors + strlen(errors) - 1);
    if (check_bad_here) printf("# %s gave: %s\n", path, errors);
}

/* ---- formats ---------------------------------------------------------------------------- */

static void megatron_reference_index_is_read(void)
{
    put("ref.idx", vector, sizeof vector);
    put("ref.bin", five, sizeof five);
    check_row(in_folder("ref.bin"), five, 5);
    check_row(in_folder("ref.idx"), five, 5);
    check_row(in_folder("ref"), five, 5);
}

static void megatron_reads_every_width(void)
{
    static const struct {
        uint8_t code;
        int width;
        const char *name;
    } kinds[] = { { 1, 1, "uint8" }, { 2, 1, "int8" },  { 3, 2, "int16" },
                  { 4, 4, "int32" }, { 5, 8, "int64" }, { 8, 2, "uint16" } };
    static const int32_t want[5] = { 7, 0, 127, 1, 99 };

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        uint8_t bytes[40] = { 0 };
        int64_t offsets[2] = { 0, 3 * kinds[k].width };
        struct index x = { 1, 2, 3, kinds[k].code, lengths, offsets, starts };
        struct tokens *t;

        for (int i = 0; i < 5; i++)
            bytes[i * kinds[k].width] = (uint8_t)want[i];
        put_index("w.idx", &x, 0);
        put("w.bin", bytes, (size_t)(5 * kinds[k].width));
        check_row(in_folder("w"), want, 5);
        t = must_open(in_folder("w"), TOKENS_ALL, 0);
        CHECK(t && strstr(tokens_describe(t), kinds[k].name) != NULL);
        tokens_close(t);
    }
}

static void megatron_sequence_modes_are_passed_over(void)
{
    uint8_t longer[84] = { 0 };

    memcpy(longer, vector, sizeof vector);
    put("modes.idx", longer, sizeof longer);
    put("modes.bin", five, sizeof five);
    check_row(in_folder("modes"), five, 5);
}

static void llmc_shards_of_both_versions_are_read(void)
{
    static const uint16_t narrow[5] = { 7, 0, 256, 1, 99 };

    check_row(put_llmc("gpt2.bin", 20240520, 1, 5, narrow, sizeof narrow), five, 5);
    check_row(put_llmc("llama3.bin", 20240801, 7, 5, five, sizeof five), five, 5);
}

static void nanogpt_file_is_read(void)
{
    static const uint16_t raw[5] = { 7, 0, 256, 1, 99 };

    check_row(put("raw.bin", raw, sizeof raw), five, 5);
}

static void text_file_is_bytes_and_an_end(void)
{
    static const int32_t want[6] = { 'a', '\n', 0xc3, 0xa9, 0xff, TOKENS_END };

    check_row(put_text("one.txt", "a\n\xc3\xa9\xff"), want, 6);
}

static void folder_is_its_texts_in_order_without_links_and_binaries(void)
{
    static const int32_t want[6] = { '1', '2', TOKENS_END, '3', '4', TOKENS_END };
    char target[FS_PATH];

    CHECK_I64(mkdir(in_folder("texts"), 0700), ==, 0);
    CHECK_I64(mkdir(in_folder("texts/sub"), 0700), ==, 0);
    put_text("texts/b", "34");
    put_text("texts/a", "12");
    put_text("texts/empty", "");
    put("texts/c.o", "x\0y", 3);
    put_text("texts/sub/deep", "not read");
    snprintf(target, sizeof target, "%s", in_folder("texts/a"));
    CHECK_I64(symlink(target, in_folder("texts/link")), ==, 0);
    CHECK_I64(symlink("/nowhere", in_folder("texts/dangling")), ==, 0);
    check_row(in_folder("texts"), want, 6);
}

/* ---- the held out part ------------------------------------------------------------------ */

static void binary_parts_join_to_the_whole(void)
{
    enum { N = 1003 };
    static const double shares[] = { 0, 0.001, 0.1, 1.0 / 3, 0.5 };
    uint16_t raw[N];
    int32_t got[N];
    const char *path;

    for (int i = 0; i < N; i++)
        raw[i] = (uint16_t)(i % 257);
    path = put("split.bin", raw, sizeof raw);
    for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
        struct tokens *train = must_open(path, TOKENS_TRAIN, shares[s]), *held = NULL;
        int64_t first = tokens_count(train), rest = N - first;

        CHECK_NEAR(rest, shares[s] * N, 1);
        tokens_read(train, 0, first, got);
        if (rest) held = must_open(path, TOKENS_HELD_OUT, shares[s]);
        if (held) CHECK_I64(tokens_count(held), ==, rest);
        if (held) tokens_read(held, 0, rest, got + first);
        for (int i = 0; i < N; i++)
            CHECK_I64(got[i], ==, raw[i]);
        tokens_close(train);
        tokens_close(held);
    }
}

/* Cut each row at its ends of documents and look at document d: count of its bytes. */
static int64_t document(const struct tokens *t, int64_t d, char *out)
{
    int64_t n = 0, count = tokens_count(t);
    int32_t id;

    for (int64_t i = 0; i < count; i++) {
        CHECK_I64(tokens_read(t, i, 1, &id), ==, KR_OK);
        if (id == TOKENS_END)
            d--;
        else if (d == 0)
            out[n++] = (char)id;
    }
    return n;
}

static void text_parts_are_whole_lines_that_join_to_each_file(void)
{
    struct mem_text texts[2] = { 0 };
    struct tokens *train, *held;
    char got[4096];
    int64_t n;

    for (int i = 0; i < 60; i++)
        mem_printf(&texts[i % 2], "line %d of a text\n", i * i);
    mkdir(in_folder("two"), 0700);
    put_text("two/0", texts[0].at);
    put_text("two/1", texts[1].at);
    train = must_open(in_folder("two"), TOKENS_TRAIN, 0.2);
    held = must_open(in_folder("two"), TOKENS_HELD_OUT, 0.2);
    for (int d = 0; d < 2; d++) {
        n = document(train, d, got);
        CHECK(n > 0 && got[n - 1] == '\n');
        CHECK_NEAR(n, 0.8 * (double)texts[d].len, 30);
        n += document(held, d, got + n);
        CHECK_I64(n, ==, texts[d].len);
        CHECK(memcmp(got, texts[d].at, texts[d].len) == 0);
        mem_text_free(&texts[d]);
    }
    tokens_close(train);
    tokens_close(held);
}

static void part_without_a_token_is_refused(void)
{
    static const uint16_t raw[2] = { 1, 2 };
    struct tokens *t = NULL;
    const char *path = put("two.bin", raw, sizeof raw);

    errors[0] = '\0';
    CHECK_I64(tokens_open(&t, path, TOKENS_HELD_OUT, 0, 257), ==, KR_ERR_ARG);
    CHECK(t == NULL && strstr(errors, path) != NULL);
}

/* ---- broken files ----------------------------------------------------------------------- */

static void missing_and_empty_are_refused(void)
{
    const char *path = put("empty.bin", "", 0);

    check_refused(path, 257, path, "no tokens");
    path = put("empty.txt", "", 0);
    check_refused(path, 257, path, "no tokens");
    mkdir(in_folder("void"), 0700);
    check_refused(in_folder("void"), 257, "/void", "no tokens");
    check_refused(in_folder("nothing"), 257, "/nothing", "No such file");
    check_refused(in_folder("nothing.bin"), 257, "/nothing.bin", "No such file");
    put("alone.idx", vector, sizeof vector);
    check_refused(in_folder("alone.idx"), 257, "/alone.idx", "beside it is missing");
    put("none.idx", "", 0);
    put("none.bin", "", 0);
    check_refused(in_folder("none"), 257, "/none.idx", "no Megatron index");
    check_refused("", 257, "", "No such file");
}

static void foreign_files_are_refused(void)
{
    static char longest[FS_PATH + 1];
    const char *path = put_text("notes.md", "abcd");

    check_refused(path, 65536, path, "no *.bin");
    path = put("zeros.txt", "a\0b", 3);
    check_refused(path, 257, path, "no tokens");
    path = put("odd.bin", "abc", 3);
    check_refused(path, 65536, path, "odd");
    mkdir(in_folder("dir.bin"), 0700);
    put("dir.idx", vector, sizeof vector);
    check_refused(in_folder("dir"), 257, "/dir.bin", "cannot map");
    CHECK_I64(mkfifo(in_folder("pipe.bin"), 0600), ==, 0);
    check_refused(in_folder("pipe.bin"), 257, "/pipe.bin", "no *.bin");
    memset(longest, 'x', sizeof longest - 1);
    check_refused(longest, 257, "", "too long");
}

static void every_truncation_of_an_index_is_refused(void)
{
    put("cut.bin", five, sizeof five);
    for (size_t n = 0; n < sizeof vector; n++) {
        put("cut.idx", vector, n);
        check_refused(in_folder("cut"), 257, "/cut.idx",
                      n < 34 ? "no Megatron" : "counts");
    }
}

static void index_that_lies_is_refused(void)
{
    static const int64_t good[2] = { 0, 12 }, gap[2] = { 0, 16 }, late[2] = { 4, 16 };
    static const int32_t negative[2] = { 3, -2 }, huge[2] = { 3, INT32_MAX };
    static const int64_t back[4] = { 0, 2, 1, 2 }, from1[3] = { 1, 1, 2 },
                         short_of[3] = { 0, 1, 1 };
    const struct {
        struct index x;
        const char *why;
    } cases[] = {
        { { 2, 2, 3, 4, lengths, good, starts }, "version" },
        { { 1, 2, 3, 0, lengths, good, starts }, "type" },
        { { 1, 2, 3, 6, lengths, good, starts }, "type" },
        { { 1, 2, 3, 9, lengths, good, starts }, "type" },
        { { 1, 2, 3, 8, lengths, good, starts }, "follow" },
        { { 1, 2, 3, 4, lengths, gap, starts }, "follow" },
        { { 1, 2, 3, 4, lengths, late, starts }, "follow" },
        { { 1, 2, 3, 4, negative, good, starts }, "follow" },
        { { 1, 2, 3, 4, huge, good, starts }, "beyond" },
        { { 1, 1, 2, 4, lengths, good, starts }, "cover" },
        { { 1, 2, 4, 4, lengths, good, back }, "order" },
        { { 1, 2, 3, 4, lengths, good, from1 }, "order" },
        { { 1, 2, 3, 4, lengths, good, short_of }, "cover" },
    };

    put("lie.bin", five, sizeof five);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_index("lie.idx", &cases[i].x, 0);
        check_refused(in_folder("lie"), 257, "/lie.idx", cases[i].why);
    }
}

/* Also counts whose product with their width overflows, to the very size of the file. */
static void index_counts_beyond_the_file_are_refused(void)
{
    static const struct {
        int field;
        uint64_t count;
    } lies[] = { { 18, 3 },          { 26, 4 },          { 18, 2 + (1ull << 62) },
                 { 18, UINT64_MAX }, { 26, UINT64_MAX }, { 26, 3 + (1ull << 61) },
                 { 18, 83 },         { 26, 83 },         { 18, INT64_MAX } };

    put("count.bin", five, sizeof five);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        uint8_t idx[sizeof vector];

        memcpy(idx, vector, sizeof idx);
        memcpy(idx + lies[i].field, &lies[i].count, sizeof lies[i].count);
        put("count.idx", idx, sizeof idx);
        check_refused(in_folder("count"), 257, "/count.idx", "counts");
    }
}

static void llmc_header_that_lies_is_refused(void)
{
    const char *path = put_llmc("v.bin", 20240520, 2, 10, five, sizeof five);

    check_refused(path, 257, path, "version");
    path = put_llmc("v.bin", 20240801, 1, 5, five, sizeof five);
    check_refused(path, 257, path, "version");
    path = put_llmc("v.bin", 20240520, 1, 11, five, sizeof five);
    check_refused(path, 257, path, "size");
    path = put_llmc("v.bin", 20240520, 1, 9, five, sizeof five);
    check_refused(path, 257, path, "size");
    path = put_llmc("v.bin", 20240801, 7, -5, five, sizeof five);
    check_refused(path, 257, path, "size");
    path = put_llmc("v.bin", 20240801, 7, 0, five, 0);
    check_refused(path, 257, path, "no tokens");
    path = put("v.bin", (const int32_t[]){ 20240520, 1 }, 8);
    check_refused(path, 257, path, "shorter");
}

static void ids_beyond_the_vocabulary_are_refused(void)
{
    static const uint16_t raw[3] = { 1, 257, 2 };
    static const int32_t below[5] = { 1, 2, 3, -1, 5 };
    static const int64_t ends[2] = { 0, 1 };
    const char *path = put("big.bin", raw, sizeof raw);

    check_refused(path, 257, path, "token 1 is 257");
    check_row(put("ok.bin", raw + 2, 2), (const int32_t[]){ 2 }, 1);
    put("neg.idx", vector, sizeof vector);
    put("neg.bin", below, sizeof below);
    check_refused(in_folder("neg"), 257, "/neg", "token 3 is -1");
    put_index("neg.idx", &(struct index){ 1, 1, 2, 2, &lengths[1], &starts[0], ends }, 0);
    put("neg.bin", "\1\200", 2);
    check_refused(in_folder("neg"), 257, "/neg", "token 1 is -128");
    path = put_text("small.txt", "abc");
    check_refused(path, 256, path, "256");
}

static void put_id(const char *path, int64_t place, uint16_t id)
{
    FILE *f = fopen(path, "r+b");

    fseek(f, 2 * place, SEEK_SET);
    fwrite(&id, sizeof id, 1, f);
    fclose(f);
}

/* Larger than what is checked at open: a bad id in the middle is found when it is read. */
static void bad_id_amid_a_large_file_is_found_when_read(void)
{
    enum { N = 34 << 20, BAD = N / 2 };
    const char *path = put("large.bin", "", 0);
    struct tokens *t;
    int32_t got[8];

    CHECK_I64(truncate(path, 2l * N), ==, 0);
    put_id(path, BAD, 999);
    t = must_open(path, TOKENS_ALL, 0);
    CHECK_I64(tokens_read(t, BAD - 8, 8, got), ==, KR_OK);
    CHECK_I64(tokens_read(t, BAD - 4, 8, got), ==, KR_ERR_DATA);
    CHECK(strstr(errors, path) != NULL);
    tokens_close(t);
    put_id(path, 1000, 998);
    check_refused(path, 257, path, "token 1000 is 998");
    put_id(path, 1000, 0);
    put_id(path, N - 1, 997);
    check_refused(path, 257, path, "is 997");
}

/* ---- fingerprint ------------------------------------------------------------------------ */

static uint64_t fingerprint(const char *path, enum tokens_part part)
{
    struct tokens *t = must_open(path, part, 0.25);
    uint64_t f = t ? tokens_fingerprint(t) : 0;

    tokens_close(t);
    return f;
}

static void fingerprint_is_of_the_tokens_not_of_the_file(void)
{
    uint16_t narrow[5] = { 7, 0, 256, 1, 99 };
    uint64_t one = fingerprint(in_folder("ref"), TOKENS_ALL);

    CHECK(one == fingerprint(in_folder("ref.bin"), TOKENS_ALL));
    CHECK(one == fingerprint(put("same.bin", narrow, sizeof narrow), TOKENS_ALL));
    CHECK(one != fingerprint(in_folder("ref"), TOKENS_TRAIN));
    narrow[4] = 98;
    CHECK(one != fingerprint(put("other.bin", narrow, sizeof narrow), TOKENS_ALL));
}

int main(void)
{
    snprintf(folder, sizeof folder, "%s/t_tokens.XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) return 1;
    log_capture(keep_errors, NULL);
    RUN(megatron_reference_index_is_read);
    RUN(megatron_reads_every_width);
    RUN(megatron_sequence_modes_are_passed_over);
    RUN(llmc_shards_of_both_versions_are_read);
    RUN(nanogpt_file_is_read);
    RUN(text_file_is_bytes_and_an_end);
    RUN(folder_is_its_texts_in_order_without_links_and_binaries);
    RUN(binary_parts_join_to_the_whole);
    RUN(text_parts_are_whole_lines_that_join_to_each_file);
    RUN(part_without_a_token_is_refused);
    RUN(missing_and_empty_are_refused);
    RUN(foreign_files_are_refused);
    RUN(every_truncation_of_an_index_is_refused);
    RUN(index_that_lies_is_refused);
    RUN(index_counts_beyond_the_file_are_refused);
    RUN(llmc_header_that_lies_is_refused);
    RUN(ids_beyond_the_vocabulary_are_refused);
    RUN(bad_id_amid_a_large_file_is_found_when_read);
    RUN(fingerprint_is_of_the_tokens_not_of_the_file);
    (void)fs_remove_tree(folder);
    return check_done();
}
