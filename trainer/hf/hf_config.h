/*
 * hf_config.h - config.json to settings and back.
 *
 * What changes the model and is not known here is refused by name; what only concerns
 * training there (dropout, initialisation) is ignored.
 */
#ifndef TRAIN_HF_CONFIG_H
#define TRAIN_HF_CONFIG_H

#include "trainer/run/settings.h"

/* Fill the model.* settings of *set from FOLDER/config.json.  KR_ERR_ARG with one line. */
kr_status hf_config_read(const char *folder, struct settings *set);

/* The text of a config.json for these settings, whose weights are stored as `dtype`
 * ("float32", "bfloat16", "float16"); the caller frees it. */
kr_status hf_config_print(const struct settings *set, const char *dtype, char **text);

/* The text of FOLDER/config.json, byte for byte, but for its dtype if that differs; the
 * caller frees it. */
kr_status hf_config_copy(const char *folder, const char *dtype, char **text);

#endif
