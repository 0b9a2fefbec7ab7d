/* chaos_fault.c - the table, and a look into the supervisor's status. */
#include "scheduler/chaos_fault.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *line, *meaning;
} faults[] = {
#define X(name, text, line, meaning) { text, line, meaning },
    CHAOS_FAULT_MAP(X)
#undef X
};

const char *chaos_fault_name(enum chaos_fault f) { return faults[f].name; }
const char *chaos_fault_meaning(enum chaos_fault f) { return faults[f].meaning; }

kr_status chaos_fault_parse(const char *list, uint32_t *out)
{
    uint32_t bits = 0;

    for (const char *at = list; *at;) {
        size_t len = strcspn(at, ","), f = 0;

        while (f < CHAOS_FAULTS &&
               (strlen(faults[f].name) != len || strncmp(faults[f].name, at, len) != 0))
            f++;
        if (f == CHAOS_FAULTS)
            return KR_FAIL(KR_ERR_ARG, "--faults: no fault is called \"%.*s\"", (int)len,
                           at);
        bits |= 1u << f;
        at += len + (at[len] == ',');
    }
    if (!bits) return KR_FAIL(KR_ERR_ARG, "--faults: the list is empty");
    *out = bits;
    return KR_OK;
}

/* ---- targets ------------------------------------------------------------------------ */

static const char *text(const cJSON *j, const char *key)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

    return s ? s : "";
}

static int64_t number(const cJSON *j, const char *key)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, key);

    return cJSON_IsNumber(n) && n->valuedouble > 0 && n->valuedouble < 0x1p53
               ? (int64_t)n->valuedouble
               : 0;
}

static int64_t agent_of(const cJSON *status, const char *node)
{
    const cJSON *n;

    cJSON_ArrayForEach(n, cJSON_GetObjectItemCaseSensitive(status, "nodes"))
    {
        if (strcmp(text(n, "name"), node) == 0) return number(n, "agent_pid");
    }
    return 0;
}

static bool pick(const cJSON *status, uint64_t random, struct chaos_target *out)
{
    const cJSON *ranks = cJSON_GetObjectItemCaseSensitive(status, "ranks_now"), *rank;
    int count = cJSON_GetArraySize(ranks);

    if (strcmp(text(status, "state"), "running") != 0 || count == 0) return false;
    rank = cJSON_GetArrayItem(ranks, (int)(random % (uint64_t)count));
    out->pid = number(rank, "pid");
    out->step = number(status, "step");
    snprintf(out->node, sizeof out->node, "%s", text(rank, "node"));
    out->agent_pid = agent_of(status, out->node);
    return out->pid > 0 && out->step > 0 && out->node[0];
}

bool chaos_fault_target(const char *status, uint64_t random, struct chaos_target *out)
{
    struct chaos_target t = { 0 };
    cJSON *j = cJSON_Parse(status);
    bool found = pick(j, random, &t);

    cJSON_Delete(j);
    if (found) *out = t;
    return found;
}

bool chaos_fault_line(enum chaos_fault f, const struct chaos_target *t,
                      char out[CHAOS_LINE])
{
    const char *line = faults[f].line;

    if (!line || (f == CHAOS_AGENT && t->agent_pid == 0)) return false;
    snprintf(out, CHAOS_LINE, "p=%" PRId64 " a=%" PRId64 "; %s", t->pid, t->agent_pid,
             line);
    return true;
}
