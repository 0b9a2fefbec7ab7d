/* pattern.c - translation, compilation, matching; the only file that includes PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "trainer/data/pattern.h"

#include <pcre2.h>
#include <string.h>

enum { STACK_LEAST = 32 << 10, STACK_MOST = 1 << 20 };

struct pattern {
    pcre2_code *code;
};

/* ---- translation ------------------------------------------------------------------------ */

static const char white_space[] =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"
    "\\x{202f}\\x{205f}\\x{3000}";

static kr_status refuse(const char *text, const char *what)
{
    return KR_FAIL(KR_ERR_ARG, "pattern %.200s: %s", text, what);
}

/* \x at p; depth: sets it lies in. */
static kr_status put_escape(struct mem_text *out, const char *p, int depth,
                            const char *text)
{
    if (p[1] == '\0') return refuse(text, "ends with a backslash");
    if (strchr("hHOyY", p[1]))
        return refuse(text, "\\h, \\H, \\O, \\y and \\Y are not known here");
    if (p[1] == 's')
        mem_printf(out, depth ? "%s" : "[%s]", white_space);
    else if (p[1] == 'S' && !depth)
        mem_printf(out, "[^%s]", white_space);
    else
        mem_append(out, p, 2);
    return KR_OK;
}

static kr_status put_bracket(struct mem_text *out, const char **p, int *depth,
                             const char *text)
{
    if (**p == ']') {
        if (*depth <= 1) mem_append(out, "]", 1);
        *depth -= *depth > 0;
    } else if (*depth == 0) {
        size_t n = (*p)[1] == '^' ? 2 : 1;

        mem_append(out, *p, n);
        *p += n - 1;
        *depth = 1;
    } else {
        if ((*p)[1] == '^' || (*p)[1] == ':')
            return refuse(text, "a negated or named set within a set is not known here");
        ++*depth;
    }
    return KR_OK;
}

static kr_status translate(struct mem_text *out, const char *text)
{
    int depth = 0;

    for (const char *p = text; *p; p++) {
        if (depth && p[0] == '&' && p[1] == '&')
            return refuse(text, "sets that meet (&&) are not known here");
        if (*p == '\\') {
            TRY(put_escape(out, p, depth, text));
            p++;
        } else if (*p == '[' || *p == ']') {
            TRY(put_bracket(out, &p, &depth, text));
        } else {
            mem_append(out, p, 1);
        }
    }
    return out->failed ? KR_FAIL(KR_ERR_MEM, "no memory for a pattern") : KR_OK;
}

/* ---- life ------------------------------------------------------------------------------- */

static kr_status compile(struct pattern *p, const char *text, const char *translated,
                         uint32_t options)
{
    unsigned char why[160] = "";
    PCRE2_SIZE at;
    int error;

    p->code = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED, options,
                            &error, &at, NULL);
    if (p->code) {
        (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* else interpreted */
        return KR_OK;
    }
    pcre2_get_error_message(error, why, sizeof why);
    return refuse(text, (const char *)why);
}

kr_status pattern_open(struct pattern **out, const char *text, bool literal)
{
    uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP;
    struct mem_text translated = { 0 };
    struct pattern *p = NULL;
    kr_status st = KR_OK;

    if (text[0] == '\0') return refuse(text, "is empty");
    if (literal)
        mem_printf(&translated, "%s", text);
    else
        st = translate(&translated, text);
    if (st == KR_OK) st = mem_alloc(&p, 1, sizeof *p, "pattern");
    if (st == KR_OK) st = compile(p, text, translated.at, options);
    mem_text_free(&translated);
    if (st == KR_OK)
        *out = p;
    else
        pattern_close(p);
    return st;
}

void pattern_close(struct pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    mem_free(p);
}

static kr_status work_open(struct pattern_work *w)
{
    if (w->match) return KR_OK;
    w->match = pcre2_match_data_create(1, NULL);
    w->stack = pcre2_jit_stack_create(STACK_LEAST, STACK_MOST, NULL);
    w->context = pcre2_match_context_create(NULL);
    if (!w->match || !w->context) {
        pattern_work_free(w);
        return KR_FAIL(KR_ERR_MEM, "no memory to match a pattern");
    }
    if (w->stack) pcre2_jit_stack_assign(w->context, NULL, w->stack);
    return KR_OK;
}

void pattern_work_free(struct pattern_work *w)
{
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    pcre2_match_data_free(w->match);
    *w = (struct pattern_work){ 0 };
}

kr_status pattern_find(const struct pattern *p, struct pattern_work *w, const char *text,
                       size_t len, size_t from, bool *found, size_t *begin, size_t *end)
{
    const PCRE2_SIZE *at;
    int got;

    TRY(work_open(w));
    got = pcre2_match(p->code, (PCRE2_SPTR)text, len, from,
                      PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, w->match, w->context);
    *found = got >= 0;
    if (got == PCRE2_ERROR_NOMATCH) return KR_OK;
    if (got < 0)
        return KR_FAIL(KR_ERR_DATA,
                       "a tokenizer's pattern cannot be matched here (error %d)", got);
    at = pcre2_get_ovector_pointer(w->match);
    if (at[0] > at[1]) return KR_FAIL(KR_ERR_DATA, "a pattern that matches backwards");
    *begin = at[0];
    *end = at[1];
    return KR_OK;
}
