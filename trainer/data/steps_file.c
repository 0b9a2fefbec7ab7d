/* steps_file.c - "normalizer" and "pre_tokenizer" of tokenizer.json as rows of steps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "trainer/data/object.h"
#include "trainer/data/tokenizer_parts.h"

enum { DEEPEST = 8 /* sequences within sequences */ };

/* Patterns in wide use.  With these a newline between two characters that are no white
 * space ends a piece, whatever follows it. */
const char pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char digit_pattern[] = "\\p{N}", number_pattern[] = "\\p{N}+";
static const char *const line_patterns[] = {
    pattern_gpt2,
    digit_pattern,
    number_pattern,
    pattern_llama3,
    " ?[^(\\s|[.,!?…。，、।۔،])]+",
};

static bool keeps_lines(const char *pattern)
{
    size_t len = strlen(pattern);

    for (size_t i = 0; i < sizeof line_patterns / sizeof *line_patterns; i++)
        if (strlen(line_patterns[i]) == len &&
            memcmp(pattern, line_patterns[i], len) == 0)
            return true;
    return false;
}

static kr_status unknown(const struct tokenizer *t, const char *what, const char *kind)
{
    return tokenizer_refuse(t, "%s of type %s is not known here", what,
                            kind ? kind : "(none)");
}

/* ---- single steps ----------------------------------------------------------------------- */

static kr_status copy_text(char **out, const char *text)
{
    TRY(mem_alloc(out, strlen(text) + 1, 1, "step"));
    strcpy(*out, text);
    return KR_OK;
}

static kr_status add_split(struct tokenizer *t, const char *pattern, bool literal,
                           enum step_split how)
{
    struct step s = { .kind = STEP_SPLIT, .how = how };

    t->cuts_lines &= !literal && how == SPLIT_ISOLATED && keeps_lines(pattern);
    TRY(pattern_open(&s.pattern, pattern, literal));
    return steps_add(&t->splits, s);
}

static kr_status add_prepend(struct tokenizer *t, struct steps *to, const char *text,
                             bool once, bool start_only)
{
    struct step s = { .kind = STEP_PREPEND, .once = once, .start_only = start_only };

    t->cuts_lines = false;
    TRY(copy_text(&s.to, text));
    return steps_add(to, s);
}

static kr_status add_replace(struct tokenizer *t, struct steps *to, const char *from,
                             const char *by)
{
    struct step s = { .kind = STEP_REPLACE };

    t->cuts_lines = false;
    if (!from[0]) return tokenizer_refuse(t, "a Replace of nothing");
    TRY(copy_text(&s.from, from));
    if (copy_text(&s.to, by) == KR_OK) return steps_add(to, s);
    mem_free(s.from);
    return KR_ERR_MEM;
}

/* ---- normalizers ------------------------------------------------------------------------ */

static kr_status read_replace(struct tokenizer *t, struct steps *to, const cJSON *j)
{
    const char *from = object_text(object_member(j, "pattern"), "String");
    const char *by = object_text(j, "content");

    if (!from || !by)
        return tokenizer_refuse(t, "a Replace without a String and its content");
    return add_replace(t, to, from, by);
}

static kr_status read_normalizer(struct tokenizer *t, const cJSON *j, int depth)
{
    const char *type = object_text(j, "type"), *text = object_text(j, "prepend");
    const cJSON *part;

    if (!j) return KR_OK;
    if (type && strcmp(type, "Sequence") == 0 && depth < DEEPEST) {
        cJSON_ArrayForEach(part, object_member(j, "normalizers"))
            TRY(read_normalizer(t, part, depth + 1));
        return KR_OK;
    }
    if (type && strcmp(type, "Replace") == 0) return read_replace(t, &t->normalizer, j);
    if (type && strcmp(type, "Prepend") == 0 && text)
        return add_prepend(t, &t->normalizer, text, false, false);
    return unknown(t, "a normalizer", type);
}

/* ---- pre-tokenizers --------------------------------------------------------------------- */

static kr_status read_split(struct tokenizer *t, const cJSON *j)
{
    static const struct {
        const char *name;
        bool invert;
        enum step_split how;
    } hows[] = {
        { "Isolated", false, SPLIT_ISOLATED },
        { "Isolated", true, SPLIT_ISOLATED },
        { "Removed", false, SPLIT_REMOVED },
        { "Removed", true, SPLIT_KEPT },
        { "MergedWithPrevious", false, SPLIT_WITH_BEFORE },
        { "MergedWithNext", false, SPLIT_WITH_NEXT },
    };
    const cJSON *pattern = object_member(j, "pattern");
    const char *how = object_text(j, "behavior"), *regex = object_text(pattern, "Regex");
    const char *literal = object_text(pattern, "String");
    bool invert = object_true(j, "invert", false);

    if (!regex && !literal) return tokenizer_refuse(t, "a Split without a pattern");
    for (size_t i = 0; how && i < sizeof hows / sizeof *hows; i++)
        if (strcmp(hows[i].name, how) == 0 && hows[i].invert == invert)
            return add_split(t, regex ? regex : literal, !regex, hows[i].how);
    return tokenizer_refuse(t, "a Split whose behavior is %s%s", how ? how : "missing",
                            invert ? ", inverted" : "");
}

static kr_status read_byte_level(struct tokenizer *t, const cJSON *j)
{
    t->byte_level = true;
    if (object_true(j, "add_prefix_space", true))
        TRY(add_prepend(t, &t->splits, " ", true, false));
    if (!object_true(j, "use_regex", true)) return KR_OK;
    return add_split(t, pattern_gpt2, false, SPLIT_ISOLATED);
}

static kr_status read_digits(struct tokenizer *t, const cJSON *j)
{
    bool single = object_true(j, "individual_digits", false);

    return add_split(t, single ? digit_pattern : number_pattern, false, SPLIT_ISOLATED);
}

/* Spaces become a visible character, which then begins each piece. */
static kr_status read_metaspace(struct tokenizer *t, const cJSON *j)
{
    const char *mark = object_text(j, "replacement"),
               *when = object_text(j, "prepend_scheme");
    bool first, never;

    if (!mark || !mark[0]) mark = "\xe2\x96\x81";
    if (!when) when = object_true(j, "add_prefix_space", true) ? "always" : "never";
    first = strcmp(when, "first") == 0;
    never = strcmp(when, "never") == 0;
    if (!first && !never && strcmp(when, "always") != 0)
        return tokenizer_refuse(t, "a Metaspace whose prepend_scheme is %s", when);
    TRY(add_replace(t, &t->splits, " ", mark));
    if (!never) TRY(add_prepend(t, &t->splits, mark, true, first));
    if (!object_true(j, "split", true)) return KR_OK;
    return add_split(t, mark, true, SPLIT_WITH_NEXT);
}

static kr_status read_pre_tokenizer(struct tokenizer *t, const cJSON *j, int depth)
{
    static const struct {
        const char *type;
        kr_status (*read)(struct tokenizer *, const cJSON *);
    } types[] = { { "Split", read_split },
                  { "ByteLevel", read_byte_level },
                  { "Digits", read_digits },
                  { "Metaspace", read_metaspace } };
    const char *type = object_text(j, "type");
    const cJSON *part;

    if (!j) return KR_OK;
    if (t->byte_level) return tokenizer_refuse(t, "a pre_tokenizer behind ByteLevel");
    if (type && strcmp(type, "Sequence") == 0 && depth < DEEPEST) {
        cJSON_ArrayForEach(part, object_member(j, "pretokenizers"))
            TRY(read_pre_tokenizer(t, part, depth + 1));
        return KR_OK;
    }
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].type, type) == 0) return types[i].read(t, j);
    return unknown(t, "a pre_tokenizer", type);
}

kr_status steps_read(struct tokenizer *t, const cJSON *file)
{
    t->cuts_lines = true;
    TRY(read_normalizer(t, object_member(file, "normalizer"), 0));
    TRY(read_pre_tokenizer(t, object_member(file, "pre_tokenizer"), 0));
    t->cuts_lines &= t->byte_level && t->splits.count > 0;
    return KR_OK;
}
