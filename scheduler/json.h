/*
 * json.h - writes JSON objects of one line into a text that grows.
 *
 *   json_open(&t, NULL);  json_text(&t, "node", name);  json_close(&t, '}');
 *
 * Commas are put by themselves.  One check of mem_text's `failed` at the end is enough.
 */
#ifndef SCHED_JSON_H
#define SCHED_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

/* A member of the object that is open, or an element of the array: then key is NULL. */
void json_open(struct mem_text *t, const char *key);       /* { */
void json_open_array(struct mem_text *t, const char *key); /* [ */
void json_close(struct mem_text *t, char bracket);         /* '}' or ']' */
void json_text(struct mem_text *t, const char *key, const char *value);
void json_int(struct mem_text *t, const char *key, int64_t value);
void json_bool(struct mem_text *t, const char *key, bool value);
/* Six digits; null for what is no finite number, as JSON has none. */
void json_real(struct mem_text *t, const char *key, double value);

#endif
