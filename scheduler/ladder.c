/* ladder.c - the first rung that holds. */
#include "scheduler/ladder.h"

#include <stdarg.h>
#include <stdio.h>

#include "scheduler/exitcode.h"

const char *ladder_rung_text(enum ladder_rung rung)
{
    static const char *const texts[] = {
#define X(name, text) text,
        LADDER_RUNG_MAP(X)
#undef X
    };

    return texts[rung];
}

static const struct {
    int32_t code;
    enum exit_retry retry;
    const char *text;
} codes[] = {
#define X(name, code, retry, text) { code, retry, text },
    EXIT_CODE_MAP(X)
#undef X
};
enum { CODES = sizeof codes / sizeof *codes };

bool ladder_is_final(int32_t exit_code)
{
    for (int i = 0; i < CODES; i++)
        if (codes[i].code == exit_code) return codes[i].retry == EXIT_RETRY_NO;
    return false;
}

const char *ladder_code_text(int32_t exit_code)
{
    for (int i = 0; i < CODES; i++)
        if (codes[i].code == exit_code) return codes[i].text;
    return "";
}

__attribute__((format(printf, 4, 5))) static void
move(struct ladder_move *out, enum ladder_rung rung, int32_t code, const char *fmt, ...)
{
    va_list ap;

    *out = (struct ladder_move){ .rung = rung, .exit_code = code };
    va_start(ap, fmt);
    vsnprintf(out->why, sizeof out->why, fmt, ap);
    va_end(ap);
}

/* None before the first new attempt, then 1, 2, 4 ... at most 30 s, up to half as much
 * again by chance, so that many runs on one file system do not come all at once. */
static double back_off(const struct ladder_view *v)
{
    double seconds = 0.5;

    if (v->attempts < 2) return 0;
    for (int32_t i = 1; i < v->attempts && seconds < 30; i++)
        seconds *= 2;
    if (seconds > 30) seconds = 30;
    return seconds * (1 + (double)(v->jitter % 1024) / 2048);
}

/* The allocation or the nodes are of no use any more. */
static void give_up(const struct ladder_view *v, struct ladder_move *out)
{
    if (v->may_requeue)
        move(out, LADDER_REQUEUE, EXIT_REQUEUE,
             "%d ranks have a place, %d are needed: asks for new nodes", v->slots_up,
             v->ranks_min);
    else
        move(out, LADDER_END, EXIT_NO_NODES, "%d ranks have a place, %d are needed",
             v->slots_up, v->ranks_min);
}

void ladder_next(const struct ladder_view *v, struct ladder_move *out)
{
    int32_t fit = v->slots_up < v->ranks_wanted ? v->slots_up : v->ranks_wanted;
    /* a run that had all its ranks waits for nobody; one that has not begun does */
    bool can_wait = v->waited < v->wait_max;

    if (ladder_is_final(v->exit_code))
        move(out, LADDER_END, v->exit_code, "starting again is of no use: %s",
             ladder_code_text(v->exit_code));
    else if (!v->node_lost && v->attempts >= v->attempts_max)
        move(out, LADDER_END, EXIT_CRASH_LOOP, "%d attempts brought no new step",
             v->attempts);
    else if (fit >= v->ranks_min && v->ranks == 0)
        move(out, LADDER_FIRST, 0, "%d of %d ranks have a place", fit, v->ranks_wanted);
    else if (fit >= v->ranks_min && v->missing == 0)
        move(out, LADDER_AGAIN, 0, "all nodes are there");
    else if (fit >= v->ranks_min && v->missing <= v->spares)
        move(out, LADDER_SPARE, 0, "%d of %d spare nodes for %d that %s lost", v->missing,
             v->spares, v->missing, v->missing == 1 ? "is" : "are");
    else if (fit >= v->ranks_min)
        move(out, LADDER_FEWER, 0, "no spare node is left: %d ranks instead of %d", fit,
             v->ranks);
    else if (can_wait)
        move(out, LADDER_WAIT, 0, "%d ranks have a place, %d are needed: waits for nodes",
             v->slots_up, v->ranks_min);
    else
        give_up(v, out);
    if (out->rung == LADDER_WAIT)
        out->seconds = v->wait_max - v->waited;
    else if (out->rung < LADDER_WAIT)
        out->seconds = back_off(v);
}
