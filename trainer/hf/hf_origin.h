/*
 * hf_origin.h - what an imported run remembers of where it came from: RUN/hf.
 *
 *   config.json       as it was
 *   tokenizer files   and the other small files, as they were
 *   tensors.tsv       a line for each stored tensor: dtype, tab, name
 *
 * So an export writes the same names and types, and the folder is complete.
 */
#ifndef TRAIN_HF_ORIGIN_H
#define TRAIN_HF_ORIGIN_H

#include "checkpoints/st_folder.h"
#include "trainer/hf/hf_plan.h"

/* Write it to `folder`, which is made, about tensors of *plan that lie in *stored. */
kr_status hf_origin_save(const char *folder, const char *from, const struct hf_plan *plan,
                         const struct st_folder *stored);

/* Copy the small files of an origin, or of a model's folder, but for config.json. */
kr_status hf_origin_carry(const char *from, const char *to);

struct hf_kept {
    char name[ST_NAME];
    int type; /* enum st_type */
};

struct hf_origin {
    struct hf_kept *list; /* by name */
    int32_t count;
};

/* KR_ERR_DATA: tensors.tsv is not what hf_origin_save wrote. */
kr_status hf_origin_open(struct hf_origin *out, const char *folder);
void hf_origin_close(struct hf_origin *o);

/* The type of a tensor, -1 if there was none of this name. */
int hf_origin_type(const struct hf_origin *o, const char *name);

#endif
