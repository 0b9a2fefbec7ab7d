/* cfg.c - settings as a table: store, read INI, print, help, compare. */
#include "base/cfg.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

enum { NAME = 64, VALUE = 1200, FILE_MAX = 1 << 20, INI_LINE = 200 };

static size_t field_bytes(const struct cfg_field *f)
{
    switch (f->type) {
    case CFG_I64: return sizeof(int64_t);
    case CFG_F64: return sizeof(double);
    case CFG_BOOL: return sizeof(bool);
    case CFG_CHOICE: return sizeof(int);
    case CFG_STR: break;
    }
    return f->size;
}

static kr_status bad(const struct cfg_field *f, const char *text, const char *source,
                     const char *want)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %s = %s: want %s", source, f->name, text, want);
}

static kr_status out_of_range(const struct cfg_field *f, const char *text,
                              const char *source)
{
    char want[96];

    snprintf(want, sizeof want, "a%s number from %.15g to %.15g",
             f->type == CFG_I64 ? " whole" : "", f->min, f->max);
    return bad(f, text, source, want);
}

/* Index of text among "a|b|c", -1 if it is not there. */
static int choice_index(const char *choices, const char *text)
{
    size_t len = strlen(text);

    for (int i = 0;; i++) {
        size_t span = strcspn(choices, "|");

        if (span == len && memcmp(choices, text, len) == 0) return i;
        choices += span;
        if (*choices++ == '\0') return -1;
    }
}

static kr_status store_i64(const struct cfg_field *f, void *dst, const char *text,
                           const char *source)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < (long long)f->min || v > (long long)f->max) {
        /* people write 1e6 for whole numbers too */
        double d = strtod(text, &end);

        if (end == text || *end || !(d >= f->min && d <= f->max) || d != floor(d) ||
            fabs(d) > 0x1p53)
            return out_of_range(f, text, source);
        v = (long long)d;
    }
    memcpy(dst, &(int64_t){ v }, sizeof(int64_t));
    return KR_OK;
}

/* INI takes a ';' after a space, also the one of "key = ", for the start of a comment. */
static bool survives_ini(const char *text)
{
    char before = ' ';

    for (; *text; before = *text++)
        if (strchr("\r\n", *text) || (*text == ';' && isspace((unsigned char)before)))
            return false;
    return true;
}

static kr_status store(const struct cfg_field *f, void *cfg, const char *text,
                       const char *source)
{
    void *dst = (char *)cfg + f->offset;
    char *end;
    double d;
    int i;

    switch (f->type) {
    case CFG_I64: return store_i64(f, dst, text, source);
    case CFG_F64:
        d = strtod(text, &end);
        if (end == text || *end || !(d >= f->min && d <= f->max))
            return out_of_range(f, text, source);
        memcpy(dst, &d, sizeof d);
        return KR_OK;
    case CFG_STR:
        if (strlen(text) >= f->size) return bad(f, text, source, "a shorter text");
        if (!survives_ini(text))
            return bad(f, text, source, "a text without ' ;' and line ends");
        memcpy(dst, text, strlen(text) + 1);
        return KR_OK;
    case CFG_BOOL:
    case CFG_CHOICE:
        if ((i = choice_index(f->choices, text)) < 0)
            return bad(f, text, source, f->choices);
        if (f->type == CFG_BOOL)
            memcpy(dst, &(bool){ i == 1 }, sizeof(bool));
        else
            memcpy(dst, &i, sizeof i);
        return KR_OK;
    }
    return KR_FAIL(KR_ERR_ARG, "%s: setting of no known type", f->name);
}

kr_status cfg_defaults(const struct cfg_field *table, void *cfg)
{
    for (const struct cfg_field *f = table; f->name; f++)
        TRY(store(f, cfg, f->fallback, "default"));
    return KR_OK;
}

/* Edit distance, small words only. */
static int distance(const char *a, const char *b)
{
    int row[NAME + 1], n = (int)strlen(b);

    if (n > NAME) return NAME;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 0; a[i]; i++) {
        int corner = row[0]++;

        for (int j = 1; j <= n; j++) {
            int best = corner + (a[i] != b[j - 1]);

            corner = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static kr_status unknown(const struct cfg_field *table, const char *name,
                         const char *source)
{
    const char *near = NULL;
    int best = 6;

    for (const struct cfg_field *f = table; f->name && strlen(name) < NAME; f++)
        if (distance(name, f->name) < best) {
            best = distance(name, f->name);
            near = f->name;
        }
    return KR_FAIL(KR_ERR_ARG, "%s: no setting named %s%s%s%s", source, name,
                   near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static const struct cfg_field *find(const struct cfg_field *table, const char *name)
{
    for (const struct cfg_field *f = table; f->name; f++)
        if (strcmp(f->name, name) == 0) return f;
    return NULL;
}

/* Copy text[len] without the spaces around it. */
static bool trimmed(char *out, size_t room, const char *text, size_t len)
{
    while (len && isspace((unsigned char)*text))
        text++, len--;
    while (len && isspace((unsigned char)text[len - 1]))
        len--;
    if (len >= room) return false;
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

kr_status cfg_set(const struct cfg_field *table, void *cfg, const char *text,
                  const char *source)
{
    const char *eq = strchr(text, '=');
    const struct cfg_field *f;
    char name[NAME], value[VALUE];

    if (!eq) return KR_FAIL(KR_ERR_ARG, "%s: %s: want section.key=value", source, text);
    if (!trimmed(name, sizeof name, text, (size_t)(eq - text)) ||
        !trimmed(value, sizeof value, eq + 1, strlen(eq + 1)))
        return KR_FAIL(KR_ERR_ARG, "%s: %.60s...: too long", source, text);
    if (!(f = find(table, name))) return unknown(table, name, source);
    return store(f, cfg, value, source);
}

/* ---- INI ---------------------------------------------------------------------------- */

struct reading {
    const struct cfg_field *table;
    void *cfg;
    bool *seen;
    const char *source;
    kr_status status;
};

static int on_pair(void *user, const char *section, const char *key, const char *value)
{
    struct reading *r = user;
    char name[NAME * 2];
    const struct cfg_field *f;

    if (r->status != KR_OK) return 1;
    snprintf(name, sizeof name, "%s%s%s", section, section[0] ? "." : "", key);
    f = find(r->table, name);
    if (!f)
        r->status = unknown(r->table, name, r->source);
    else if (r->seen[f - r->table])
        r->status = KR_FAIL(KR_ERR_ARG, "%s: %s is given twice", r->source, name);
    else
        r->status = store(f, r->cfg, value ? value : "", r->source);
    if (f) r->seen[f - r->table] = true;
    return 1;
}

/* A first pass looks for lines that are no INI, so that what is said is their number. */
static int skip_pair(void *user, const char *section, const char *key, const char *value)
{
    return (void)user, (void)section, (void)key, (void)value, 1;
}

/* inih cuts lines at its buffer and joins indented lines to the one above; both would
 * change values silently, so neither may occur. */
static kr_status plain_lines(const char *text, const char *source)
{
    int number = 1;

    for (const char *line = text; *line; number++) {
        size_t len = strcspn(line, "\n");

        if (len >= INI_LINE - 2)
            return KR_FAIL(KR_ERR_ARG, "%s:%d: line longer than %d bytes", source, number,
                           INI_LINE - 3);
        if (len && isspace((unsigned char)*line) && strspn(line, " \t\r") < len)
            return KR_FAIL(KR_ERR_ARG, "%s:%d: line starts with a space", source, number);
        line += len + (line[len] == '\n');
    }
    return KR_OK;
}

static size_t table_len(const struct cfg_field *table)
{
    size_t n = 0;

    while (table[n].name)
        n++;
    return n;
}

/* Bytes of the caller's struct that the table covers. */
static size_t table_bytes(const struct cfg_field *table)
{
    size_t most = 0;

    for (const struct cfg_field *f = table; f->name; f++)
        if (f->offset + field_bytes(f) > most) most = f->offset + field_bytes(f);
    return most;
}

kr_status cfg_read_text(const struct cfg_field *table, void *cfg, const char *text,
                        const char *source)
{
    size_t bytes = table_bytes(table);
    struct reading r = { table, NULL, NULL, source, KR_OK };
    kr_status st;
    int line;

    TRY(plain_lines(text, source));
    if ((line = ini_parse_string(text, skip_pair, NULL)) != 0)
        return KR_FAIL(KR_ERR_ARG, "%s:%d: want [section] or key = value", source, line);
    TRY_OR(st, mem_alloc(&r.cfg, bytes, 1, "settings"), done);
    TRY_OR(st, mem_alloc(&r.seen, table_len(table), sizeof(bool), "settings"), done);
    memcpy(r.cfg, cfg, bytes);
    (void)ini_parse_string(text, on_pair, &r);
    st = r.status;
    if (st == KR_OK) memcpy(cfg, r.cfg, bytes);
done:
    mem_free(r.cfg);
    mem_free(r.seen);
    return st;
}

kr_status cfg_read_file(const struct cfg_field *table, void *cfg, const char *path)
{
    char *text = NULL;
    size_t bytes;
    kr_status st;

    if (fs_read_all(path, &text, &bytes, FILE_MAX) != KR_OK) return KR_ERR_ARG;
    if (strlen(text) != bytes)
        st = KR_FAIL(KR_ERR_ARG, "%s: is not a text file", path);
    else
        st = cfg_read_text(table, cfg, text, path);
    mem_free(text);
    return st;
}

/* ---- printing ----------------------------------------------------------------------- */

/* Shortest decimal text that reads back to the same bits. */
static void print_real(char *buf, size_t size, double x)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buf, size, "%.*g", digits, x);
        if (strtod(buf, NULL) == x) return;
    }
}

const char *cfg_value(const struct cfg_field *f, const void *cfg, char *buf, size_t size)
{
    const char *at = (const char *)cfg + f->offset, *choice = f->choices;
    int64_t i;
    double d;
    int index;

    switch (f->type) {
    case CFG_I64:
        memcpy(&i, at, sizeof i);
        snprintf(buf, size, "%" PRId64, i);
        break;
    case CFG_F64:
        memcpy(&d, at, sizeof d);
        print_real(buf, size, d);
        break;
    case CFG_STR: snprintf(buf, size, "%s", at); break;
    case CFG_BOOL: snprintf(buf, size, "%s", *(const bool *)at ? "true" : "false"); break;
    case CFG_CHOICE:
        memcpy(&index, at, sizeof index);
        while (index-- > 0)
            choice += strcspn(choice, "|") + 1;
        snprintf(buf, size, "%.*s", (int)strcspn(choice, "|"), choice);
        break;
    }
    return buf;
}

char *cfg_print(const struct cfg_field *table, const void *cfg)
{
    struct mem_text t = { 0 };
    char section[NAME] = "", value[VALUE];

    for (const struct cfg_field *f = table; f->name; f++) {
        size_t dot = strcspn(f->name, ".");

        if (strlen(section) != dot || memcmp(section, f->name, dot) != 0) {
            snprintf(section, sizeof section, "%.*s", (int)dot, f->name);
            mem_printf(&t, "%s[%s]\n", t.len ? "\n" : "", section);
        }
        mem_printf(&t, "%s = %s\n", f->name + dot + 1,
                   cfg_value(f, cfg, value, sizeof value));
    }
    if (t.failed) mem_text_free(&t);
    return t.at;
}

static void print_allowed(const struct cfg_field *f, char *buf, size_t size)
{
    if (f->choices)
        snprintf(buf, size, " (%s)", f->choices);
    else if (f->type == CFG_STR)
        buf[0] = '\0';
    else
        snprintf(buf, size, " (%g to %g)", f->min, f->max);
}

void cfg_help(const struct cfg_field *table, FILE *out)
{
    char allowed[128];

    for (const struct cfg_field *f = table; f->name; f++) {
        print_allowed(f, allowed, sizeof allowed);
        fprintf(out, "  %-22s %-10s %s%s\n", f->name,
                f->fallback[0] ? f->fallback : "\"\"", f->help, allowed);
    }
}

static int diff(const struct cfg_field *table, bool only_fixed, const void *a,
                const void *b, const char *name_a, const char *name_b, const char *why)
{
    char left[VALUE], right[VALUE];
    int differ = 0;

    for (const struct cfg_field *f = table; f->name; f++) {
        if (only_fixed && !f->fixed) continue;
        cfg_value(f, a, left, sizeof left);
        cfg_value(f, b, right, sizeof right);
        if (strcmp(left, right) == 0) continue;
        differ++;
        (void)KR_FAIL(KR_ERR_ARG, "%s: %s in %s, %s in %s; %s", f->name, left, name_a,
                      right, name_b, why);
    }
    return differ;
}

int cfg_diff(const struct cfg_field *table, const void *a, const void *b,
             const char *name_a, const char *name_b, const char *why)
{
    return diff(table, false, a, b, name_a, name_b, why);
}

int cfg_diff_fixed(const struct cfg_field *table, const void *a, const void *b,
                   const char *name_a, const char *name_b)
{
    return diff(table, true, a, b, name_a, name_b, "a resumed run must keep it");
}
