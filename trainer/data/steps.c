/* steps.c - each step hands its pieces to the next; a text is copied only where it changes. */
#include "trainer/data/steps.h"

#include <string.h>

#include "base/utf8.h"

/* ---- the list --------------------------------------------------------------------------- */

static void step_free(struct step *s)
{
    mem_free(s->from);
    mem_free(s->to);
    pattern_close(s->pattern);
}

kr_status steps_add(struct steps *l, struct step s)
{
    kr_status st = mem_grow(&l->list, &l->room, l->count + 1, sizeof *l->list, "steps");

    if (st == KR_OK)
        l->list[l->count++] = s;
    else
        step_free(&s);
    return st;
}

void steps_free(struct steps *l)
{
    for (size_t i = 0; i < l->count; i++)
        step_free(&l->list[i]);
    mem_free(l->list);
    *l = (struct steps){ 0 };
}

void steps_work_free(struct steps_work *w)
{
    for (size_t i = 0; i < w->room; i++)
        mem_text_free(&w->texts[i]);
    mem_free(w->texts);
    pattern_work_free(&w->match);
    *w = (struct steps_work){ 0 };
}

/* ---- running ---------------------------------------------------------------------------- */

struct run {
    const struct steps *steps;
    struct steps_work *work;
    bool start;
    steps_fn emit;
    void *arg;
};

static kr_status run_from(const struct run *r, size_t step, const char *text, size_t len);

static kr_status changed(const struct run *r, size_t step, const struct mem_text *t)
{
    if (t->failed) return KR_FAIL(KR_ERR_MEM, "no memory for a text");
    return run_from(r, step + 1, t->at, t->len);
}

static struct mem_text *scratch(const struct run *r, size_t step)
{
    struct mem_text *t = &r->work->texts[step];

    t->len = 0;
    return t;
}

static kr_status prepend(const struct run *r, size_t step, const char *text, size_t len)
{
    const struct step *s = &r->steps->list[step];
    size_t n = strlen(s->to);
    struct mem_text *t;

    if ((s->start_only && !r->start) ||
        (s->once && len >= n && memcmp(text, s->to, n) == 0))
        return run_from(r, step + 1, text, len);
    t = scratch(r, step);
    mem_append(t, s->to, n);
    mem_append(t, text, len);
    return changed(r, step, t);
}

static kr_status replace(const struct run *r, size_t step, const char *text, size_t len)
{
    const struct step *s = &r->steps->list[step];
    struct mem_text *t = scratch(r, step);
    size_t from = strlen(s->from), to = strlen(s->to);
    const char *end = text + len, *hit;

    while ((hit = memmem(text, (size_t)(end - text), s->from, from))) {
        mem_append(t, text, (size_t)(hit - text));
        mem_append(t, s->to, to);
        text = hit + from;
    }
    mem_append(t, text, (size_t)(end - text));
    return changed(r, step, t);
}

/* A gap, then a match; either may be empty. */
static kr_status give(const struct run *r, size_t step, const char *gap, size_t gap_len,
                      size_t match_len)
{
    enum step_split how = r->steps->list[step].how;

    if (how == SPLIT_WITH_BEFORE) return run_from(r, step + 1, gap, gap_len + match_len);
    if (how != SPLIT_KEPT) TRY(run_from(r, step + 1, gap, gap_len));
    if (how == SPLIT_REMOVED) return KR_OK;
    return run_from(r, step + 1, gap + gap_len, match_len);
}

/* As SPLIT_WITH_BEFORE, but a match belongs to what follows: cut before each. */
static kr_status split_before(const struct run *r, size_t step, const char *text,
                              size_t len)
{
    size_t begin, end, from = 0, look = 0;
    bool found = true;

    while (found) {
        TRY(pattern_find(r->steps->list[step].pattern, &r->work->match, text, len, look,
                         &found, &begin, &end));
        if (!found) break;
        TRY(run_from(r, step + 1, text + from, begin - from));
        from = begin;
        look = end;
    }
    return run_from(r, step + 1, text + from, len - from);
}

/* Text that is well-formed. */
static kr_status split_valid(const struct run *r, size_t step, const char *text,
                             size_t len)
{
    const struct step *s = &r->steps->list[step];
    size_t begin, end, from = 0;
    bool found;

    if (s->how == SPLIT_WITH_NEXT) return split_before(r, step, text, len);
    while (from < len) {
        TRY(pattern_find(s->pattern, &r->work->match, text, len, from, &found, &begin,
                         &end));
        if (!found || begin < from) return give(r, step, text + from, len - from, 0);
        TRY(give(r, step, text + from, begin - from, end - begin));
        from = end;
    }
    return KR_OK;
}

static size_t valid_len(const char *text, size_t len)
{
    size_t i = 0;
    uint32_t code;
    int n = 1;

    while (i < len && n) {
        n = utf8_get(text + i, len - i, &code);
        i += (size_t)n;
    }
    return i;
}

/* Well-formed parts and single malformed bytes. */
static kr_status split(const struct run *r, size_t step, const char *text, size_t len)
{
    size_t from = 0;

    while (from < len) {
        size_t n = valid_len(text + from, len - from);

        TRY(split_valid(r, step, text + from, n));
        from += n;
        if (from < len) TRY(run_from(r, step + 1, text + from++, 1));
    }
    return KR_OK;
}

static kr_status run_from(const struct run *r, size_t step, const char *text, size_t len)
{
    static kr_status (*const kinds[])(const struct run *, size_t, const char *,
                                      size_t) = { prepend, replace, split };

    if (len == 0) return KR_OK;
    if (step == r->steps->count) return r->emit(r->arg, text, len);
    return kinds[r->steps->list[step].kind](r, step, text, len);
}

kr_status steps_run(const struct steps *l, struct steps_work *w, const char *text,
                    size_t len, bool start, steps_fn emit, void *arg)
{
    struct run r = { l, w, start, emit, arg };

    TRY(mem_grow(&w->texts, &w->room, l->count, sizeof *w->texts, "scratch texts"));
    return run_from(&r, 0, text, len);
}
