/* t_manifest.c - a manifest comes back as it was, and nothing that is not one comes in. */
#include "checkpoints/manifest.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/check.h"

/* What manifest.c ends its text with: front, 16 digits, back. */
#define SEAL_FRONT ",\n\"checksum\": \""
#define SEAL_BACK  "\"\n}\n"

static struct ckpt_tensor tensors[] = {
    { "weight/embed.token", 3, 7, KERN_F32 },
    { "weight/norm.gain", 1, 5, KERN_BF16 },
    { "adam_m/embed.token", 3, 7, KERN_F64 },
};
static struct ckpt_shard shards[] = {
    { "shard-00000.h5", 8192, UINT64_C(0xffffffffffffffff) },
    { "shard-00001.h5", 12288, UINT64_C(0x0123456789abcdef) },
};
static uint64_t sums[] = { UINT64_C(0xfedcba9876543210), 1, 2, 3, UINT64_C(1) << 63 };
static struct ckpt_range ranges[] = {
    { 0, 0, 0, 10, 4096, &sums[0] },  { 0, 1, 10, 11, 4096, &sums[1] },
    { 1, 1, 0, 5, 8192, &sums[2] },   { 2, 0, 0, 20, 4200, &sums[3] },
    { 2, 1, 20, 1, 10000, &sums[4] },
};
static char settings[] = "[run]\nname = \"a \\ b\"\n\tgr\xc3\xbc\xc3\x9f"
                         "e\x01\n\xff\xc3";
static char about[] = "kilorank 1.0 on host-1";

static struct manifest sample(void)
{
    return (struct manifest){ .step = 100,
                              .samples = INT64_C(1) << 52,
                              .generation = 7,
                              .world = 2,
                              .settings = settings,
                              .about = about,
                              .tensors = tensors,
                              .ranges = ranges,
                              .shards = shards,
                              .tensor_count = 3,
                              .range_count = 5,
                              .shard_count = 2 };
}

static char *text_of(const struct manifest *m)
{
    char *text = NULL;

    if (manifest_print(m, &text) != KR_OK) abort();
    return text;
}

static kr_status parse(const char *text, size_t bytes)
{
    struct manifest m;
    kr_status st = manifest_parse(&m, text, bytes, "test");

    if (st == KR_OK) manifest_free(&m);
    return st;
}

/* Text with a fresh checksum in place of what it ended with, so that the parser behind
 * the checksum is reached.  Caller frees. */
static char *resealed(const char *text)
{
    size_t tail = strlen(SEAL_FRONT) + 16 + strlen(SEAL_BACK), body = strlen(text) - tail;
    char *out = malloc(body + tail + 1);

    if (!out) abort();
    memcpy(out, text, body);
    snprintf(out + body, tail + 1, SEAL_FRONT "%016" PRIx64 SEAL_BACK, hash64(out, body));
    return out;
}

/* The sample with the first `from` replaced by `to`, resealed. */
static char *edited(const char *from, const char *to)
{
    struct manifest m = sample();
    char *text = text_of(&m), *out, *sealed;
    size_t room = strlen(text) + strlen(to) + 1, front = 0;

    while (text[front] && strncmp(text + front, from, strlen(from)) != 0)
        front++;
    if (!text[front] || !(out = malloc(room))) {
        printf("# the sample has no %s\n", from);
        abort();
    }
    snprintf(out, room, "%.*s%s%s", (int)front, text, to, text + front + strlen(from));
    sealed = resealed(out);
    free(out);
    mem_free(text);
    return sealed;
}

static void what_was_printed_comes_back(void)
{
    struct manifest m = sample(), got;
    char *text = text_of(&m), *again;

    CHECK_I64(manifest_parse(&got, text, strlen(text), "test"), ==, KR_OK);
    CHECK_I64(got.step, ==, 100);
    CHECK_I64(got.samples, ==, INT64_C(1) << 52);
    CHECK_I64(got.world, ==, 2);
    CHECK_STR(got.settings, settings);
    CHECK_STR(got.about, about);
    CHECK_I64(got.tensor_count, ==, 3);
    CHECK_I64(got.tensors[1].type, ==, KERN_BF16);
    CHECK(got.shards[0].frame == UINT64_MAX);
    CHECK(got.ranges[0].blocks[0] == sums[0] && got.ranges[4].blocks[0] == sums[4]);
    CHECK_I64(manifest_find(&got, "adam_m/embed.token"), ==, 2);
    CHECK_I64(manifest_find(&got, "ADAM_M/embed.token"), ==, -1);
    again = text_of(&got);
    CHECK_STR(again, text);
    manifest_free(&got);
    mem_free(again);
    mem_free(text);
}

static void every_flipped_bit_is_refused(void)
{
    struct manifest m = sample();
    char *text = text_of(&m);
    size_t bytes = strlen(text);

    CHECK_I64(parse(text, bytes), ==, KR_OK);
    for (size_t i = 0; i < bytes * 8; i++) {
        text[i / 8] = (char)(text[i / 8] ^ 1 << i % 8);
        if (parse(text, bytes) == KR_OK) {
            printf("# accepted with bit %zu of byte %zu of %zu flipped\n", i % 8, i / 8,
                   bytes);
            check_bad_here++;
        }
        text[i / 8] = (char)(text[i / 8] ^ 1 << i % 8);
    }
    mem_free(text);
}

static void every_truncation_is_refused(void)
{
    struct manifest m = sample();
    char *text = text_of(&m);

    for (size_t n = 0; n < strlen(text); n++) {
        char *copy = malloc(n + 1); /* exact, so that a sanitizer sees reads past it */

        if (!copy) abort();
        memcpy(copy, text, n);
        CHECK_I64(parse(copy, n), ==, KR_ERR_DATA);
        free(copy);
    }
    mem_free(text);
}

/* clang-format off */
static const struct {
    const char *from, *to;
} lies[] = {
    /* ranges that overlap, leave a gap, lie outside */
    { "\"begin\":10,\"count\":11", "\"begin\":9,\"count\":12" },
    { "\"begin\":10,\"count\":11", "\"begin\":11,\"count\":10" },
    { "\"begin\":10,\"count\":11", "\"begin\":10,\"count\":10" },
    { "\"begin\":10,\"count\":11", "\"begin\":10,\"count\":12" },
    { "\"begin\":10,\"count\":11", "\"begin\":10,\"count\":0" },
    { "\"begin\":10,\"count\":11", "\"begin\":10,\"count\":-11" },
    { "\"begin\":10,\"count\":11", "\"begin\":-1,\"count\":11" },
    { "\"begin\":10,\"count\":11", "\"begin\":10.5,\"count\":11" },
    { "\"begin\":10,\"count\":11", "\"begin\":1e300,\"count\":11" },
    { "\"begin\":10,\"count\":11", "\"begin\":10,\"count\":9223372036854775807" },
    { "\"begin\":10,\"count\":11", "\"begin\":10,\"count\":\"11\"" },
    { "\"offset\":8192", "\"offset\":12280" },
    { "\"offset\":8192", "\"offset\":4503599627370496" },
    { "\"offset\":8192", "\"offset\":18446744073709551615" },
    { "\"offset\":8192", "\"offset\":-8" },
    { "\"offset\":4200", "\"offset\":4100" },
    { "\"tensor\":2,", "\"tensor\":3," },
    { "\"tensor\":2,", "\"tensor\":-1," },
    { "\"tensor\":2,", "\"tensor\":4294967298," },
    { "\"shard\":1,", "\"shard\":2," },
    { "\"shard\":1,", "\"shard\":-1," },
    /* a tensor twice in full, or not at all */
    { "\n{\"tensor\":1,", "\n{\"tensor\":0," },
    /* file names that lead elsewhere */
    { "shard-00001.h5", "../shard-00001.h5" },
    { "shard-00001.h5", "/etc/passwd" },
    { "shard-00001.h5", "a/b" },
    { "shard-00001.h5", ".." },
    { "shard-00001.h5", "." },
    { "shard-00001.h5", ".hidden" },
    { "shard-00001.h5", "" },
    { "shard-00001.h5", "a b" },
    { "shard-00001.h5", "a\\nb" },
    { "shard-00001.h5", "shard-00000.h5" },
    { "\"file\":\"shard-00001.h5\"", "\"file\":17" },
    /* tensor names */
    { "weight/norm.gain", "weight/embed.token" },
    { "weight/norm.gain", "weight" },
    { "weight/norm.gain", "weight/a/b" },
    { "weight/norm.gain", "/weight" },
    { "weight/norm.gain", "weight/" },
    { "weight/norm.gain", "weight/a%n" },
    { "weight/norm.gain", "" },
    /* shapes and types */
    { "\"rows\":1,\"cols\":5", "\"rows\":0,\"cols\":5" },
    { "\"rows\":1,\"cols\":5", "\"rows\":1,\"cols\":-5" },
    { "\"rows\":1,\"cols\":5", "\"rows\":1099511627776,\"cols\":1099511627776" },
    { "\"rows\":1,\"cols\":5", "\"rows\":1e18,\"cols\":1e18" },
    { "\"rows\":1,\"cols\":5", "\"rows\":1,\"cols\":6" },
    { "\"type\":\"bf16\"", "\"type\":\"f16\"" },
    { "\"type\":\"bf16\"", "\"type\":2" },
    { "\"type\":\"bf16\"", "\"type\":null" },
    /* checksums */
    { "0000000000000001\"}", "00000000000000010000000000000001\"}" },
    { "0000000000000001\"}", "000000000000001\"}" },
    { "0000000000000001\"}", "000000000000000g\"}" },
    { "0000000000000001\"}", "\"}" },
    { "\"frame\":\"0123456789abcdef\"", "\"frame\":\"0123456789abcde\"" },
    { "\"frame\":\"0123456789abcdef\"", "\"frame\":\"0x23456789abcdef\"" },
    { "\"frame\":\"0123456789abcdef\"", "\"frame\":81985529216486895" },
    /* head */
    { "\"kilorank_checkpoint\": 1", "\"kilorank_checkpoint\": 2" },
    { "\"kilorank_checkpoint\": 1", "\"kilorank_checkpoint\": 0" },
    { "\"kilorank_checkpoint\": 1", "\"kilorank_checkpoint\": 1.5" },
    { "\"kilorank_checkpoint\": 1", "\"kilorank_checkpoint\": \"1\"" },
    { "\"step\": 100", "\"step\": -1" },
    { "\"step\": 100", "\"step\": 1e17" },
    { "\"step\": 100", "\"STEP\": 100" },
    { "\"world\": 2", "\"world\": 0" },
    { "\"world\": 2", "\"world\": 2147483648" },
    { "\"block\": 4194304", "\"block\": 1" },
    { "\"settings\": \"", "\"settings\": null, \"x\": \"" },
    /* shape of the text */
    { "\"tensors\": [", "\"tensors\": {}, \"x\": [" },
    { "\"shards\": [", "\"shards\": [], \"x\": [" },
    { "\"ranges\": [", "\"ranges\": [], \"x\": [" },
    { "\"ranges\": [", "\"ranges\": [null," },
    { "\"ranges\": [", "\"ranges\": [[]," },
    { "{\"kilorank_checkpoint\"", "[\"kilorank_checkpoint\"" },
    { "\"ranges\": [", "\"ranges\": [[[[[[[[" },
};

/* Every member, each without which nothing works. */
static const char *const members[] = {
    "kilorank_checkpoint", "step", "samples", "generation", "world", "block", "about",
    "settings", "tensors", "shards", "ranges", "name", "rows", "cols", "type", "file",
    "bytes", "frame", "tensor", "shard", "begin", "count", "offset", "blocks",
};
/* clang-format on */

static void sealed_lies_are_refused(void)
{
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char *text = edited(lies[i].from, lies[i].to);

        if (parse(text, strlen(text)) != KR_ERR_DATA) {
            printf("# accepted: %s\n", lies[i].to);
            check_bad_here++;
        }
        free(text);
    }
}

static void every_member_is_needed(void)
{
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        char from[64], to[64], *text;

        snprintf(from, sizeof from, "\"%s\":", members[i]);
        snprintf(to, sizeof to, "\"x%s\":", members[i]);
        text = edited(from, to);
        if (parse(text, strlen(text)) != KR_ERR_DATA) {
            printf("# accepted without %s\n", members[i]);
            check_bad_here++;
        }
        free(text);
    }
}

/* Harmless: what a later version may add, names that differ only in case. */
static void unknown_members_and_case_are_fine(void)
{
    static const char *const fine[][2] = {
        { "\"step\": 100", "\"note\": [1, {\"step\": 5}], \"step\": 100" },
        { "weight/norm.gain", "WEIGHT/EMBED.TOKEN" },
    };

    for (size_t i = 0; i < 2; i++) {
        char *text = edited(fine[i][0], fine[i][1]);

        CHECK_I64(parse(text, strlen(text)), ==, KR_OK);
        free(text);
    }
}

/* The checksum must be the last member of the object itself, not text behind it. */
static void text_behind_the_object_is_refused(void)
{
    char *text = edited("\"step\": 100", "\"step\": 100"), *cut;
    char *longer = malloc(strlen(text) + 64);

    if (!longer) abort();
    cut = strstr(text, SEAL_FRONT);
    snprintf(longer, strlen(text) + 64, "%.*s}\n{\"more\": 1%s", (int)(cut - text), text,
             cut);
    cut = resealed(longer);
    CHECK_I64(parse(cut, strlen(cut)), ==, KR_ERR_DATA);
    free(cut);
    free(longer);
    free(text);
}

static void deep_nesting_is_refused_not_followed(void)
{
    enum { DEEP = 200000 };
    char *nest = malloc(DEEP + 32), *text;

    if (!nest) abort();
    memset(nest, '[', DEEP);
    snprintf(nest + DEEP, 32, "\"step\": 100");
    text = edited("\"step\": 100", nest);
    CHECK_I64(parse(text, strlen(text)), ==, KR_ERR_DATA);
    free(text);
    free(nest);
}

static void a_refusal_leaves_the_result_alone(void)
{
    struct manifest m = { .step = -77 };

    CHECK_I64(manifest_parse(&m, "{}", 2, "test"), ==, KR_ERR_DATA);
    CHECK_I64(m.step, ==, -77);
    CHECK(m.tensors == NULL);
}

/* In a process of its own, whose n-th allocation fails: 0 parsed, 1 a clean refusal. */
static int parse_short_of_memory(const char *text, int n)
{
    pid_t pid = fork();
    char number[16];
    int how = -1;

    if (pid == 0) {
        snprintf(number, sizeof number, "%d", n);
        setenv("KILORANK_MEM_FAULT", number, 1);
        execl("/proc/self/exe", "t_manifest", "parse", text, (char *)NULL);
        _exit(9);
    }
    if (pid > 0 && waitpid(pid, &how, 0) == pid && WIFEXITED(how))
        return WEXITSTATUS(how);
    return -1;
}

static void lack_of_memory_is_an_error_and_no_more(void)
{
    struct manifest m = sample();
    char *text = text_of(&m);
    int n = 1, how;

    while ((how = parse_short_of_memory(text, n)) == 1)
        n++;
    CHECK_I64(how, ==, 0);
    CHECK_I64(n, >, 5);
    mem_free(text);
}

/* What a thousand ranks write: 300,000 ranges of one block each. */
static void a_big_manifest_is_quick(void)
{
    enum { MANY = 300000 };
    static struct ckpt_range many[MANY];
    static uint64_t one = 42;
    struct ckpt_tensor t = { "weight/all", 1, MANY, KERN_F32 };
    struct ckpt_shard s = { "shard-00000.h5", 8 * MANY, 0 };
    struct manifest m = sample();
    clock_t begin = clock(); /* of this process: others may be busy */
    char *text;

    for (int32_t i = 0; i < MANY; i++)
        many[i] = (struct ckpt_range){ 0, 0, i, 1, 8 * (uint64_t)i, &one };
    m.tensors = &t, m.shards = &s, m.ranges = many;
    m.tensor_count = m.shard_count = 1, m.range_count = MANY;
    text = text_of(&m);
    CHECK_I64(parse(text, strlen(text)), ==, KR_OK);
    CHECK_I64((clock() - begin) / CLOCKS_PER_SEC, <, 10); /* 0.3; if quadratic, 100s */
    mem_free(text);
}

static void many_tensors_are_found_quickly(void)
{
    enum { MANY = 60000 };
    static struct ckpt_tensor many[MANY];
    static struct ckpt_range whole[MANY];
    static uint64_t one = 42;
    struct ckpt_shard s = { "shard-00000.h5", 8 * MANY, 0 };
    struct manifest m = sample(), got;
    clock_t begin = clock();
    char *text;

    for (int32_t i = 0; i < MANY; i++) {
        many[i] = (struct ckpt_tensor){ .rows = 1, .cols = 1, .type = KERN_F32 };
        snprintf(many[i].name, sizeof many[i].name, "weight/block.%d.norm1.weight", i);
        whole[i] = (struct ckpt_range){ i, 0, 0, 1, 8 * (uint64_t)i, &one };
    }
    m.tensors = many, m.shards = &s, m.ranges = whole;
    m.tensor_count = m.range_count = MANY, m.shard_count = 1;
    text = text_of(&m);
    CHECK_I64(manifest_parse(&got, text, strlen(text), "test"), ==, KR_OK);
    for (int32_t i = 0; i < MANY; i++)
        if (manifest_find(&got, many[i].name) != i) CHECK_STR(many[i].name, "found");
    CHECK_I64((clock() - begin) / CLOCKS_PER_SEC, <, 3); /* 0.2; one by one, 15 */
    manifest_free(&got);
    mem_free(text);
}

int main(int argc, char **argv)
{
    log_mute(true);
    if (argc == 3) return parse(argv[2], strlen(argv[2])) == KR_OK ? 0 : 1;
    RUN(what_was_printed_comes_back);
    RUN(every_flipped_bit_is_refused);
    RUN(every_truncation_is_refused);
    RUN(sealed_lies_are_refused);
    RUN(every_member_is_needed);
    RUN(unknown_members_and_case_are_fine);
    RUN(text_behind_the_object_is_refused);
    RUN(deep_nesting_is_refused_not_followed);
    RUN(a_refusal_leaves_the_result_alone);
    RUN(lack_of_memory_is_an_error_and_no_more);
    RUN(a_big_manifest_is_quick);
    RUN(many_tensors_are_found_quickly);
    return check_done();
}
