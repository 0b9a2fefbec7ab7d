/*
 * prepare.c - documents in, PREFIX.bin and PREFIX.idx out.
 *
 * Tokens stream to PREFIX.bin.tmp; document lengths wait in memory (12 bytes each) for
 * the index.  Both files are complete and on disk before either gets its name; the index
 * is renamed last, and without it nothing reads the .bin as Megatron's.
 */
#include "trainer/data/prepare.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "scheduler/exitcode.h"
#include "trainer/data/tokens.h"

enum { TOKEN_BYTES = 2, INDEX_U16 = 8, BUFFER = 1 << 16 };

struct args {
    char **files;
    int file_count;
    const char *tokenizer, *prefix, *key;
    bool no_end, force, help;
};

struct output {
    char bin[FS_PATH], idx[FS_PATH], bin_temp[FS_PATH], idx_temp[FS_PATH],
        folder[FS_PATH];
    int fd;
    uint64_t at; /* bytes in the .bin */
    uint16_t buffer[BUFFER];
    size_t filled;
    struct mem_text lengths; /* of documents, int32 each */
    int64_t documents, tokens_here, bytes_read;
    double started, told;
    bool terminal;
};

static void help(FILE *out)
{
    fputs("usage: kilorank prepare FILE... --tokenizer byte -o PREFIX\n"
          "                        [--key text] [--no-end] [--force]\n\n"
          "Turn text into PREFIX.bin and PREFIX.idx (Megatron's format) for data.train "
          "and\n"
          "data.valid.  FILE is plain text, one document each, or *.jsonl, one JSON "
          "object\n"
          "with member --key a line; - is text from standard input.  The byte tokenizer "
          "has\n"
          "257 ids: bytes, and 256 at the end of each document unless --no-end.\n\n"
          "  kilorank prepare corpus/*.jsonl --tokenizer byte -o data/corpus\n",
          out);
}

/* ---- arguments -------------------------------------------------------------------------- */

static kr_status value(int argc, char **argv, int *i, const char **out)
{
    if (*i + 1 >= argc)
        return KR_FAIL(KR_ERR_ARG, "prepare: %s: its value is missing", argv[*i]);
    *out = argv[++*i];
    return KR_OK;
}

static kr_status parse(int argc, char **argv, struct args *a)
{
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];

        if (strcmp(s, "--help") == 0 || strcmp(s, "-h") == 0)
            a->help = true;
        else if (strcmp(s, "--tokenizer") == 0)
            TRY(value(argc, argv, &i, &a->tokenizer));
        else if (strcmp(s, "-o") == 0)
            TRY(value(argc, argv, &i, &a->prefix));
        else if (strcmp(s, "--key") == 0)
            TRY(value(argc, argv, &i, &a->key));
        else if (strcmp(s, "--no-end") == 0)
            a->no_end = true;
        else if (strcmp(s, "--force") == 0)
            a->force = true;
        else if (s[0] == '-' && s[1])
            return KR_FAIL(KR_ERR_ARG, "prepare: %s: unknown option", s);
        else
            a->files[a->file_count++] = argv[i];
    }
    if (a->help) return KR_OK;
    if (!a->file_count) return KR_FAIL(KR_ERR_ARG, "prepare: no FILE to read");
    if (!a->prefix) return KR_FAIL(KR_ERR_ARG, "prepare: -o PREFIX is missing");
    if (!a->tokenizer || strcmp(a->tokenizer, "byte") != 0)
        return KR_FAIL(KR_ERR_ARG, "prepare: --tokenizer %s: want byte",
                       a->tokenizer ? a->tokenizer : "is missing");
    return KR_OK;
}

/* ---- output ----------------------------------------------------------------------------- */

static kr_status open_output(struct output *o, const struct args *a)
{
    const char *slash = strrchr(a->prefix, '/');

    TRY(slash ? fs_path(o->folder, "%.*s/", (int)(slash - a->prefix), a->prefix)
              : fs_path(o->folder, "."));
    TRY(fs_path(o->bin, "%s.bin", a->prefix));
    TRY(fs_path(o->idx, "%s.idx", a->prefix));
    TRY(fs_path(o->bin_temp, "%s.bin.tmp", a->prefix));
    TRY(fs_path(o->idx_temp, "%s.idx.tmp", a->prefix));
    if (!a->force && (fs_exists(o->bin) || fs_exists(o->idx)))
        return KR_FAIL(KR_ERR_ARG, "%s: exists already; --force replaces it",
                       fs_exists(o->bin) ? o->bin : o->idx);
    return fs_open(&o->fd, o->bin_temp, O_WRONLY | O_CREAT | O_TRUNC);
}

static kr_status flush(struct output *o)
{
    TRY(fs_pwrite(o->fd, o->bin_temp, o->buffer, o->filled * TOKEN_BYTES, o->at));
    o->at += o->filled * TOKEN_BYTES;
    o->filled = 0;
    return KR_OK;
}

static kr_status put(struct output *o, uint16_t token)
{
    if (o->filled == BUFFER) TRY(flush(o));
    o->buffer[o->filled++] = token;
    o->tokens_here++;
    return KR_OK;
}

/* `nul` is the byte that stands for NUL; 0: none does. */
static kr_status put_text(struct output *o, const char *text, size_t bytes, char nul)
{
    for (size_t i = 0; i < bytes; i++)
        TRY(put(o, text[i] == nul ? 0 : (uint8_t)text[i]));
    return KR_OK;
}

static void tell(struct output *o, bool last)
{
    double now = clock_now();

    if (!last && now - o->told < 1) return;
    o->told = now;
    fprintf(stderr, "%s%" PRId64 " documents, %.1f MB, %.1f MB/s%s",
            o->terminal ? "\r\033[K" : "", o->documents, (double)o->bytes_read / 1e6,
            (double)o->bytes_read / 1e6 / (now - o->started + 1e-9),
            o->terminal && !last ? "" : "\n");
}

static kr_status end_document(struct output *o, const struct args *a)
{
    int32_t length;

    if (!a->no_end) TRY(put(o, TOKENS_END));
    if (o->tokens_here > INT32_MAX)
        return KR_FAIL(KR_ERR_ARG, "prepare: a document of more than 2^31 tokens");
    length = (int32_t)o->tokens_here;
    mem_append(&o->lengths, &length, sizeof length);
    o->tokens_here = 0;
    o->documents++;
    tell(o, false);
    return o->lengths.failed ? KR_FAIL(KR_ERR_MEM, "no memory for the index") : KR_OK;
}

/* Header, lengths, offsets, documents: tokens.c reads it back. */
static void build_index(const struct output *o, struct mem_text *t)
{
    uint64_t version = 1, n = (uint64_t)o->documents, m = n + 1;
    uint8_t code = INDEX_U16;
    int64_t at = 0;

    mem_append(t, "MMIDIDX\0", 9);
    mem_append(t, &version, sizeof version);
    mem_append(t, &code, 1);
    mem_append(t, &n, sizeof n);
    mem_append(t, &m, sizeof m);
    mem_append(t, o->lengths.at, o->lengths.len);
    for (int64_t i = 0; i < o->documents; i++) {
        int32_t length;

        mem_append(t, &at, sizeof at);
        memcpy(&length, o->lengths.at + i * (int64_t)sizeof length, sizeof length);
        at += (int64_t)length * TOKEN_BYTES;
    }
    for (int64_t i = 0; i <= o->documents; i++)
        mem_append(t, &i, sizeof i);
}

static kr_status write_index(const struct output *o)
{
    struct mem_text t = { 0 };
    kr_status st = KR_OK;
    int fd = -1;

    build_index(o, &t);
    if (t.failed) st = KR_FAIL(KR_ERR_MEM, "no memory for the index");
    if (st == KR_OK) st = fs_open(&fd, o->idx_temp, O_WRONLY | O_CREAT | O_TRUNC);
    if (st == KR_OK) st = fs_pwrite(fd, o->idx_temp, t.at, t.len, 0);
    if (st == KR_OK) st = fs_fsync(fd, o->idx_temp);
    if (fd >= 0) close(fd);
    mem_text_free(&t);
    return st;
}

static kr_status finish(struct output *o)
{
    kr_status st = flush(o);

    if (o->documents == 0)
        return KR_FAIL(KR_ERR_ARG, "prepare: no documents in the input");
    if (st == KR_OK) st = fs_fsync(o->fd, o->bin_temp);
    if (st == KR_OK) st = write_index(o);
    /* an old index must never stand beside the new tokens */
    if (st == KR_OK) st = fs_unlink(o->idx);
    if (st == KR_OK) st = fs_fsync_dir(o->folder);
    if (st == KR_OK) st = fs_rename(o->bin_temp, o->bin);
    if (st == KR_OK) st = fs_rename(o->idx_temp, o->idx);
    if (st == KR_OK) st = fs_fsync_dir(o->folder);
    if (st == KR_OK) tell(o, true);
    return st;
}

/* ---- input ------------------------------------------------------------------------------ */

static kr_status read_text(struct output *o, const struct args *a, FILE *in)
{
    char buf[BUFFER];
    size_t n;

    while ((n = fread(buf, 1, sizeof buf, in)) > 0) {
        TRY(put_text(o, buf, n, 0));
        o->bytes_read += (int64_t)n;
        tell(o, false);
    }
    return o->tokens_here ? end_document(o, a) : KR_OK;
}

/* cJSON ends a text at its first NUL.  So replace each, written \u0000 or as it is, by a
 * byte that the line does not have and that no escape yields.  The line gets shorter;
 * false: it has all of these bytes. */
static bool hide_nul(char *line, size_t *bytes, char *nul)
{
    size_t to = 0;
    int mark = 0xff;

    while (mark >= 0xf8 && memchr(line, mark, *bytes))
        mark--;
    for (size_t i = 0; i < *bytes; i++) {
        if (line[i] == '\0') {
            line[to++] = (char)mark;
        } else if (line[i] != '\\' || i + 1 == *bytes) {
            line[to++] = line[i];
        } else if (*bytes - i >= 6 && memcmp(line + i + 1, "u0000", 5) == 0) {
            line[to++] = (char)mark;
            i += 5;
        } else {
            line[to++] = line[i++];
            line[to++] = line[i];
        }
    }
    if (to < *bytes) line[to] = '\0';
    *bytes = to;
    *nul = (char)mark;
    return mark >= 0xf8;
}

static bool only_space(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r\n", *at))
        at++;
    return at == end;
}

static kr_status add_line(struct output *o, const struct args *a, char *line,
                          size_t bytes, const char *path, int64_t number)
{
    const char *end = NULL, *text;
    kr_status st = KR_OK;
    cJSON *j;
    char nul;

    if (!hide_nul(line, &bytes, &nul))
        return KR_FAIL(KR_ERR_ARG, "%s:%" PRId64 ": is no JSON, nor UTF-8", path, number);
    j = cJSON_ParseWithLengthOpts(line, bytes, &end, false);
    text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, a->key));
    if (!j || !only_space(end, line + bytes))
        st = KR_FAIL(KR_ERR_ARG, "%s:%" PRId64 ": is not one JSON object", path, number);
    else if (!text)
        st = KR_FAIL(KR_ERR_ARG, "%s:%" PRId64 ": no text under \"%s\"", path, number,
                     a->key);
    if (st == KR_OK) st = put_text(o, text, strlen(text), nul);
    if (st == KR_OK) st = end_document(o, a);
    cJSON_Delete(j);
    return st;
}

static kr_status read_jsonl(struct output *o, const struct args *a, FILE *in,
                            const char *path)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    kr_status st = KR_OK;

    for (int64_t number = 1; st == KR_OK && (n = getline(&line, &room, in)) > 0;
         number++) {
        o->bytes_read += n;
        if (strspn(line, " \t\r\n") < (size_t)n)
            st = add_line(o, a, line, (size_t)n, path, number);
    }
    free(line);
    return st;
}

static kr_status read_file(struct output *o, const struct args *a, const char *path)
{
    size_t n = strlen(path);
    bool jsonl = n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    kr_status st;

    if (!in) return KR_FAIL(KR_ERR_ARG, "%s: %s", path, strerror(errno));
    st = jsonl ? read_jsonl(o, a, in, path) : read_text(o, a, in);
    if (st == KR_OK && ferror(in))
        st = KR_FAIL(KR_ERR_ARG, "%s: %s", path, strerror(errno));
    if (in != stdin) fclose(in);
    return st;
}

static kr_status prepare(struct output *o, const struct args *a)
{
    kr_status st = open_output(o, a);

    if (st != KR_OK) return st == KR_ERR_IO ? KR_ERR_ARG : st;
    o->started = o->told = clock_now();
    o->terminal = isatty(STDERR_FILENO);
    for (int i = 0; i < a->file_count && st == KR_OK; i++)
        st = read_file(o, a, a->files[i]);
    if (st == KR_OK) st = finish(o);
    close(o->fd);
    if (st != KR_OK) {
        (void)unlink(o->bin_temp);
        (void)unlink(o->idx_temp);
    }
    return st;
}

int prepare_main(int argc, char **argv)
{
    struct args a = { .key = "text" };
    struct output *o = NULL;
    kr_status st;

    if (mem_alloc(&a.files, (size_t)argc, sizeof *a.files, "arguments") != KR_OK ||
        mem_alloc(&o, 1, sizeof *o, "output") != KR_OK)
        return EXIT_FAILED;
    st = parse(argc, argv, &a);
    if (st == KR_OK && a.help) help(stdout);
    if (st == KR_OK && !a.help) st = prepare(o, &a);
    mem_text_free(&o->lengths);
    mem_free(o);
    mem_free(a.files);
    return st == KR_OK ? EXIT_DONE : st == KR_ERR_ARG ? EXIT_USAGE : EXIT_IO;
}
