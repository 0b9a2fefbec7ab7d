/* Settings: what is taken, what is refused and how, and that printed text reads back. */
#include "base/cfg.h"

#include <float.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "tests/check.h"
#include "trainer/run/settings.h"

struct sample {
    int64_t count, big;
    double rate, wide;
    bool flag;
    char text[16], place[64];
    int kind;
};

#define S struct sample
static const struct cfg_field table[] = {
    CFG_INT(S, count, "a.count", "5", 0, 100, "things"),
    CFG_INT_FIXED(S, big, "a.big", "0", -9e15, 9e15, "a wide range"),
    CFG_REAL(S, rate, "a.rate", "1e-3", 0, 10, "per second"),
    CFG_FLAG(S, flag, "b.flag", "false", "yes or no"),
    CFG_TEXT(S, text, "b.text", "", "short text"),
    CFG_TEXT(S, place, "b.place", "/tmp/x y", "longer text"),
    CFG_REAL_FIXED(S, wide, "c.wide", "0", -DBL_MAX, DBL_MAX, "any finite number"),
    CFG_ONE_OF_FIXED(S, kind, "c.kind", "two", "one|two|three", "which"),
    { .name = NULL },
};
#undef S

static struct {
    int lines;
    char last[4096];
    char all[8192];
} said;

static void listen(enum log_level level, const char *text, void *arg)
{
    size_t len = strlen(said.all);

    (void)level, (void)arg;
    said.lines++;
    snprintf(said.last, sizeof said.last, "%s", text);
    snprintf(said.all + len, sizeof said.all - len, "%s\n", text);
}

static void forget(void) { memset(&said, 0, sizeof said); }

/* All bytes zero first, so that memcmp sees no difference in padding. */
static void fresh(struct sample *s)
{
    memset(s, 0, sizeof *s);
    CHECK_I64(cfg_defaults(table, s), ==, KR_OK);
}

static void says(const char *part)
{
    if (strstr(said.last, part)) return;
    printf("# \"%s\" does not say \"%s\"\n", said.last, part);
    check_bad_here++;
}

/* ---- what is taken ---------------------------------------------------------------------- */

static void defaults_fill_every_field(void)
{
    struct sample s;

    fresh(&s);
    CHECK_I64(s.count, ==, 5);
    CHECK_I64(s.big, ==, 0);
    CHECK(s.rate == 1e-3);
    CHECK(!s.flag);
    CHECK_STR(s.text, "");
    CHECK_STR(s.place, "/tmp/x y");
    CHECK_I64(s.kind, ==, 1);
}

static void a_default_outside_its_range_is_an_error(void)
{
    static const struct cfg_field wrong[] = {
        CFG_INT(struct sample, count, "a.count", "101", 0, 100, ""),
        { .name = NULL },
    };
    struct sample s;

    forget();
    CHECK_I64(cfg_defaults(wrong, &s), ==, KR_ERR_ARG);
    CHECK_I64(said.lines, ==, 1);
    says("a.count");
}

static void set_stores_one_value_of_each_type(void)
{
    struct sample s, want;

    fresh(&s);
    want = s;
    CHECK_I64(cfg_set(table, &s, "a.count=7", "--set"), ==, KR_OK);
    CHECK_I64(cfg_set(table, &s, "a.rate=2.5e-1", "--set"), ==, KR_OK);
    CHECK_I64(cfg_set(table, &s, "b.flag=true", "--set"), ==, KR_OK);
    CHECK_I64(cfg_set(table, &s, "b.text=a=b:c", "--set"), ==, KR_OK);
    CHECK_I64(cfg_set(table, &s, "c.kind=three", "--set"), ==, KR_OK);
    want.count = 7, want.rate = 0.25, want.flag = true, want.kind = 2;
    CHECK_I64(s.count, ==, want.count);
    CHECK(s.rate == want.rate);
    CHECK(s.flag);
    CHECK_STR(s.text, "a=b:c");
    CHECK_I64(s.kind, ==, 2);
    CHECK_STR(s.place, want.place);
}

static void set_ignores_spaces_around_name_and_value(void)
{
    struct sample s;

    fresh(&s);
    CHECK_I64(cfg_set(table, &s, "  a.count \t=  9 ", "--set"), ==, KR_OK);
    CHECK_I64(cfg_set(table, &s, " b.text = in side ", "--set"), ==, KR_OK);
    CHECK_I64(s.count, ==, 9);
    CHECK_STR(s.text, "in side");
}

static void set_takes_the_ends_of_a_range_and_powers_of_ten(void)
{
    struct sample s;

    fresh(&s);
    CHECK_I64(cfg_set(table, &s, "a.count=0", "--set"), ==, KR_OK);
    CHECK_I64(s.count, ==, 0);
    CHECK_I64(cfg_set(table, &s, "a.count=100", "--set"), ==, KR_OK);
    CHECK_I64(s.count, ==, 100);
    CHECK_I64(cfg_set(table, &s, "a.big=-1e15", "--set"), ==, KR_OK);
    CHECK_I64(s.big, ==, -1000000000000000);
    CHECK_I64(cfg_set(table, &s, "a.big=8999999999999999", "--set"), ==, KR_OK);
    CHECK_I64(s.big, ==, 8999999999999999);
}

static void ini_text_sets_what_it_names_and_nothing_else(void)
{
    struct sample s;

    fresh(&s);
    CHECK_I64(cfg_read_text(table, &s,
                            "; a comment\n# another\n\n[b]\r\nflag = true\r\n"
                            "[a]\ncount=11 ; eleven\n[b]\ntext = x;y\n",
                            "t.ini"),
              ==, KR_OK);
    CHECK(s.flag);
    CHECK_I64(s.count, ==, 11);
    CHECK_STR(s.text, "x;y");
    CHECK_STR(s.place, "/tmp/x y");
    CHECK_I64(cfg_read_text(table, &s, "", "t.ini"), ==, KR_OK);
    CHECK_I64(s.count, ==, 11);
}

static void a_line_of_the_allowed_length_is_taken_whole(void)
{
    char text[256];
    struct sample s;
    int len = snprintf(text, sizeof text, "[b]\nplace = ");

    fresh(&s);
    memset(text + len, 'p', 63);
    memset(text + len + 63, ' ', sizeof text - 63 - (size_t)len);
    text[4 + 197] = '\n'; /* 197 bytes after "[b]\n" */
    text[4 + 198] = '\0';
    CHECK_I64(cfg_read_text(table, &s, text, "t.ini"), ==, KR_OK);
    CHECK_I64(strlen(s.place), ==, 63);
}

/* ---- text and back ---------------------------------------------------------------------- */

static void check_round_trip(const struct sample *s)
{
    char *text = cfg_print(table, s);
    struct sample back;

    fresh(&back);
    CHECK(text != NULL);
    CHECK_I64(cfg_read_text(table, &back, text, "printed"), ==, KR_OK);
    CHECK_I64(back.count, ==, s->count);
    CHECK_I64(back.big, ==, s->big);
    CHECK(memcmp(&back.rate, &s->rate, sizeof s->rate) == 0);
    CHECK(memcmp(&back.wide, &s->wide, sizeof s->wide) == 0);
    CHECK_I64(back.flag, ==, s->flag);
    CHECK_I64(back.kind, ==, s->kind);
    CHECK_STR(back.text, s->text);
    CHECK_STR(back.place, s->place);
    mem_free(text);
}

static void printed_reals_read_back_bit_for_bit(void)
{
    static const double reals[] = {
        0.0,       -0.0,        1.0,      0.1,
        1.0 / 3,   3e-4,        -2.5,     1e22,
        1e23,      DBL_MAX,     -DBL_MAX, DBL_MIN,
        0x1p-1074, DBL_EPSILON, 1e-320,   0x1.fffffffffffffp0
    };
    struct sample s;

    fresh(&s);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        s.wide = reals[i];
        check_round_trip(&s);
    }
    for (uint64_t i = 0; i < 2000; i++) {
        uint64_t bits = i * 0x9E3779B97F4A7C15u;

        memcpy(&s.wide, &bits, sizeof bits);
        if (isfinite(s.wide)) check_round_trip(&s);
    }
}

static void printed_texts_and_numbers_read_back(void)
{
    static const char *const texts[] = { "",      "plain",       "a=b",  "[x]",
                                         "#no",   "a;b",         "a:b",  "= x",
                                         "\"q\"", "\\n",         "a  b", "a #b",
                                         "true",  "caf\xc3\xa9", "%s%n", "a\tb" };
    struct sample s;

    fresh(&s);
    s.count = 100, s.big = -8999999999999999, s.flag = true, s.kind = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        snprintf(s.text, sizeof s.text, "%s", texts[i]);
        check_round_trip(&s);
    }
}

/* Whatever a text setting accepts must survive printing; what would not is refused. */
static void a_text_that_ini_would_cut_is_refused(void)
{
    static const char *const texts[] = { "a ;b", ";b", "a\t;b", "a\v;b", "a\nb", "a\rb" };
    struct sample s, before;
    char line[64];

    fresh(&s);
    before = s;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        forget();
        snprintf(line, sizeof line, "b.place=%s", texts[i]);
        CHECK_I64(cfg_set(table, &s, line, "--set"), ==, KR_ERR_ARG);
        CHECK_I64(said.lines, ==, 1);
        CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
}

static void the_trainers_own_settings_print_and_read_back(void)
{
    static struct settings s, back;
    char *text, *again;

    CHECK_I64(cfg_defaults(settings_table, &s), ==, KR_OK);
    CHECK_I64(cfg_defaults(settings_table, &back), ==, KR_OK);
    memset(s.train, 'x', sizeof s.train - 1);
    s.lr = 1.0 / 3;
    text = cfg_print(settings_table, &s);
    CHECK_I64(cfg_read_text(settings_table, &back, text, "printed"), ==, KR_OK);
    again = cfg_print(settings_table, &back);
    CHECK_STR(again, text);
    CHECK(back.lr == s.lr);
    mem_free(text);
    mem_free(again);
}

static void value_prints_one_setting(void)
{
    char buf[64];
    struct sample s;

    fresh(&s);
    CHECK_STR(cfg_value(&table[0], &s, buf, sizeof buf), "5");
    CHECK_STR(cfg_value(&table[2], &s, buf, sizeof buf), "0.001");
    CHECK_STR(cfg_value(&table[3], &s, buf, sizeof buf), "false");
    CHECK_STR(cfg_value(&table[5], &s, buf, sizeof buf), "/tmp/x y");
    CHECK_STR(cfg_value(&table[7], &s, buf, sizeof buf), "two");
}

static void help_has_one_line_a_setting(void)
{
    char *text = NULL;
    size_t bytes = 0;
    int lines = 0;
    FILE *f = open_memstream(&text, &bytes);

    cfg_help(table, f);
    fclose(f);
    for (size_t i = 0; i < bytes; i++)
        lines += text[i] == '\n';
    CHECK_I64(lines, ==, sizeof table / sizeof *table - 1);
    CHECK(strstr(text, "a.count") && strstr(text, "0 to 100"));
    CHECK(strstr(text, "one|two|three"));
    free(text);
}

/* ---- what is refused -------------------------------------------------------------------- */

/* Values that no row accepts, and what the line must name besides source and key. */
static const struct {
    const char *key, *value, *names;
} bad_values[] = {
    { "a.count", "5x", "5x" },
    { "a.count", "5 5", "5 5" },
    { "a.count", "", "whole number" },
    { "a.count", "1.5", "1.5" },
    { "a.count", "101", "from 0 to 100" },
    { "a.count", "-1", "-1" },
    { "a.count", "nan", "nan" },
    { "a.count", "inf", "inf" },
    { "a.count", "1e400", "1e400" },
    { "a.count", "9223372036854775808", "9223372036854775808" },
    { "a.count", "0x", "0x" },
    { "a.big", "1e16", "1e16" },
    { "a.big", "-99999999999999999999", "-99999999999999999999" },
    { "a.rate", "nan", "nan" },
    { "a.rate", "-nan", "-nan" },
    { "a.rate", "inf", "inf" },
    { "a.rate", "-inf", "-inf" },
    { "a.rate", "1e400", "1e400" },
    { "a.rate", "10.0001", "from 0 to 10" },
    { "a.rate", "-1e-30", "-1e-30" },
    { "a.rate", "1e-3s", "1e-3s" },
    { "a.rate", "1,5", "1,5" },
    { "a.rate", "", "number" },
    { "c.wide", "inf", "inf" },
    { "c.wide", "nan(1)", "nan(1)" },
    { "b.flag", "yes", "false|true" },
    { "b.flag", "True", "True" },
    { "b.flag", "", "false|true" },
    { "b.text", "sixteen letters!", "shorter" },
    { "c.kind", "four", "one|two|three" },
    { "c.kind", "on", "one|two|three" },
    { "c.kind", "one|two", "one|two|three" },
    { "c.kind", "", "one|two|three" },
};
enum { BAD_VALUES = sizeof bad_values / sizeof *bad_values };

static void a_bad_value_is_one_line_and_changes_nothing(void)
{
    struct sample s, before;
    char text[128];

    fresh(&s);
    before = s;
    for (int i = 0; i < BAD_VALUES; i++) {
        forget();
        snprintf(text, sizeof text, "%s=%s", bad_values[i].key, bad_values[i].value);
        CHECK_I64(cfg_set(table, &s, text, "--set"), ==, KR_ERR_ARG);
        CHECK_I64(said.lines, ==, 1);
        says("--set: ");
        says(bad_values[i].key);
        says(bad_values[i].value);
        says(bad_values[i].names);
        CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
}

/* The same values from a file, after good lines that must not be taken either. */
static void a_bad_value_in_ini_text_takes_nothing_of_the_text(void)
{
    struct sample s, before;
    char text[256];

    fresh(&s);
    before = s;
    for (int i = 0; i < BAD_VALUES; i++) {
        const char *key = bad_values[i].key;
        /* a section may come again; none of these keys is used below */
        const char *good = key[0] == 'b' ? "[a]\ncount = 8\n" : "[b]\nflag = true\n";

        forget();
        snprintf(text, sizeof text, "%s[%c]\n%s = %s\n[b]\nplace = elsewhere\n", good,
                 key[0], key + 2, bad_values[i].value);
        CHECK_I64(cfg_read_text(table, &s, text, "t.ini"), ==, KR_ERR_ARG);
        CHECK_I64(said.lines, ==, 1);
        says("t.ini");
        says(key);
        says(bad_values[i].names);
        CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
}

static void an_unknown_name_suggests_the_nearest(void)
{
    static const struct {
        const char *text, *meant;
    } typos[] = { { "a.cuont=1", "a.count" },   { "a.rat=1", "a.rate" },
                  { "b.flags=true", "b.flag" }, { "c.kinds=one", "c.kind" },
                  { "b.plaec=x", "b.place" },   { "count=1", "a.count" } };
    struct sample s, before;

    fresh(&s);
    before = s;
    for (size_t i = 0; i < sizeof typos / sizeof *typos; i++) {
        char want[64];

        forget();
        CHECK_I64(cfg_set(table, &s, typos[i].text, "--set"), ==, KR_ERR_ARG);
        CHECK_I64(said.lines, ==, 1);
        snprintf(want, sizeof want, "did you mean %s?", typos[i].meant);
        says("--set: ");
        says(want);
    }
    forget();
    CHECK_I64(cfg_set(table, &s, "nothing.like.any.of.them=1", "--set"), ==, KR_ERR_ARG);
    says("nothing.like.any.of.them");
    CHECK(!strstr(said.last, "did you mean"));
    CHECK(memcmp(&s, &before, sizeof s) == 0);
}

static void a_set_without_equals_sign_or_too_long_is_refused(void)
{
    struct sample s, before;
    char text[3000];

    fresh(&s);
    before = s;
    forget();
    CHECK_I64(cfg_set(table, &s, "a.count", "--set"), ==, KR_ERR_ARG);
    CHECK_I64(said.lines, ==, 1);
    says("a.count");
    memset(text, 'n', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    text[2000] = '=';
    CHECK_I64(cfg_set(table, &s, text, "--set"), ==, KR_ERR_ARG); /* long name */
    memcpy(text, "b.text=", 7);
    CHECK_I64(cfg_set(table, &s, text, "--set"), ==, KR_ERR_ARG); /* long value */
    CHECK_I64(said.lines, ==, 3);
    CHECK(memcmp(&s, &before, sizeof s) == 0);
}

/* Text that is no INI, or that inih would read as something else than it shows. */
static void ini_text_that_is_not_plain_is_refused(void)
{
    static const struct {
        const char *text, *names[2];
    } bad[] = {
        { "count = 1\n", { "t.ini", "count" } }, /* no section */
        { "[a]\ncount = 1\nnonsense\n", { "t.ini:3", "want" } },
        { "[a\ncount = 1\n", { "t.ini:1", "want" } },
        { "[a]\ncount = 1\n  rate = 2\n", { "t.ini:3", "starts with a space" } },
        { "[a]\ncount = 1\n\t2\n", { "t.ini:3", "starts with a space" } },
        { "[a]\ncount = 1\ncount = 1\n", { "a.count", "twice" } },
        { "[a]\ncount = 1\n[b]\nflag = true\n[a]\ncount = 2\n", { "a.count", "twice" } },
        { "[a]\ncuont = 1\n", { "a.cuont", "did you mean a.count?" } },
        { "[d]\ncount = 1\n", { "d.count", "did you mean a.count?" } },
    };
    struct sample s, before;

    fresh(&s);
    before = s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        forget();
        CHECK_I64(cfg_read_text(table, &s, bad[i].text, "t.ini"), ==, KR_ERR_ARG);
        CHECK_I64(said.lines, ==, 1);
        says(bad[i].names[0]);
        says(bad[i].names[1]);
        CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
}

static void a_line_that_inih_would_cut_is_refused(void)
{
    struct sample s, before;
    char text[600];

    fresh(&s);
    before = s;
    for (int extra = 198; extra < 420; extra++) {
        int len = snprintf(text, sizeof text, "[a]\n; fine\nrate = 1");

        memset(text + len, '0', (size_t)(extra - 8));
        snprintf(text + len + extra - 8, 8, "\n");
        forget();
        CHECK_I64(cfg_read_text(table, &s, text, "t.ini"), ==, KR_ERR_ARG);
        CHECK_I64(said.lines, ==, 1);
        says("t.ini:3");
        CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
}

static void a_file_is_read_and_its_faults_name_it(void)
{
    const char *base = getenv("TMPDIR");
    char path[512];
    struct sample s, before;
    int fd;

    snprintf(path, sizeof path, "%s/t_cfg.XXXXXX", base ? base : "/tmp");
    CHECK((fd = mkstemp(path)) >= 0);
    fresh(&s);
    CHECK_I64(write(fd, "[a]\ncount = 42\n", 15), ==, 15);
    CHECK_I64(cfg_read_file(table, &s, path), ==, KR_OK);
    CHECK_I64(s.count, ==, 42);
    before = s;

    forget();
    CHECK_I64(write(fd, "\0rate = 2\n", 10), ==, 10);
    CHECK_I64(cfg_read_file(table, &s, path), ==, KR_ERR_ARG);
    says(path);
    CHECK_I64(ftruncate(fd, (1 << 20) + 1), ==, 0);
    CHECK_I64(cfg_read_file(table, &s, path), ==, KR_ERR_ARG);
    says(path);
    unlink(path);
    CHECK_I64(cfg_read_file(table, &s, path), ==, KR_ERR_ARG);
    says(path);
    CHECK_I64(said.lines, ==, 3);
    CHECK(memcmp(&s, &before, sizeof s) == 0);
    close(fd);
}

/* ---- resuming --------------------------------------------------------------------------- */

static void only_fixed_settings_count_as_different(void)
{
    struct sample a, b;

    fresh(&a);
    fresh(&b);
    forget();
    CHECK_I64(cfg_diff_fixed(table, &a, &b, "there", "asked"), ==, 0);
    b.count = 6, b.rate = 5, b.flag = true;
    snprintf(b.text, sizeof b.text, "other");
    CHECK_I64(cfg_diff_fixed(table, &a, &b, "there", "asked"), ==, 0);
    CHECK_I64(said.lines, ==, 0);

    b.big = 12, b.kind = 2;
    CHECK_I64(cfg_diff_fixed(table, &a, &b, "there", "asked"), ==, 2);
    CHECK_I64(said.lines, ==, 2);
    says("c.kind: two in there, three in asked");
    CHECK(strstr(said.all, "a.big: 0 in there, 12 in asked"));

    forget();
    fresh(&b);
    b.wide = 0x1p-1074; /* the last bit counts too */
    CHECK_I64(cfg_diff_fixed(table, &a, &b, "there", "asked"), ==, 1);
    says("c.wide");
}

int main(void)
{
    log_capture(listen, NULL);
    RUN(defaults_fill_every_field);
    RUN(a_default_outside_its_range_is_an_error);
    RUN(set_stores_one_value_of_each_type);
    RUN(set_ignores_spaces_around_name_and_value);
    RUN(set_takes_the_ends_of_a_range_and_powers_of_ten);
    RUN(ini_text_sets_what_it_names_and_nothing_else);
    RUN(a_line_of_the_allowed_length_is_taken_whole);
    RUN(printed_reals_read_back_bit_for_bit);
    RUN(printed_texts_and_numbers_read_back);
    RUN(a_text_that_ini_would_cut_is_refused);
    RUN(the_trainers_own_settings_print_and_read_back);
    RUN(value_prints_one_setting);
    RUN(help_has_one_line_a_setting);
    RUN(a_bad_value_is_one_line_and_changes_nothing);
    RUN(a_bad_value_in_ini_text_takes_nothing_of_the_text);
    RUN(an_unknown_name_suggests_the_nearest);
    RUN(a_set_without_equals_sign_or_too_long_is_refused);
    RUN(ini_text_that_is_not_plain_is_refused);
    RUN(a_line_that_inih_would_cut_is_refused);
    RUN(a_file_is_read_and_its_faults_name_it);
    RUN(only_fixed_settings_count_as_different);
    return check_done();
}
