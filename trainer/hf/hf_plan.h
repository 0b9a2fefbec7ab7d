/*
 * hf_plan.h - a model's tensors as Hugging Face stores them, and where each element of
 * them lies in our parameters.
 */
#ifndef TRAIN_HF_PLAN_H
#define TRAIN_HF_PLAN_H

#include "base/words.h"
#include "checkpoints/safetensors.h"
#include "trainer/hf/hf_family.h"
#include "trainer/model/params.h"

/* A stored tensor.  Lines: rows of a matrix, elements of a norm or bias. */
struct hf_entry {
    char name[ST_NAME];
    const struct hf_tensor *row; /* of the family's table */
    int32_t param,
        next; /* next: another entry of this parameter; -1: none, as in first */
    int64_t first, lines, width; /* lines first .. first + lines of the parameter */
    int64_t heads, head_dim;     /* for HF_BY_HEAD */
    int dims;
    int64_t shape[2];
    bool copy; /* of embed.token, in a tied model: may be missing */
};

struct hf_plan {
    struct hf_entry *list;
    int32_t count;
    struct words names; /* of the list, in its order */
    int32_t *first;     /* of each parameter; its copies come last */
};

/* Everything that the model has, in the order of the table, block after block; names with
 * the family's prefix or without.  Free with hf_plan_free. */
kr_status hf_plan_build(struct hf_plan *out, int family, const struct params *params,
                        const struct model_shape *shape, bool prefix);
void hf_plan_free(struct hf_plan *p);

/* Ends the making of a list: sets names, first and next. */
kr_status hf_plan_index(struct hf_plan *p, const struct params *params);

/* NULL: there is none of this name. */
const struct hf_entry *hf_plan_find(const struct hf_plan *p, const char *name);

int64_t hf_entry_elements(const struct hf_entry *e);

/* Stored elements from `at` on, as many as lie `stride` apart in ours, at most `most`:
 * stored at + i is element base + i * stride of the entry's lines in ours. */
struct hf_run {
    int64_t base, stride, count;
};
struct hf_run hf_entry_run(const struct hf_entry *e, int64_t at, int64_t most);

#endif
