/* json.c - a comma goes before whatever does not follow an opening bracket. */
#include "scheduler/json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/utf8.h"

static void quote(struct mem_text *t, const char *text)
{
    mem_append(t, "\"", 1);
    utf8_json(t, text, strlen(text));
    mem_append(t, "\"", 1);
}

static void start(struct mem_text *t, const char *key)
{
    char last = t->len > 0 ? t->at[t->len - 1] : '{';

    if (last != '{' && last != '[') mem_append(t, ", ", 2);
    if (!key) return;
    quote(t, key);
    mem_append(t, ": ", 2);
}

void json_open(struct mem_text *t, const char *key)
{
    start(t, key);
    mem_append(t, "{", 1);
}

void json_open_array(struct mem_text *t, const char *key)
{
    start(t, key);
    mem_append(t, "[", 1);
}

void json_close(struct mem_text *t, char bracket) { mem_append(t, &bracket, 1); }

void json_text(struct mem_text *t, const char *key, const char *value)
{
    start(t, key);
    quote(t, value);
}

void json_int(struct mem_text *t, const char *key, int64_t value)
{
    start(t, key);
    mem_printf(t, "%" PRId64, value);
}

void json_bool(struct mem_text *t, const char *key, bool value)
{
    start(t, key);
    mem_printf(t, value ? "true" : "false");
}

void json_real(struct mem_text *t, const char *key, double value)
{
    start(t, key);
    if (isfinite(value))
        mem_printf(t, "%.6g", value);
    else
        mem_printf(t, "null");
}
