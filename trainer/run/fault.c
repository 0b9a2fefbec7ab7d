/* fault.c - one fault, read once. */
#include "trainer/run/fault.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const struct {
    const char *name;
    enum fault_kind kind;
} kinds[] = { { "flip", FAULT_FLIP }, { "nan", FAULT_NAN }, { "spike", FAULT_SPIKE } };

kr_status fault_read(struct numeric_fault *out)
{
    const char *text = getenv("KILORANK_NUMERIC_FAULT");
    struct numeric_fault f = { 0 };
    char name[8];
    int got;

    *out = f;
    if (!text || !*text) return KR_OK;
    got = sscanf(text, "%7[a-z]:%" SCNd64 ":%d:%d", name, &f.step, &f.rank, &f.argument);
    for (size_t i = 0; got >= 3 && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(name, kinds[i].name) == 0) f.kind = kinds[i].kind;
    if (f.kind == FAULT_NONE_AT_ALL || f.argument < 0 || f.argument > 63)
        return KR_FAIL(KR_ERR_ARG,
                       "KILORANK_NUMERIC_FAULT = %s: want flip:STEP:RANK:BIT, "
                       "nan:STEP:RANK or spike:STEP:RANK",
                       text);
    *out = f;
    return KR_OK;
}

/* It strikes here and now. */
static bool strikes(struct numeric_fault *f, int64_t step, int32_t rank)
{
    if (f->kind == FAULT_NONE_AT_ALL || f->spent || f->step != step || f->rank != rank)
        return false;
    f->spent = f->kind == FAULT_FLIP || f->argument == 0;
    LOG_WARNING("fault: %s in step %" PRId64, kinds[f->kind - 1].name, step);
    return true;
}

double fault_loss(struct numeric_fault *f, int64_t step, int32_t rank, double loss)
{
    if (f->kind == FAULT_FLIP || !strikes(f, step, rank)) return loss;
    return f->kind == FAULT_NAN ? NAN : 100 * loss;
}

int fault_flip(struct numeric_fault *f, int64_t step, int32_t rank)
{
    return f->kind == FAULT_FLIP && strikes(f, step, rank) ? f->argument : -1;
}
