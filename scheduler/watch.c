/* watch.c - the newest state of every rank, and the limits on it. */
#include "scheduler/watch.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "scheduler/pulse.h"

const char *watch_kind_text(enum watch_kind kind)
{
    static const char *const texts[] = { "fine", "rank died", "node silent", "hang",
                                         "slow rank" };

    return texts[kind];
}

kr_status watch_open(struct watch *w, int32_t nodes, int32_t ranks, double silence)
{
    *w = (struct watch){ .silence = silence, .nodes = nodes, .step = -1, .furthest = -1 };
    TRY(mem_alloc(&w->heard, (size_t)nodes, sizeof *w->heard, "nodes"));
    TRY(mem_alloc(&w->ranks, (size_t)ranks, sizeof *w->ranks, "ranks"));
    TRY(mem_alloc(&w->sorting, (size_t)ranks, sizeof *w->sorting, "ranks"));
    for (int32_t i = 0; i < nodes; i++)
        w->heard[i] = -1;
    return KR_OK;
}

void watch_close(struct watch *w)
{
    mem_free(w->heard);
    mem_free(w->ranks);
    mem_free(w->sorting);
    *w = (struct watch){ 0 };
}

void watch_begin(struct watch *w, int64_t generation, int32_t ranks, double now)
{
    w->generation = generation;
    w->size = ranks;
    w->seen = 0;
    w->began = now;
    w->step = w->furthest = -1;
    w->said.kind = WATCH_FINE;
    for (int32_t r = 0; r < ranks; r++)
        w->ranks[r] = (struct watch_rank){ .node = -1 };
}

void watch_node(struct watch *w, int32_t node, bool is_there, double now)
{
    w->heard[node] = is_there ? now : -1;
}

void watch_forgive(struct watch *w, double seconds)
{
    for (int32_t i = 0; i < w->nodes; i++)
        if (w->heard[i] >= 0) w->heard[i] += seconds;
    for (int32_t r = 0; r < w->size; r++)
        w->ranks[r].moved += seconds;
    w->began += seconds;
}

/* ---- step times --------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, int32_t count)
{
    if (count == 0) return 0;
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

static int32_t timed(const struct watch *w)
{
    return w->steps_timed < WATCH_STEPS ? (int32_t)w->steps_timed : WATCH_STEPS;
}

double watch_step_median(const struct watch *w)
{
    double copy[WATCH_STEPS];

    memcpy(copy, w->step_seconds, sizeof copy);
    return median(copy, timed(w));
}

double watch_step_longest(const struct watch *w)
{
    double longest = 0;

    for (int32_t i = 0; i < timed(w); i++)
        longest = fmax(longest, w->step_seconds[i]);
    return longest;
}

/* ---- beats -------------------------------------------------------------------------- */

/* A straggler is known by what it computes itself; waiting is what it does to others.  What
 * is little of a step holds nobody up, and is mostly noise. */
static void judge_pace(struct watch_rank *r, double middle, double step)
{
    double excess = r->last.compute_seconds - middle;

    if (middle > 0 && excess > 0.1 * middle && excess > 0.05 * step) {
        if (r->slow_beats++ == 0) r->slow_from = r->last.step;
    } else if ((r->slow_beats -= WATCH_SLOW_GRACE) <= 0) {
        r->slow_beats = 0;
        r->is_slow = false;
    }
}

/* The ranks of this node that have done a step since its last beat. */
static void judge_paces(struct watch *w, int32_t node)
{
    int32_t count = 0;
    double middle, step = watch_step_median(w);

    for (int32_t r = 0; r < w->size; r++)
        if (w->ranks[r].last.step >= 1)
            w->sorting[count++] = w->ranks[r].last.compute_seconds;
    middle = count < 3 ? 0 : median(w->sorting, count);
    for (int32_t r = 0; r < w->size; r++) {
        if (w->ranks[r].node != node || !w->ranks[r].has_stepped) continue;
        w->ranks[r].has_stepped = false;
        judge_pace(&w->ranks[r], middle, step);
    }
}

static void note_step(struct watch *w, struct watch_rank *r)
{
    double seconds = r->last.compute_seconds + r->last.wait_seconds;

    if (isfinite(seconds) && seconds > 0)
        w->step_seconds[w->steps_timed++ % WATCH_STEPS] = seconds;
    w->loss = r->last.loss;
    r->has_stepped = true;
}

static bool has_moved(const struct wire_rank *a, const struct wire_rank *b)
{
    return a->step != b->step || a->phase != b->phase || a->entered != b->entered ||
           a->left != b->left || a->pid != b->pid;
}

static void take_rank(struct watch *w, int32_t node, const struct wire_rank *now_is,
                      double now)
{
    struct watch_rank *r;
    bool is_new;

    if (now_is->rank < 0 || now_is->rank >= w->size || now_is->pid == 0) return;
    r = &w->ranks[now_is->rank];
    is_new = r->node < 0;
    if (is_new || has_moved(&r->last, now_is))
        r->moved =
            now - (now_is->age > 0 && now_is->age < now - r->moved ? now_is->age : 0);
    w->seen += is_new;
    is_new = !is_new && now_is->step > r->last.step;
    r->last = *now_is;
    r->node = node;
    if (is_new) note_step(w, r);
}

static void find_step(struct watch *w)
{
    int64_t least = INT64_MAX, most = -1;

    for (int32_t r = 0; r < w->size; r++) {
        int64_t step = w->ranks[r].node < 0 ? -1 : w->ranks[r].last.step;

        if (step < least) least = step;
        if (step > most) most = step;
    }
    w->step = w->size > 0 ? least : -1;
    w->furthest = most;
}

void watch_beat(struct watch *w, int32_t node, const struct wire_beat *beat, double now)
{
    if (w->heard[node] < 0) return;
    w->heard[node] = now;
    if (beat->generation != w->generation) return;
    for (int32_t i = 0; i < beat->count; i++)
        take_rank(w, node, &beat->ranks[i], now);
    judge_paces(w, node);
    find_step(w);
}

/* ---- verdicts ----------------------------------------------------------------------- */

__attribute__((format(printf, 6, 7))) static void say(struct watch_verdict *v,
                                                      enum watch_kind kind, int32_t node,
                                                      int32_t rank, double seconds,
                                                      const char *fmt, ...)
{
    va_list ap;

    *v = (struct watch_verdict){ kind, node, rank, seconds, "" };
    va_start(ap, fmt);
    vsnprintf(v->why, sizeof v->why, fmt, ap);
    va_end(ap);
}

static bool find_dead(struct watch *w, double now, struct watch_verdict *v)
{
    for (int32_t i = 0; i < w->size; i++) {
        const struct watch_rank *r = &w->ranks[i];

        if (r->node < 0 || r->last.is_alive || r->last.exit_code >= 0) continue;
        say(v, WATCH_DIED, r->node, i, now - r->moved,
            "rank %d (process %" PRId64 ") died while %s at step %" PRId64 "%s%s", i,
            r->last.pid, pulse_phase_text(r->last.phase), r->last.step,
            r->last.note[0] ? "; it said: " : "", r->last.note);
        return true;
    }
    return false;
}

static bool find_silent(struct watch *w, double now, struct watch_verdict *v)
{
    for (int32_t i = 0; i < w->nodes; i++) {
        if (w->heard[i] < 0 || now - w->heard[i] <= w->silence) continue;
        say(v, WATCH_SILENT, i, -1, now - w->heard[i], "nothing heard for %.1f s",
            now - w->heard[i]);
        w->heard[i] = -1; /* said once */
        return true;
    }
    return false;
}

/* What a phase may take without a sign of life: so many longest steps plus seconds. */
static double phase_patience(int32_t phase, double step)
{
    static const struct {
        double steps, seconds;
    } limits[PULSE_PHASES] = {
        [PULSE_STARTING] = { 10, 120 },
        [PULSE_READING] = { 10, 300 },
        [PULSE_COMPUTING] = { WATCH_HANG_STEPS, 5 },
        [PULSE_REDUCING] = { WATCH_HANG_STEPS, 5 },
        [PULSE_UPDATING] = { WATCH_HANG_STEPS, 5 },
        [PULSE_SNAPSHOT] = { 4, 30 },
        [PULSE_SAVING] = { 4, 300 },
        [PULSE_EVALUATING] = { 20, 300 },
        [PULSE_DONE] = { 4, 60 },
    };

    if (phase < 0 || phase >= PULSE_PHASES) phase = PULSE_STARTING;
    return limits[phase].steps * step + limits[phase].seconds;
}

static bool is_stopped(const struct wire_rank *r)
{
    return r->state == 'T' || r->state == 't';
}

/* The most patient phase of any rank counts: the others wait for that rank.  One that is
 * stopped does nothing in any phase. */
double watch_patience(const struct watch *w)
{
    double most = 0, step = watch_step_longest(w);

    for (int32_t r = 0; r < w->size; r++) {
        int32_t phase = w->ranks[r].last.phase;

        if (is_stopped(&w->ranks[r].last)) return phase_patience(PULSE_COMPUTING, step);
        if (w->steps_timed == 0 || w->ranks[r].node < 0 || w->ranks[r].last.step < 1)
            phase = PULSE_STARTING; /* the first step warms everything up */
        most = fmax(most, phase_patience(phase, step));
    }
    return most;
}

/* A stopped process is the culprit.  Else who has entered fewer collectives than others
 * keeps them waiting; if all have entered as many, whoever has not left what another one
 * has. */
static int32_t culprit(const struct watch *w, const char **how)
{
    int32_t least_in = 0, most_in = 0, least_out = 0, most_out = 0;

    *how = "is stopped";
    for (int32_t r = 0; r < w->size; r++)
        if (is_stopped(&w->ranks[r].last)) return r;
    for (int32_t r = 1; r < w->size; r++) {
        const struct wire_rank *is = &w->ranks[r].last;

        if (is->entered < w->ranks[least_in].last.entered) least_in = r;
        if (is->entered > w->ranks[most_in].last.entered) most_in = r;
        if (is->left < w->ranks[least_out].last.left) least_out = r;
        if (is->left > w->ranks[most_out].last.left) most_out = r;
    }
    *how = "has not entered the collective that others are in";
    if (w->ranks[least_in].last.entered < w->ranks[most_in].last.entered) return least_in;
    *how = "has not left a collective that others have left";
    if (w->ranks[least_out].last.left < w->ranks[most_out].last.left) return least_out;
    *how = "computes and enters no collective";
    if (w->size == 1) return 0;
    return -1;
}

static void say_stuck(const struct watch *w, double quiet, struct watch_verdict *v)
{
    const char *how;
    int32_t r = culprit(w, &how);
    const struct wire_rank *is = r < 0 ? NULL : &w->ranks[r].last;

    if (!is)
        say(v, WATCH_STUCK, -1, -1, quiet,
            "no change for %.1f s at step %" PRId64
            "; all ranks are in %s, number %" PRIu64
            ": a message was lost, or all compute",
            quiet, w->step, w->ranks[0].last.entered_name, w->ranks[0].last.entered);
    else
        say(v, WATCH_STUCK, w->ranks[r].node, r, quiet,
            "no change for %.1f s at step %" PRId64 "; rank %d (process %" PRId64
            ", %s) %s; it entered %" PRIu64 " %s",
            quiet, w->step, r, is->pid, pulse_phase_text(is->phase), how, is->entered,
            is->entered_name);
}

static bool find_stuck(struct watch *w, double now, struct watch_verdict *v)
{
    double quiet = now - w->began;

    if (w->size == 0) return false;
    if (w->seen < w->size) {
        if (quiet <= WATCH_START_SECONDS + 0.1 * w->size) return false;
        say(v, WATCH_STUCK, -1, -1, quiet, "%d of %d ranks have not started in %.0f s",
            w->size - w->seen, w->size, quiet);
        return true;
    }
    for (int32_t r = 0; r < w->size; r++)
        quiet = fmin(quiet, now - w->ranks[r].moved);
    if (quiet <= watch_patience(w)) return false;
    say_stuck(w, quiet, v);
    return true;
}

static bool find_slow(struct watch *w, struct watch_verdict *v)
{
    for (int32_t i = 0; i < w->size; i++) {
        struct watch_rank *r = &w->ranks[i];

        if (r->is_slow || r->slow_beats < WATCH_SLOW_BEATS ||
            r->last.step - r->slow_from < WATCH_SLOW_STEPS)
            continue;
        r->is_slow = true;
        say(v, WATCH_SLOW, r->node, i, 0,
            "rank %d computes %.3g s a step, over a tenth above the median, for %" PRId64
            " steps",
            i, r->last.compute_seconds, r->last.step - r->slow_from);
        return true;
    }
    return false;
}

/* A rank in a generation that has failed says nothing new, a silent node does. */
void watch_judge(struct watch *w, double now, struct watch_verdict *out)
{
    *out = (struct watch_verdict){ .kind = WATCH_FINE, .node = -1, .rank = -1 };
    if (find_silent(w, now, out)) return;
    if (w->said.kind != WATCH_FINE) return;
    if (find_dead(w, now, out) || find_stuck(w, now, out))
        w->said = *out;
    else
        (void)find_slow(w, out);
}
