/* tokenizer_tool.c - a table of small commands over a tokenizer and a text. */
#include "trainer/data/tokenizer_tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/options.h"
#include "base/utf8.h"
#include "scheduler/exitcode.h"
#include "trainer/data/parallel.h"
#include "trainer/data/tokenizer_parts.h"
#include "trainer/data/tokenizer_train.h"

struct args {
    char output[FS_PATH], key[256], pattern[32];
    int64_t vocab, threads;
    bool force, lines, specials, template, skip;
};

/* clang-format off */
#define A struct args
static const struct cfg_field tool_options[] = {
    CFG_TEXT(A, output, "output", "", "train: the tokenizer.json to write (also: -o)"),
    CFG_INT (A, vocab, "vocab", "0", 0, TOKENIZER_MOST_IDS, "train: ids to learn, at least 256 and the special ones"),
    CFG_TEXT(A, pattern, "pattern", "llama3", "train: how text is split: gpt2 or llama3"),
    CFG_TEXT(A, key, "key", "text", "train: member of a JSON line that holds the text"),
    CFG_INT (A, threads, "threads", "0", 0, 1024, "train: cores to use; 0: all"),
    CFG_FLAG(A, force, "force", "false", "train: replace an existing file"),
    CFG_FLAG(A, lines, "lines", "false", "encode, decode, split: each line by itself"),
    CFG_FLAG(A, specials, "specials", "false", "encode, split: special tokens in the text count as such"),
    CFG_FLAG(A, template, "template", "false", "encode: with what the post_processor puts around a text"),
    CFG_FLAG(A, skip, "skip-specials", "false", "decode: leave special tokens out"),
    { .name = NULL },
};
#undef A
/* clang-format on */

static void help(FILE *out)
{
    fputs(
        "usage: kilorank tokenizer train FILE... -o tokenizer.json --vocab N [--special "
        "T]...\n"
        "       kilorank tokenizer encode|decode|split|show|bench TOKENIZER [FILE]\n\n"
        "train   learn byte-level BPE of N ids from text or *.jsonl, on all cores.  Ids: "
        "bytes,\n"
        "        merges, then special tokens: those of --special, or <|endoftext|>,\n"
        "        <|im_start|> and <|im_end|>\n"
        "encode  text to ids with spaces between; decode: ids to text\n"
        "split   the pieces that BPE sees, one JSON string a line\n"
        "show    what the tokenizer is made of\n"
        "bench   MB/s of encoding and decoding FILE, which must come back the same\n\n"
        "TOKENIZER is byte or the path of a tokenizer.json; FILE is - (standard input) "
        "if\n"
        "left out.\n\n"
        "  kilorank tokenizer train corpus.txt -o tokenizer.json --vocab 8192\n"
        "  echo 'Hello, world!' | kilorank tokenizer encode tokenizer.json\n\nOptions:\n",
        out);
    cfg_help(tool_options, out);
}

/* ---- input ------------------------------------------------------------------------------ */

static kr_status read_file(const char *path, struct mem_text *out)
{
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char buffer[1 << 16];
    size_t n;
    bool bad;

    if (!in) return KR_FAIL(KR_ERR_ARG, "%s: %s", path, strerror(errno));
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0)
        mem_append(out, buffer, n);
    bad = ferror(in);
    if (in != stdin) fclose(in);
    if (bad) return KR_FAIL(KR_ERR_ARG, "%s: %s", path, strerror(errno));
    return out->failed ? KR_FAIL(KR_ERR_MEM, "%s: no memory for it", path) : KR_OK;
}

/* What a command works with. */
struct desk {
    const struct args *args;
    struct tokenizer *t;
    struct encoder *e;
    struct mem_text text;
    unsigned flags;
};

typedef kr_status (*text_fn)(struct desk *d, const char *text, size_t len);

/* The whole text, or line by line. */
static kr_status each(struct desk *d, text_fn fn)
{
    const char *at = d->text.at ? d->text.at : "", *end = at + d->text.len;

    if (!d->args->lines) return fn(d, at, d->text.len);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));

        if (!stop) stop = end;
        TRY(fn(d, at, (size_t)(stop - at)));
        at = stop + 1;
    }
    return KR_OK;
}

/* ---- commands --------------------------------------------------------------------------- */

static kr_status encode_text(struct desk *d, const char *text, size_t len)
{
    struct ids ids = { 0 };
    kr_status st = encoder_add(d->e, text, len, d->flags, &ids);

    for (size_t i = 0; i < ids.count && st == KR_OK; i++)
        printf("%s%d", i ? " " : "", ids.at[i]);
    if (st == KR_OK) putchar('\n');
    ids_free(&ids);
    return st;
}

static kr_status encode(struct desk *d) { return each(d, encode_text); }

/* Numbers with white space between. */
static kr_status read_ids(const struct desk *d, const struct mem_text *text,
                          struct ids *out)
{
    const char *at = text->at;
    char *end;

    for (;; at = end) {
        long long id = strtoll(at, &end, 10);
        int32_t narrow = (int32_t)id;

        if (end == at) break;
        if (id < 0 || id >= tokenizer_size(d->t))
            return KR_FAIL(KR_ERR_ARG, "tokenizer: decode: %lld is no id below %" PRId64,
                           id, tokenizer_size(d->t));
        TRY(ids_add(out, &narrow, 1));
    }
    at += strspn(at, " \t\r\n");
    if (at < text->at + text->len)
        return KR_FAIL(KR_ERR_ARG, "tokenizer: decode: \"%.20s\" is no id", at);
    return KR_OK;
}

static kr_status decode_text(struct desk *d, const char *text, size_t len)
{
    struct mem_text copy = { 0 }, out = { 0 };
    struct ids ids = { 0 };
    kr_status st;

    mem_append(&copy, text, len);
    st = copy.at ? read_ids(d, &copy, &ids) : KR_OK;
    if (st == KR_OK) {
        tokenizer_decode(d->t, ids.at, ids.count, !d->args->skip, true, &out);
        if (d->args->lines) mem_append(&out, "\n", 1);
        if (out.len) fwrite(out.at, 1, out.len, stdout);
    }
    if (copy.failed || out.failed) st = KR_FAIL(KR_ERR_MEM, "no memory for a text");
    mem_text_free(&copy);
    mem_text_free(&out);
    ids_free(&ids);
    return st;
}

static kr_status decode(struct desk *d) { return each(d, decode_text); }

static kr_status print_piece(void *arg, const char *piece, size_t len)
{
    struct mem_text *line = arg;

    line->len = 0;
    utf8_json(line, piece, len);
    if (line->failed) return KR_FAIL(KR_ERR_MEM, "no memory for a piece");
    printf("\"%s\"\n", line->at);
    return KR_OK;
}

static kr_status split_text(struct desk *d, const char *text, size_t len)
{
    struct mem_text line = { 0 };
    kr_status st = encoder_split(d->e, text, len, d->flags, print_piece, &line);

    mem_text_free(&line);
    return st;
}

static kr_status split(struct desk *d) { return each(d, split_text); }

static void show_ids(const char *what, const struct ids *ids)
{
    printf("%s", what);
    for (size_t i = 0; i < ids->count; i++)
        printf(" %d", ids->at[i]);
    puts(ids->count ? "" : " none");
}

static kr_status show(struct desk *d)
{
    const struct tokenizer *t = d->t;
    static const char *const cuts[] = { "nowhere", "at lines", "anywhere" };

    puts(tokenizer_describe(t));
    printf("end of a document: %d\n", tokenizer_end(t));
    printf("long texts are cut: %s\n", cuts[tokenizer_cut(t)]);
    show_ids("template, before a text:", &t->before);
    show_ids("template, behind a text:", &t->after);
    for (size_t i = 0; i < t->raw.count + t->normal.count; i++) {
        const struct added_token *a =
            i < t->raw.count ? &t->raw.list[i] : &t->normal.list[i - t->raw.count];

        printf("%8d %s%s\n", a->id, a->text, a->special ? "" : " (not special)");
    }
    return KR_OK;
}

/* ---- bench ------------------------------------------------------------------------------ */

enum { BENCH_PIECE = 1 << 18 /* bytes */ };

struct bench {
    const struct desk *desk;
    struct encoder **encoders;
    struct ids *ids; /* of each part */
    int64_t parts;
};

/* Part i of the text; parts end at bytes where no character is cut. */
static size_t part_at(const struct desk *d, int64_t i)
{
    size_t at = (size_t)i * BENCH_PIECE;

    while (at < d->text.len && ((unsigned char)d->text.at[at] & 0xc0) == 0x80)
        at++;
    return at < d->text.len ? at : d->text.len;
}

static kr_status encode_part(void *arg, int worker, int64_t i)
{
    struct bench *b = arg;
    size_t from = part_at(b->desk, i), to = part_at(b->desk, i + 1);

    b->ids[i].count = 0;
    return encoder_add(b->encoders[worker], b->desk->text.at + from, to - from, 0,
                       &b->ids[i]);
}

static kr_status time_encode(struct bench *b, int threads, const char *what)
{
    double start = clock_now(), seconds;
    int64_t tokens = 0;

    TRY(parallel_run(threads, b->parts, encode_part, b));
    seconds = clock_now() - start;
    for (int64_t i = 0; i < b->parts; i++)
        tokens += (int64_t)b->ids[i].count;
    printf("encode %-10s %8.1f MB/s   %" PRId64 " tokens, %.3f bytes a token\n", what,
           (double)b->desk->text.len / 1e6 / seconds, tokens,
           (double)b->desk->text.len / (double)tokens);
    return KR_OK;
}

static kr_status time_decode(struct bench *b)
{
    struct mem_text out = { 0 };
    double start = clock_now(), seconds;
    bool same;

    for (int64_t i = 0; i < b->parts; i++)
        tokenizer_decode(b->desk->t, b->ids[i].at, b->ids[i].count, true, true, &out);
    seconds = clock_now() - start;
    same = !out.failed && out.len == b->desk->text.len &&
           memcmp(out.at, b->desk->text.at, out.len) == 0;
    mem_text_free(&out);
    if (!same)
        return KR_FAIL(KR_ERR_DATA, "tokenizer: the text did not come back the same");
    printf("decode one core   %8.1f MB/s   the same bytes came back\n",
           (double)b->desk->text.len / 1e6 / seconds);
    return KR_OK;
}

static kr_status bench(struct desk *d)
{
    int threads = parallel_cores();
    struct bench b = { .desk = d,
                       .parts =
                           (int64_t)((d->text.len + BENCH_PIECE - 1) / BENCH_PIECE) };
    char what[32];
    kr_status st;

    if (b.parts == 0) return KR_FAIL(KR_ERR_ARG, "tokenizer: bench: the text is empty");
    snprintf(what, sizeof what, "%d cores", threads);
    TRY_OR(st, mem_alloc(&b.ids, (size_t)b.parts, sizeof *b.ids, "parts"), done);
    TRY_OR(st, mem_alloc(&b.encoders, (size_t)threads, sizeof *b.encoders, "encoders"),
           done);
    for (int i = 0; i < threads; i++)
        TRY_OR(st, encoder_open(&b.encoders[i], d->t), done);
    TRY_OR(st, time_encode(&b, 1, "one core"), done);
    TRY_OR(st, time_encode(&b, threads, what), done);
    st = time_decode(&b);
done:
    for (int64_t i = 0; b.ids && i < b.parts; i++)
        ids_free(&b.ids[i]);
    for (int i = 0; b.encoders && i < threads; i++)
        encoder_close(b.encoders[i]);
    mem_free(b.ids);
    mem_free(b.encoders);
    return st;
}

/* ---- train ------------------------------------------------------------------------------ */

static kr_status train(const struct args *a, struct options *o)
{
    static const char *usual[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };
    struct tokenizer_plan p = {
        .files = o->words + 1,
        .file_count = o->word_count - 1,
        .key = a->key,
        .out = a->output,
        .pattern = a->pattern,
        .specials = o->set_count ? (const char **)o->sets : usual,
        .special_count = o->set_count ? o->set_count : 3,
        .vocab = a->vocab,
        .threads = (int)a->threads,
        .replace = a->force,
    };

    if (p.file_count == 0)
        return KR_FAIL(KR_ERR_ARG, "tokenizer: train: no FILE to read");
    if (!a->output[0]) return KR_FAIL(KR_ERR_ARG, "tokenizer: train: -o FILE is missing");
    if (!a->vocab) return KR_FAIL(KR_ERR_ARG, "tokenizer: train: --vocab N is missing");
    return tokenizer_train(&p);
}

/* ---- front ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    kr_status (*run)(struct desk *d);
    bool reads;
} commands[] = {
    { "encode", encode, true }, { "decode", decode, true }, { "split", split, true },
    { "bench", bench, true },   { "show", show, false },
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static kr_status run_one(const struct args *a, const struct options *o, size_t command)
{
    struct desk d = { .args = a,
                      .flags = (a->specials ? ENCODE_SPECIALS : 0u) |
                               (a->template ? ENCODE_TEMPLATE : 0u) };
    const char *file = o->word_count > 2 ? o->words[2] : "-";
    kr_status st;

    if (o->word_count < 2)
        return KR_FAIL(KR_ERR_ARG, "tokenizer: %s: TOKENIZER is missing", o->path);
    if (o->word_count > 3)
        return KR_FAIL(KR_ERR_ARG, "tokenizer: %s: one FILE is enough", o->words[3]);
    TRY_OR(st, tokenizer_open(&d.t, o->words[1]), done);
    TRY_OR(st, encoder_open(&d.e, d.t), done);
    if (commands[command].reads) TRY_OR(st, read_file(file, &d.text), done);
    st = commands[command].run(&d);
done:
    encoder_close(d.e);
    tokenizer_close(d.t);
    mem_text_free(&d.text);
    return st;
}

static kr_status run(const struct args *a, struct options *o)
{
    static const char wanted[] = "want train, encode, decode, split, show or bench";

    if (!o->path)
        return KR_FAIL(KR_ERR_ARG, "tokenizer: %s (see kilorank tokenizer --help)",
                       wanted);
    if (strcmp(o->path, "train") == 0) return train(a, o);
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, o->path) == 0) return run_one(a, o, i);
    return KR_FAIL(KR_ERR_ARG, "tokenizer: %s: %s", o->path, wanted);
}

int tokenizer_tool_main(int argc, char **argv)
{
    struct args a;
    struct options o;
    kr_status st;

    if (options_read_words(argc, argv, tool_options, &a, "special", &o) != KR_OK)
        return EXIT_USAGE;
    if (o.help) {
        help(stdout);
        return EXIT_DONE;
    }
    st = run(&a, &o);
    return st == KR_OK        ? EXIT_DONE
           : st == KR_ERR_ARG ? EXIT_USAGE
           : st == KR_ERR_IO  ? EXIT_IO
                              : EXIT_FAILED;
}
