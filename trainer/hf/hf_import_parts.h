/*
 * hf_import_parts.h - what hf_import.c (models) and hf_import_adapter.c (adapters) share.
 * For them only.
 */
#ifndef TRAIN_HF_IMPORT_PARTS_H
#define TRAIN_HF_IMPORT_PARTS_H

#include "base/options.h"
#include "checkpoints/st_folder.h"
#include "trainer/hf/hf_output.h"
#include "trainer/hf/hf_plan.h"

struct import_args {
    char output[FS_PATH], base[SETTINGS_TEXT];
    int64_t context;
    double rope_theta;
    int nonfinite;
};

struct import {
    const char *from;
    const struct import_args *args;
    const struct options *options;
    struct settings set;
    struct model_shape shape;
    struct params params;
    struct st_folder stored;
    struct hf_plan plan;
    bool adapter; /* it is one of PEFT's, not a model */
    bool prefix;  /* names have it */
    struct hf_output out;
    float *whole, *piece; /* one parameter; part of a stored tensor */
};

/* The table's ranges hold for these settings too. */
kr_status import_check_ranges(const struct import *m);

/* What a model that is trained further starts with. */
void import_set_training(struct settings *s);

/* Of an adapter: settings and parameters; the file and where its tensors go; what lies beside
 * the checkpoint; a line on standard output. */
kr_status import_adapter_settings(struct import *m);
kr_status import_adapter_plan(struct import *m);
kr_status import_adapter_rest(const struct import *m);
void import_adapter_print(const struct import *m);

#endif
