/*
 * hf_adapter.h - adapters as PEFT stores them: a folder of adapter_config.json and
 * adapter_model.safetensors.
 *
 *   base_model.model.MODULE.lora_A.weight (r, in)    base_model.model.MODULE.lora_B.weight (out, r)
 *
 * MODULE is the name of the adapted matrix in the family's table, so nothing here is known
 * of a family.  B has the rows of that matrix in their order; A and B are never transposed.
 */
#ifndef TRAIN_HF_ADAPTER_H
#define TRAIN_HF_ADAPTER_H

#include "trainer/hf/hf_plan.h"

#define HF_ADAPTER_CONFIG "adapter_config.json"
#define HF_ADAPTER_MODEL  "adapter_model.safetensors"

/* Is it such a folder? */
bool hf_is_adapter(const char *folder);

/* The site that a row of the family's table is, -1: it is no matrix of a block. */
int hf_adapter_site(int family, const struct hf_tensor *row);

/* All tensors of the adapters of a model.  Free with hf_plan_free. */
kr_status hf_adapter_plan(struct hf_plan *out, int family, const struct params *params,
                          const struct model_shape *shape);

/* Sites whose tensors are in a header, found by those of the first block.  KR_ERR_DATA with
 * one line that begins with `source`: there are none. */
kr_status hf_adapter_sites(unsigned *out, int family, const struct st_header *h,
                           const char *source);

/* What adapter_config.json says. */
struct hf_adapter {
    int64_t rank;
    double alpha;
    unsigned sites; /* that target_modules names; 0: it is no list, the tensors tell */
};

/* KR_ERR_ARG with one line that names the file: what it asks for is not known here. */
kr_status hf_adapter_read(struct hf_adapter *out, const char *folder, int family);

/* The text of one, for a model in `base`; the caller frees it. */
kr_status hf_adapter_print(int family, const struct lora *lora, const char *base,
                           char **text);

#endif
