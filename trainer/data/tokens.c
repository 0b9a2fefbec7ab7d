/*
 * tokens.c - four kinds of token files behind one row of tokens.
 *
 * A row is a list of runs: places of equal element width in mapped files, or text in
 * memory with an end token after each file.  Binary kinds have one run.
 */
#include "trainer/data/tokens.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    MEGATRON_HEADER = 34,
    LLMC_HEADER = 1024,
    LLMC_GPT2 = 20240520,
    LLMC_LLAMA3 = 20240801,
    CHECK_ALL = 64 << 20, /* bytes of tokens that are checked whole at open */
    CHECK_ENDS = 1 << 20, /* tokens checked at each end of larger files */
    TEXT_FILE_MAX = 1 << 30
};

enum coding { CODE_U8, CODE_I8, CODE_U16, CODE_I16, CODE_U32, CODE_I32, CODE_I64 };
static const int widths[] = { 1, 1, 2, 2, 4, 4, 8 };
static const char *const coding_names[] = { "uint8",  "int8",  "uint16", "int16",
                                            "uint32", "int32", "int64" };

struct tokens {
    struct fs_map map; /* binary kinds */
    int16_t *text;     /* text kinds: bytes and end tokens */
    const uint8_t *at; /* first token */
    int64_t count, vocab;
    enum coding coding;
    char about[FS_PATH + 128];
    char path[FS_PATH];
};

static kr_status bad(const char *path, const char *why)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %s", path, why);
}

/* ---- reading ---------------------------------------------------------------------------- */

static int64_t load(const struct tokens *t, int64_t i)
{
    const uint8_t *p = t->at + i * widths[t->coding];
    union {
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        int64_t i64;
    } v;

    memcpy(&v, p,
           (size_t)widths[t->coding] < sizeof v ? (size_t)widths[t->coding] : sizeof v);
    switch (t->coding) {
    case CODE_U8: return *p;
    case CODE_I8: return (int8_t)*p;
    case CODE_U16: return v.u16;
    case CODE_I16: return v.i16;
    case CODE_U32: return v.u32;
    case CODE_I32: return v.i32;
    case CODE_I64: return v.i64;
    }
    return -1;
}

static kr_status check_id(const struct tokens *t, int64_t i, int64_t id, kr_status status)
{
    if (id >= 0 && id < t->vocab) return KR_OK;
    return KR_FAIL(status,
                   "%s: token %" PRId64 " is %" PRId64
                   ", beyond the vocabulary of model.vocab = %" PRId64,
                   t->path, i, id, t->vocab);
}

kr_status tokens_read(const struct tokens *t, int64_t first, int64_t count, int32_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t id = load(t, first + i);

        TRY(check_id(t, first + i, id, KR_ERR_DATA));
        out[i] = (int32_t)id;
    }
    return KR_OK;
}

static kr_status check_range(const struct tokens *t, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        TRY(check_id(t, i, load(t, i), KR_ERR_ARG));
    return KR_OK;
}

static kr_status check_ids(const struct tokens *t)
{
    if (t->count * widths[t->coding] <= CHECK_ALL) return check_range(t, 0, t->count);
    TRY(check_range(t, 0, CHECK_ENDS));
    return check_range(t, t->count - CHECK_ENDS, t->count);
}

/* ---- Megatron --------------------------------------------------------------------------- */

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static bool megatron_coding(uint8_t code, enum coding *out)
{
    static const int8_t known[9] = { -1,       CODE_U8, CODE_I8, CODE_I16, CODE_I32,
                                     CODE_I64, -1,      -1,      CODE_U16 };

    if (code > 8 || known[code] < 0) return false;
    *out = (enum coding)known[code];
    return true;
}

/* Sequences must follow each other in the .bin without gaps, as every writer lays them. */
static kr_status check_sequences(const struct tokens *t, const uint8_t *idx, uint64_t n,
                                 const char *path)
{
    const uint8_t *lengths = idx + MEGATRON_HEADER, *offsets = lengths + 4 * n;
    uint64_t at = 0, width = (uint64_t)widths[t->coding];

    for (uint64_t i = 0; i < n; i++) {
        int32_t len;

        memcpy(&len, lengths + 4 * i, sizeof len);
        if (len < 0 || get64(offsets + 8 * i) != at)
            return bad(path, "sequences do not follow each other");
        at += (uint64_t)len * width;
        if (at > t->map.bytes) return bad(path, "sequences reach beyond the .bin file");
    }
    if (at != t->map.bytes) return bad(path, "sequences do not cover the .bin file");
    return KR_OK;
}

/* Documents begin at sequences that do not decrease, the first at 0; the end is listed. */
static kr_status check_documents(const uint8_t *starts, uint64_t documents,
                                 uint64_t sequences, const char *path)
{
    uint64_t at = 0;

    for (uint64_t i = 0; i < documents; i++) {
        uint64_t next = get64(starts + 8 * i);

        if (next < at || (i == 0 && next != 0))
            return bad(path, "documents out of order");
        at = next;
    }
    return at == sequences ? KR_OK : bad(path, "documents do not cover the sequences");
}

static kr_status check_index(struct tokens *t, const struct fs_map *idx, const char *path)
{
    const uint8_t *p = idx->at;
    uint64_t sequences, documents, size;

    if (idx->bytes < MEGATRON_HEADER || memcmp(p, "MMIDIDX\0", 9) != 0)
        return bad(path, "no Megatron index");
    if (get64(p + 9) != 1) return bad(path, "Megatron index of an unknown version");
    if (!megatron_coding(p[17], &t->coding))
        return bad(path, "tokens of an unknown type");
    sequences = get64(p + 18);
    documents = get64(p + 26);
    if (sequences > idx->bytes || documents > idx->bytes)
        return bad(path, "index shorter than its counts say");
    size = MEGATRON_HEADER + 12 * sequences + 8 * documents;
    if (idx->bytes != size &&
        idx->bytes != size + sequences) /* a mode for each sequence */
        return bad(path, "index whose size differs from its counts");
    TRY(check_documents(p + MEGATRON_HEADER + 12 * sequences, documents, sequences,
                        path));
    TRY(check_sequences(t, p, sequences, path));
    t->at = t->map.at;
    t->count = (int64_t)t->map.bytes / widths[t->coding];
    snprintf(t->about, sizeof t->about,
             "%s: Megatron, %s, %" PRId64 " tokens in %" PRIu64 " documents", t->path,
             coding_names[t->coding], t->count, documents ? documents - 1 : 0);
    return KR_OK;
}

static kr_status open_megatron(struct tokens *t, const char *bin, const char *idx)
{
    struct fs_map index = { 0 };
    kr_status st;

    TRY(fs_map(bin, &t->map));
    TRY(fs_map(idx, &index));
    st = check_index(t, &index, idx);
    fs_unmap(&index);
    return st;
}

/* ---- llm.c and nanoGPT ------------------------------------------------------------------ */

static kr_status open_llmc(struct tokens *t, int32_t magic)
{
    int32_t head[3];
    int64_t body = (int64_t)t->map.bytes - LLMC_HEADER;

    if (body < 0) return bad(t->path, "llm.c shard shorter than its header");
    memcpy(head, t->map.at, sizeof head);
    t->coding = magic == LLMC_GPT2 ? CODE_U16 : CODE_U32;
    if (head[1] != (magic == LLMC_GPT2 ? 1 : 7))
        return bad(t->path, "llm.c shard of an unknown version");
    if (body != (int64_t)head[2] * widths[t->coding])
        return bad(t->path, "llm.c shard whose size differs from its header");
    t->at = (const uint8_t *)t->map.at + LLMC_HEADER;
    t->count = head[2];
    snprintf(t->about, sizeof t->about, "%s: llm.c, %s, %" PRId64 " tokens", t->path,
             coding_names[t->coding], t->count);
    return KR_OK;
}

static kr_status open_raw(struct tokens *t)
{
    if (t->map.bytes % 2 != 0)
        return bad(t->path, "odd number of bytes; raw tokens are 16 bits each");
    t->coding = CODE_U16;
    t->at = t->map.at;
    t->count = (int64_t)t->map.bytes / 2;
    snprintf(t->about, sizeof t->about, "%s: nanoGPT, uint16, %" PRId64 " tokens",
             t->path, t->count);
    return KR_OK;
}

static kr_status open_bin(struct tokens *t, const char *path)
{
    int32_t magic = 0;

    TRY(fs_map(path, &t->map));
    if (t->map.bytes >= sizeof magic) memcpy(&magic, t->map.at, sizeof magic);
    if (magic == LLMC_GPT2 || magic == LLMC_LLAMA3) return open_llmc(t, magic);
    return open_raw(t);
}

/* ---- text ------------------------------------------------------------------------------- */

static bool is_text(const char *at, size_t bytes) { return memchr(at, 0, bytes) == NULL; }

/* Which part of a file of `bytes`: cut at the end of a line, so that no line is split. */
static void part_of(const char *text, size_t bytes, enum tokens_part part,
                    double held_out, size_t *from, size_t *to)
{
    size_t cut = (size_t)((double)bytes * (1 - held_out));

    while (cut < bytes && cut > 0 && text[cut - 1] != '\n')
        cut++;
    *from = part == TOKENS_HELD_OUT ? cut : 0;
    *to = part == TOKENS_TRAIN ? cut : bytes;
}

static kr_status add_text(struct tokens *t, const char *path, enum tokens_part part,
                          double held_out)
{
    char *text = NULL;
    int16_t *more;
    size_t bytes, from, to;

    TRY(fs_read_all(path, &text, &bytes, TEXT_FILE_MAX));
    if (!is_text(text, bytes)) {
        LOG_NOTE("%s: no text, left out", path);
        mem_free(text);
        return KR_OK;
    }
    part_of(text, bytes, part, held_out, &from, &to);
    more = realloc(t->text, ((size_t)t->count + (to - from) + 1) * sizeof *more);
    if (more) {
        t->text = more;
        for (size_t i = from; i < to; i++)
            more[t->count++] = (uint8_t)text[i];
        if (to > from) more[t->count++] = TOKENS_END;
    }
    mem_free(text);
    return more ? KR_OK : KR_FAIL(KR_ERR_MEM, "%s: no memory for its text", path);
}

static kr_status add_folder(struct tokens *t, const char *path, enum tokens_part part,
                            double held_out)
{
    char **names = NULL, child[FS_PATH];
    size_t count = 0;
    kr_status st = KR_OK;
    struct stat s;

    TRY(fs_list(path, &names, &count));
    for (size_t i = 0; i < count && st == KR_OK; i++) {
        st = fs_path(child, "%s/%s", path, names[i]);
        if (st == KR_OK && lstat(child, &s) == 0 && S_ISREG(s.st_mode))
            st = add_text(t, child, part, held_out);
    }
    fs_free_names(names, count);
    return st;
}

static kr_status open_text(struct tokens *t, enum tokens_part part, double held_out,
                           bool folder)
{
    TRY(folder ? add_folder(t, t->path, part, held_out)
               : add_text(t, t->path, part, held_out));
    t->coding = CODE_I16;
    t->at = (const uint8_t *)t->text;
    snprintf(t->about, sizeof t->about, "%s: text, %" PRId64 " bytes", t->path, t->count);
    return KR_OK;
}

/* ---- front ------------------------------------------------------------------------------ */

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);

    return n > k && strcmp(path + n - k, end) == 0;
}

/* path without its ending .bin or .idx, plus ending */
static kr_status twin(char out[FS_PATH], const char *path, const char *ending)
{
    bool has = ends_with(path, ".bin") || ends_with(path, ".idx");
    int stem = (int)strlen(path) - (has ? 4 : 0);

    return fs_path(out, "%.*s%s", stem, path, ending);
}

/* Binary files are one row; the held out part is its end. */
static void cut_row(struct tokens *t, enum tokens_part part, double held_out)
{
    int64_t cut = (int64_t)((double)t->count * (1 - held_out));

    if (t->count == 0) return;
    if (part == TOKENS_TRAIN) t->count = cut;
    if (part == TOKENS_HELD_OUT) {
        t->at += cut * widths[t->coding];
        t->count -= cut;
    }
}

static kr_status open_path(struct tokens *t, enum tokens_part part, double held_out)
{
    char bin[FS_PATH], idx[FS_PATH];
    struct stat s;

    TRY(twin(bin, t->path, ".bin"));
    TRY(twin(idx, t->path, ".idx"));
    if (fs_exists(bin) && fs_exists(idx)) {
        TRY(open_megatron(t, bin, idx));
        cut_row(t, part, held_out);
        return KR_OK;
    }
    if (stat(t->path, &s) != 0) return bad(t->path, strerror(errno));
    if (S_ISDIR(s.st_mode)) return open_text(t, part, held_out, true);
    if (ends_with(t->path, ".txt")) return open_text(t, part, held_out, false);
    if (ends_with(t->path, ".idx"))
        return bad(t->path, "the .bin file beside it is missing");
    if (!S_ISREG(s.st_mode) || !ends_with(t->path, ".bin"))
        return bad(t->path,
                   "no folder, no *.txt, no *.bin, and no Megatron pair of files");
    TRY(open_bin(t, t->path));
    cut_row(t, part, held_out);
    return KR_OK;
}

kr_status tokens_open(struct tokens **out, const char *path, enum tokens_part part,
                      double held_out, int64_t vocab)
{
    struct tokens *t = NULL;
    kr_status st;

    TRY(mem_alloc(&t, 1, sizeof *t, "tokens"));
    t->vocab = vocab;
    TRY_OR(st, fs_path(t->path, "%s", path), done);
    TRY_OR(st, open_path(t, part, held_out), done);
    if (t->count == 0) {
        st = bad(path, "holds no tokens");
        goto done;
    }
    TRY_OR(st, check_ids(t), done);
    *out = t;
done:
    if (st != KR_OK) tokens_close(t);
    return st == KR_ERR_IO || st == KR_ERR_DATA ? KR_ERR_ARG : st;
}

void tokens_close(struct tokens *t)
{
    if (!t) return;
    fs_unmap(&t->map);
    free(t->text);
    mem_free(t);
}

int64_t tokens_count(const struct tokens *t) { return t->count; }
const char *tokens_describe(const struct tokens *t) { return t->about; }

uint64_t tokens_fingerprint(const struct tokens *t)
{
    enum { SAMPLES = 4096 };
    int64_t picked[SAMPLES + 1] = { t->count };

    for (int64_t i = 0; i < SAMPLES; i++)
        picked[i + 1] = load(t, (int64_t)((double)i / SAMPLES * (double)t->count));
    return hash64(picked, sizeof picked);
}
