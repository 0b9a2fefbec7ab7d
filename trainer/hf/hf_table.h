/*
 * hf_table.h - what an import read, for people.
 */
#ifndef TRAIN_HF_TABLE_H
#define TRAIN_HF_TABLE_H

#include "checkpoints/st_folder.h"
#include "trainer/hf/hf_plan.h"

enum { HF_SHAPE_TEXT = 48 };

/* "768 x 2304", "768"; returns out. */
const char *hf_shape_text(const struct hf_entry *e, char out[HF_SHAPE_TEXT]);

/* To standard output: stored name, how many, our name, shape, dtype, layout. */
void hf_table_print(const struct hf_plan *plan, const struct st_folder *stored,
                    const char *prefix);

#endif
