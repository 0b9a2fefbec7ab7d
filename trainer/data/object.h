/*
 * object.h - members of JSON objects, over cJSON.
 *
 * cJSON's own lookup ignores case and walks the list; objects with many members (a
 * vocabulary) are walked once instead, with cJSON_ArrayForEach.
 */
#ifndef TRAIN_OBJECT_H
#define TRAIN_OBJECT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Parse a file of up to most_bytes.  KR_ERR_ARG with one line: no JSON, or a string in it
 * holds NUL, where cJSON would end it. */
kr_status object_read(cJSON **out, const char *path, size_t most_bytes);

/* Parse a text of `bytes` bytes that lies in memory; NULL: it is no JSON object by itself, or
 * a string in it holds NUL. */
cJSON *object_parse(const char *text, size_t bytes);

/* A member; NULL if it is not there or null. */
const cJSON *object_member(const cJSON *object, const char *name);

/* A text; NULL if it is not there or no text. */
const char *object_text(const cJSON *object, const char *name);

bool object_true(const cJSON *object, const char *name, bool otherwise);

/* A whole number of at least 0; -1: it is not there or none. */
int64_t object_count(const cJSON *object, const char *name);
int64_t object_count_of(const cJSON *number);

#endif
