/* chaos_record.c - one pass over the lines of each file. */
#include "scheduler/chaos_record.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static double number(const cJSON *j, const char *key, double fallback)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, key);

    return cJSON_IsNumber(n) ? n->valuedouble : fallback;
}

/* The next whole line as an object, NULL for one that is none; *at moves on, to NULL at
 * the end. */
static cJSON *next_line(const char **at)
{
    const char *end = strchr(*at, '\n');
    cJSON *j = end ? cJSON_ParseWithLength(*at, (size_t)(end - *at)) : NULL;

    *at = end ? end + 1 : NULL;
    return j;
}

static bool is_event(const cJSON *j, const char *event)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "event"));

    return s && strcmp(s, event) == 0;
}

bool chaos_event(const char *journal, const char *event, double after, double *time)
{
    for (const char *at = journal; at;) {
        cJSON *j = next_line(&at);
        double when = number(j, "time", -1);
        bool found = is_event(j, event) && when > after;

        cJSON_Delete(j);
        if (!found) continue;
        *time = when;
        return true;
    }
    return false;
}

/* ---- steps -------------------------------------------------------------------------- */

enum { STEPS_MAX = 1 << 26 };

struct sums {
    double *seconds; /* by step, of its last doing */
    int64_t room;
    double first, last; /* start of the first line's step, end of the last's */
    struct chaos_steps out;
};

static kr_status make_room(struct sums *s, int64_t step)
{
    int64_t room = s->room > 0 ? s->room : 1024;
    double *more = NULL;

    while (room <= step)
        room *= 2;
    if (room == s->room) return KR_OK;
    TRY(mem_alloc(&more, (size_t)room, sizeof *more, "step times"));
    if (s->room > 0) memcpy(more, s->seconds, (size_t)s->room * sizeof *more);
    mem_free(s->seconds);
    s->seconds = more;
    s->room = room;
    return KR_OK;
}

static kr_status add_step(struct sums *s, int64_t step, double seconds, double time)
{
    TRY(make_room(s, step));
    if (s->out.last == 0) s->first = time - seconds;
    if (s->seconds[step] > 0) s->out.again++;
    s->seconds[step] = seconds;
    if (step > s->out.last) s->out.last = step;
    s->last = time;
    return KR_OK;
}

kr_status chaos_steps(const char *log, struct chaos_steps *out)
{
    struct sums s = { 0 };
    kr_status st = KR_OK;

    for (const char *at = log; at && st == KR_OK;) {
        cJSON *j = next_line(&at);
        double step = number(j, "step", 0), ms = number(j, "step_ms", 0);

        if (step >= 1 && step < STEPS_MAX && ms > 0)
            st = add_step(&s, (int64_t)step, ms / 1e3, number(j, "time", 0));
        cJSON_Delete(j);
    }
    for (int64_t i = 0; i < s.room; i++)
        s.out.useful += s.seconds[i];
    s.out.elapsed = s.last - s.first;
    mem_free(s.seconds);
    if (st == KR_OK) *out = s.out;
    return st;
}

/* ---- spread ------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct chaos_spread chaos_spread(double *values, int32_t n)
{
    qsort(values, (size_t)n, sizeof *values, by_size);
    return (struct chaos_spread){ values[0], values[(n - 1) / 2], values[n - 1] };
}
