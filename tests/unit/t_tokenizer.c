/*
 * t_tokenizer.c - encoding by the rules: merges in rank order, pieces, added tokens, bytes
 * that are no text, characters with fallback; hostile files are refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "tests/check.h"
#include "trainer/data/bpe.h"
#include "trainer/data/parallel.h"
#include "trainer/data/tokenizer.h"
#include "trainer/data/tokenizer_write.h"

static char path[256];
static char last_line[4096];

static void keep_line(enum log_level level, const char *text, void *arg)
{
    (void)level;
    (void)arg;
    snprintf(last_line, sizeof last_line, "%s", text);
}

static void put_file(const char *text)
{
    FILE *f = fopen(path, "wb");

    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
}

/* A byte-level file: ids 0..255 are the bytes, then the merges as given, then `added`. */
static void put_bytes(const char *splits, const char *merges, const char *tokens,
                      const char *added, const char *more)
{
    struct mem_text t = { 0 };

    mem_printf(&t,
               "{\"added_tokens\":[%s],\"pre_tokenizer\":%s,\"decoder\":{\"type\":"
               "\"ByteLevel\"},%s\"model\":{\"type\":\"BPE\",\"vocab\":{",
               added, splits, more);
    for (int i = 0, other = 0; i < 256; i++) {
        bool plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        uint32_t code = plain ? (uint32_t)i : 256u + (uint32_t)other++;
        char c[4];

        mem_printf(&t, "\"");
        utf8_json(&t, c, (size_t)utf8_put(c, code));
        mem_printf(&t, "\":%d,", i);
    }
    t.len -= 1;
    mem_printf(&t, "%s},\"merges\":[%s]}}", tokens, merges);
    put_file(t.at);
    mem_text_free(&t);
}

#define GPT2 "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"

/* Ids of a text as words: "1 2 3"; "-" if it cannot be opened. */
static const char *ids_of(const char *text, size_t len, unsigned flags)
{
    static char line[4096];
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct ids ids = { 0 };
    struct mem_text back = { 0 };
    size_t at = 0;

    strcpy(line, "-");
    if (tokenizer_open(&t, path) != KR_OK) return line;
    line[0] = '\0';
    CHECK(encoder_open(&e, t) == KR_OK);
    CHECK(encoder_add(e, text, len, flags, &ids) == KR_OK);
    for (size_t i = 0; i < ids.count; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, "%s%d", i ? " " : "",
                               ids.at[i]);
    if (!(flags & ENCODE_TEMPLATE)) {
        tokenizer_decode(t, ids.at, ids.count, true, true, &back);
        CHECK_I64(back.len, ==, len);
        CHECK(back.len == len && (len == 0 || memcmp(back.at, text, len) == 0));
    }
    mem_text_free(&back);
    ids_free(&ids);
    encoder_close(e);
    tokenizer_close(t);
    return line;
}
#define IDS(text, flags) ids_of(text, strlen(text), flags)

/* ab before bc: "abc" is ab c.  With the ranks turned round it is a bc. */
static void lower_ranks_merge_first(void)
{
    put_bytes(GPT2, "\"a b\",\"b c\"", ",\"ab\":256,\"bc\":257", "", "");
    CHECK_STR(IDS("abc", 0), "256 99");
    put_bytes(GPT2, "\"b c\",\"a b\"", ",\"ab\":256,\"bc\":257", "", "");
    CHECK_STR(IDS("abc", 0), "97 257");
}

static void the_leftmost_of_equals_merges_first(void)
{
    put_bytes(GPT2, "\"a a\",[\"aa\",\"aa\"]", ",\"aa\":256,\"aaaa\":257", "", "");
    CHECK_STR(IDS("aaa", 0), "256 97");
    CHECK_STR(IDS("aaaaaaa", 0), "257 256 97");
}

/* Two ways to one token: its id is no key to its rank. */
static void two_pairs_may_make_the_same_token(void)
{
    put_bytes(GPT2, "\"a b\",\"b c\",\"ab c\",\"a bc\"",
              ",\"ab\":256,\"bc\":257,\"abc\":258", "", "");
    CHECK_STR(IDS("abc", 0), "258");
    CHECK_STR(IDS("bcbc", 0), "257 257");
}

static void a_whole_piece_may_count_before_merges(void)
{
    put_bytes(GPT2, "\"a b\"", ",\"ab\":256,\"abc\":257", "", "");
    CHECK_STR(IDS("abc", 0), "256 99");
    put_bytes(GPT2, "\"a b\"],\"ignore_merges\":true,\"x\":[", ",\"ab\":256,\"abc\":257",
              "", "");
    CHECK_STR(IDS("abc", 0), "257");
    CHECK_STR(IDS("abcd", 0), "256 99 100");
}

static void merges_do_not_cross_pieces(void)
{
    put_bytes(GPT2, "\"a \\u0120\",\"\\u0120 b\",\"1 a\"",
              ",\"a\\u0120\":256,\"\\u0120b\":257,\"1a\":258", "", "");
    CHECK_STR(IDS("a b", 0), "97 257");
    CHECK_STR(IDS("1a", 0), "49 97");
    CHECK_STR(IDS("a  b", 0), "97 32 257");
}

static void long_pieces_are_whole_and_quick(void)
{
    enum { LEN = 1 << 20 };
    static char text[LEN + 1], want[64];
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct ids ids = { 0 };

    memset(text, 'a', LEN);
    put_bytes(GPT2, "\"a a\",\"aa aa\",\"aaaa aaaa\"",
              ",\"aa\":256,\"aaaa\":257,\"aaaaaaaa\":258", "", "");
    CHECK(tokenizer_open(&t, path) == KR_OK && encoder_open(&e, t) == KR_OK);
    CHECK(encoder_add(e, text, LEN, 0, &ids) == KR_OK);
    CHECK_I64(ids.count, ==, LEN / 8);
    for (size_t i = 0; i < ids.count; i++)
        if (ids.at[i] != 258) snprintf(want, sizeof want, "id %zu is %d", i, ids.at[i]);
    CHECK_STR(want, "");
    ids_free(&ids);
    encoder_close(e);
    tokenizer_close(t);
}

/* ---- bytes that are no text -------------------------------------------------------------- */

static void malformed_bytes_stay_what_they_are(void)
{
    put_bytes(GPT2, "\"a b\"", ",\"ab\":256", "", "");
    CHECK_STR(ids_of("ab\xff\xfe"
                     "ab",
                     6, 0),
              "256 255 254 256");
    CHECK_STR(ids_of("\xed\xa0\x80", 3, 0), "237 160 128"); /* a surrogate */
    CHECK_STR(ids_of("\xe4\xb8", 2, 0), "228 184");         /* half a character */
    CHECK_STR(ids_of("a\0b", 3, 0), "97 0 98");
    CHECK_STR(IDS("", 0), "");
}

static void any_bytes_come_back_through_every_kind(void)
{
    char text[200];
    size_t len;

    put_bytes(GPT2, "\"a b\",\"\\u0120 a\"", ",\"ab\":256,\"\\u0120a\":257", "", "");
    for (int round = 0; round < 200; round++) {
        len = rng_u64(1, RNG_TEST, (uint32_t)round, 0) % sizeof text;
        for (size_t i = 0; i < len; i++) {
            uint64_t r = rng_u64(2, RNG_TEST, (uint32_t)round, i);

            text[i] = r % 3 ? " ab\xe4\xb8\xad\n'1"[r / 3 % 9] : (char)(r >> 32);
        }
        (void)ids_of(text, len, 0); /* checks the way back */
    }
}

/* Every code point comes back, in one text with letters beside it. */
static void every_code_point_comes_back(void)
{
    struct mem_text t = { 0 }, back = { 0 };
    struct tokenizer *k = NULL;
    struct encoder *e = NULL;
    struct ids ids = { 0 };

    put_bytes(GPT2, "\"a \\u0120\"", ",\"a\\u0120\":256", "", "");
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char out[4];

        if (c >= 0xd800 && c < 0xe000) continue;
        mem_append(&t, out, (size_t)utf8_put(out, c));
        if (c % 7 == 0) mem_append(&t, "a ", 2);
    }
    CHECK(tokenizer_open(&k, path) == KR_OK && encoder_open(&e, k) == KR_OK);
    CHECK(encoder_add(e, t.at, t.len, 0, &ids) == KR_OK);
    tokenizer_decode(k, ids.at, ids.count, true, true, &back);
    CHECK(back.len == t.len && memcmp(back.at, t.at, t.len) == 0);
    ids_free(&ids);
    mem_text_free(&t);
    mem_text_free(&back);
    encoder_close(e);
    tokenizer_close(k);
}

/* The file that stands for the tokenizer "byte" has its ids for any bytes, and its end. */
static void bytes_may_be_told_as_a_file(void)
{
    struct mem_text file = { 0 }, text = { 0 };
    struct tokenizer *k[2] = { NULL };
    struct ids ids[2] = { { 0 } };

    CHECK(tokenizer_print_bytes(&file) == KR_OK);
    put_file(file.at);
    for (int i = 0; i < 3000; i++)
        mem_append(&text, &(char){ (char)rng_u64(3, RNG_TEST, 0, (uint64_t)i) }, 1);
    mem_printf(&text, "caf\xc3\xa9<|endoftext|> x");
    for (int i = 0; i < 2; i++) {
        struct encoder *e = NULL;

        CHECK(tokenizer_open(&k[i], i ? path : "byte") == KR_OK);
        CHECK(encoder_open(&e, k[i]) == KR_OK);
        CHECK(encoder_add(e, text.at, text.len, ENCODE_SPECIALS, &ids[i]) == KR_OK);
        CHECK_I64(tokenizer_size(k[i]), ==, 257);
        CHECK_I64(tokenizer_end(k[i]), ==, 256);
        encoder_close(e);
    }
    CHECK(ids[0].count == ids[1].count &&
          memcmp(ids[0].at, ids[1].at, ids[0].count * sizeof *ids[0].at) == 0);
    for (int i = 0; i < 2; i++) {
        ids_free(&ids[i]);
        tokenizer_close(k[i]);
    }
    mem_text_free(&file);
    mem_text_free(&text);
}

/* ---- added tokens ------------------------------------------------------------------------ */

#define ADDED(id, text, more) \
    "{\"id\":" #id ",\"content\":\"" text "\",\"normalized\":false" more "}"

static void special_tokens_count_only_where_asked_for(void)
{
    put_bytes(GPT2, "", "", ADDED(256, "<e>", ",\"special\":true"), "");
    CHECK_STR(IDS("a<e>b", ENCODE_SPECIALS), "97 256 98");
    CHECK_STR(IDS("a<e>b", 0), "97 60 101 62 98");
}

static void the_longest_added_token_wins(void)
{
    put_bytes(GPT2, "", "", ADDED(256, "<e", "") "," ADDED(257, "<e>", ""), "");
    CHECK_STR(IDS("<e><e", 0), "257 256");
}

static void added_tokens_may_swallow_space_or_want_no_letters(void)
{
    put_bytes(
        GPT2, "", "",
        ADDED(256, "<l>", ",\"lstrip\":true") "," ADDED(
            257, "<r>", ",\"rstrip\":true") "," ADDED(258, "ab", ",\"single_word\":true"),
        "");
    CHECK_I64(strcmp(IDS("a", 0), "97"), ==, 0);
    CHECK_STR(IDS("ab.", 0), "258 46");
    CHECK_STR(IDS("abc", 0), "97 98 99");
    CHECK_STR(IDS("\xc3\xa9"
                  "ab",
                  0),
              "195 169 97 98");
}

static void a_template_wraps_a_text(void)
{
    put_bytes(
        GPT2, "", "", ADDED(256, "<s>", ",\"special\":true"),
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Special"
        "Token\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":"
        "{\"<s>\":{\"ids\":[256]}}},");
    CHECK_STR(IDS("a", ENCODE_TEMPLATE), "256 97");
    CHECK_STR(IDS("a", 0), "97");
}

/* ---- characters -------------------------------------------------------------------------- */

/* LLaMA 2: spaces become U+2581, one goes in front and is dropped again; unknown characters
 * become their bytes. */
static void characters_fall_back_to_bytes(void)
{
    struct mem_text t = { 0 };

    mem_printf(
        &t, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
            "\"Prepend\",\"prepend\":\"\u2581\"},{\"type\":\"Replace\",\"pattern\":"
            "{\"String\":\" \"},\"content\":\"\u2581\"}]},\"decoder\":{\"type\":"
            "\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
            "\"\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":"
            "\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
            "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{");
    for (int i = 0; i < 256; i++)
        mem_printf(&t, "\"<0x%02X>\":%d,", (unsigned)i, i);
    mem_printf(&t, "\"\u2581\":256,\"a\":257,\"\u2581"
                   "a\":258},\"merges\":[\"\u2581 a\"]}}");
    put_file(t.at);
    mem_text_free(&t);
    CHECK_STR(IDS("a", 0), "258");
    CHECK_STR(IDS("a a", 0), "258 258");
    CHECK_STR(IDS(" a", 0), "256 258");
    CHECK_STR(IDS("\u4e2d"
                  "a",
                  0),
              "256 228 184 173 257");
    CHECK_STR(ids_of("\xff", 1, 0), "256 255");
}

/* A vocabulary of characters with merges by lot, and what the rule makes of a text. */
struct lot {
    char text[64][64]; /* of each id: a space, three letters, wholes */
    int left[64], right[64], count;
};

static void add_lot(struct lot *l, uint64_t seed, bool inside)
{
    static const char *const first[] = { "\u2581", "a", "b", "\u00e9" };

    for (l->count = 0; l->count < 4; l->count++)
        strcpy(l->text[l->count], first[l->count]);
    for (uint64_t i = 0; l->count < 40; i += 2) {
        int a = (int)(rng_u64(seed, RNG_TEST, 0, i) % (uint64_t)l->count);
        int c = (int)(rng_u64(seed, RNG_TEST, 0, i + 1) % (uint64_t)l->count);
        bool crosses =
            strncmp(l->text[c], first[0], 3) == 0 &&
            strcmp(l->text[a] + strlen(l->text[a]) - 3 * (strlen(l->text[a]) >= 3),
                   first[0]) != 0;
        char whole[128];
        bool there = false;

        snprintf(whole, sizeof whole, "%s%s", l->text[a], l->text[c]);
        for (int k = 0; k < l->count; k++)
            there |= strcmp(l->text[k], whole) == 0;
        if (there || strlen(whole) > 16 || (crosses && !inside)) continue;
        strcpy(l->text[l->count], whole);
        l->left[l->count] = a;
        l->right[l->count++] = c;
    }
}

/* The lowest rank first, the leftmost among equals; ids in, ids out. */
static size_t by_the_rule(const struct lot *l, int32_t *id, size_t n)
{
    for (int k = 4; k < l->count; k++)
        for (size_t i = 0; i + 1 < n; i++)
            if (id[i] == l->left[k] && id[i + 1] == l->right[k]) {
                id[i] = k;
                memmove(id + i + 1, id + i + 2, (n - i - 2) * sizeof *id);
                n--;
                k = 3; /* a merge may make a pair of a lower rank */
                break;
            }
    return n;
}

static void check_lot(uint64_t seed, bool inside)
{
    struct bpe_rules rules = { .unknown = 0 };
    struct bpe_work w = { 0 };
    struct lot l;
    struct bpe *b;

    add_lot(&l, seed, inside);
    CHECK(bpe_open(&b) == KR_OK);
    for (int k = 0; k < l.count; k++)
        CHECK(bpe_add_token(b, k, l.text[k], strlen(l.text[k])) == KR_OK);
    for (int k = 4; k < l.count; k++)
        CHECK(bpe_add_merge(b, l.left[k], l.right[k], k) == KR_OK);
    CHECK(bpe_set_rules(b, &rules) == KR_OK);
    for (uint32_t round = 0; round < 200; round++) {
        int32_t want[60];
        size_t n = 1 + rng_u64(seed, RNG_TEST, 1, round) % 60, len = 0;
        struct ids got = { 0 };
        char text[200];

        for (size_t i = 0; i < n; i++) {
            want[i] = (int32_t)(rng_u64(seed, RNG_TEST, 2 + round, i) % 4);
            len += (size_t)snprintf(text + len, 4, "%s", l.text[want[i]]);
        }
        CHECK(bpe_encode(b, &w, text, len, &got) == KR_OK);
        n = by_the_rule(&l, want, n);
        CHECK_I64(got.count, ==, n);
        CHECK(got.count == n && memcmp(got.at, want, n * sizeof *want) == 0);
        ids_free(&got);
    }
    bpe_work_free(&w);
    bpe_close(b);
}

static void words_of_a_piece_have_the_tokens_of_the_whole(void)
{
    for (uint64_t seed = 0; seed < 40; seed++)
        check_lot(seed, seed % 2);
}

/* What has no space behind another character falls into words, and the cache shows it. */
static void only_what_no_merge_crosses_is_cut(void)
{
    static const char text[] = "a\u2581b\u2581\u2581a";
    struct bpe_rules rules = { .unknown = 0 };

    for (int inside = 0; inside < 2; inside++) {
        struct bpe_work w = { 0 };
        struct ids ids = { 0 };
        struct bpe *b;

        CHECK(bpe_open(&b) == KR_OK);
        CHECK(bpe_add_token(b, 0, "\u2581", 3) == KR_OK);
        CHECK(bpe_add_token(b, 1, "a", 1) == KR_OK);
        CHECK(bpe_add_token(b, 2, "b", 1) == KR_OK);
        CHECK(bpe_add_token(b, 3, inside ? "b\u2581" : "\u2581\u2581",
                            6 - 2 * (size_t)inside) == KR_OK);
        CHECK(bpe_add_merge(b, inside ? 2 : 0, 0, 3) == KR_OK);
        CHECK(bpe_set_rules(b, &rules) == KR_OK);
        CHECK(bpe_encode(b, &w, text, sizeof text - 1, &ids) == KR_OK);
        CHECK_I64(w.seen.count, ==, inside ? 1 : 3);
        CHECK_I64(ids.count, ==, 5);
        ids_free(&ids);
        bpe_work_free(&w);
        bpe_close(b);
    }
}

/* ---- threads, bad files ------------------------------------------------------------------ */

struct shared {
    const struct tokenizer *t;
    struct encoder *e[4];
    int64_t counts[64];
};

static kr_status encode_some(void *arg, int worker, int64_t item)
{
    struct shared *s = arg;
    struct ids ids = { 0 };
    char text[64];
    int n = snprintf(text, sizeof text, "ab abc %lld ab", (long long)(item % 8));

    TRY(encoder_add(s->e[worker], text, (size_t)n, 0, &ids));
    s->counts[item] = (int64_t)ids.count;
    ids_free(&ids);
    return KR_OK;
}

static void threads_share_a_tokenizer(void)
{
    struct tokenizer *t = NULL;
    struct shared s = { 0 };

    put_bytes(GPT2, "\"a b\"", ",\"ab\":256", "", "");
    CHECK(tokenizer_open(&t, path) == KR_OK);
    s.t = t;
    for (int i = 0; i < 4; i++)
        CHECK(encoder_open(&s.e[i], t) == KR_OK);
    CHECK(parallel_run(4, 64, encode_some, &s) == KR_OK);
    for (int i = 0; i < 64; i++)
        CHECK_I64(s.counts[i], ==, 8);
    for (int i = 0; i < 4; i++)
        encoder_close(s.e[i]);
    tokenizer_close(t);
}

static void refused(const char *text, const char *why)
{
    struct tokenizer *t = NULL;

    put_file(text);
    last_line[0] = '\0';
    CHECK(tokenizer_open(&t, path) == KR_ERR_ARG);
    CHECK(t == NULL);
    if (!strstr(last_line, why)) CHECK_STR(last_line, why);
}

#define MODEL(vocab, merges)                                                            \
    "{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\"," \
    "\"vocab\":" vocab ",\"merges\":" merges "}}"

static void bad_files_are_one_clear_line(void)
{
    log_capture(keep_line, NULL);
    refused("", "is no JSON");
    refused("{\"a\":", "is no JSON");
    refused("[]", "has no model");
    refused("{\"a\":\"\\u0000\"}", "U+0000");
    refused("{\"model\":{\"type\":\"Unigram\"}}", "only BPE");
    refused("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{}}", "has no vocab");
    refused(MODEL("{\"a\":0}", "3"), "has no merges");
    refused(MODEL("{\"a\":0,\"a\":1}", "[]"), "written alike");
    refused(MODEL("{\"a\":0,\"b\":0}", "[]"), "two tokens");
    refused(MODEL("{\"a\":-1}", "[]"), "no sane id");
    refused(MODEL("{\"a\":1e9}", "[]"), "no sane id");
    refused(MODEL("{\"a\":0.5}", "[]"), "no sane id");
    refused(MODEL("{\"a\":0}", "[\"a b\"]"), "not made of tokens");
    refused(MODEL("{\"a\":0}", "[\"a\"]"), "is not two tokens");
    refused(MODEL("{\"a\":0}", "[[\"a\",\"a\",\"a\"]]"), "not two tokens");
    refused(MODEL("{\"a\":0}", "[[1]]"), "not two tokens");
    refused(
        "{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"b\":0},\"merges\":[]}}",
        "would have no tokens");
    refused("{\"normalizer\":{\"type\":\"NFC\"},\"model\":{}}", "normalizer of type NFC");
    refused("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
            "\"behavior\":\"Isolated\"},\"model\":{}}",
            "pattern (");
    refused("{\"model\":{\"dropout\":0.1}}", "dropout");
    refused("{\"decoder\":{\"type\":\"X\"},\"model\":{}}", "decoder of type X");
    log_capture(NULL, NULL);
}

int main(void)
{
    const char *folder = getenv("TMPDIR");

    snprintf(path, sizeof path, "%s/t_tokenizer.%d.json", folder ? folder : "/tmp",
             (int)getpid());
    RUN(lower_ranks_merge_first);
    RUN(the_leftmost_of_equals_merges_first);
    RUN(two_pairs_may_make_the_same_token);
    RUN(a_whole_piece_may_count_before_merges);
    RUN(merges_do_not_cross_pieces);
    RUN(long_pieces_are_whole_and_quick);
    RUN(malformed_bytes_stay_what_they_are);
    RUN(any_bytes_come_back_through_every_kind);
    RUN(every_code_point_comes_back);
    RUN(bytes_may_be_told_as_a_file);
    RUN(special_tokens_count_only_where_asked_for);
    RUN(the_longest_added_token_wins);
    RUN(added_tokens_may_swallow_space_or_want_no_letters);
    RUN(a_template_wraps_a_text);
    RUN(characters_fall_back_to_bytes);
    RUN(words_of_a_piece_have_the_tokens_of_the_whole);
    RUN(only_what_no_merge_crosses_is_cut);
    RUN(threads_share_a_tokenizer);
    RUN(bad_files_are_one_clear_line);
    unlink(path);
    return check_done();
}
