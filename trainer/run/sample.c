/* sample.c - sort, cut, pick. */
#include "trainer/run/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

struct choice {
    double p;
    int32_t id;
};

static int likelier_first(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;

    if (x->p != y->p) return x->p > y->p ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int64_t likeliest(const double *x, int64_t n)
{
    int64_t best = 0;

    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* How many of the sorted choices stay, and their total. */
static int64_t cut(const struct choice *c, int64_t n, const struct sample_how *how,
                   double *total)
{
    int64_t most = how->top_k > 0 && how->top_k < n ? how->top_k : n, kept = 0;
    double all = 0, sum = 0;

    for (int64_t i = 0; i < most; i++)
        all += c[i].p;
    while (kept < most && (kept == 0 || sum < how->top_p * all))
        sum += c[kept++].p;
    *total = sum;
    return kept;
}

kr_status sample_token(double *logits, int64_t n, const struct sample_how *how, double u,
                       int32_t *out)
{
    int64_t top = likeliest(logits, n), kept, i = 0;
    double most = logits[top], total, sum = 0;
    struct choice *c = NULL;

    for (int64_t k = 0; k < n; k++)
        if (!isfinite(logits[k]))
            return KR_FAIL(KR_ERR_NUMERIC, "the model's logits are not finite");
    if (how->temperature <= 0) {
        *out = (int32_t)top;
        return KR_OK;
    }
    TRY(mem_alloc(&c, (size_t)n, sizeof *c, "choices"));
    for (int64_t k = 0; k < n; k++)
        c[k] = (struct choice){ exp((logits[k] - most) / how->temperature), (int32_t)k };
    qsort(c, (size_t)n, sizeof *c, likelier_first);
    kept = cut(c, n, how, &total);
    for (; i < kept - 1; i++)
        if ((sum += c[i].p) > u * total) break;
    *out = c[i].id;
    mem_free(c);
    return KR_OK;
}
