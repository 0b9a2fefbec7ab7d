/* verdicts.c - what the watch says, and what the ranks' end means. */
#include <inttypes.h>
#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "scheduler/json.h"
#include "scheduler/supervisor.h"

/* Between the end of a rank that said why and that of mpirun, which may hang. */
static const double code_seconds = 5, daemon_seconds = 3;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

/* ---- the ranks' end ----------------------------------------------------------------- */

/* The exit code that tells why: a rank's own, past those that only say a peer was lost. */
static int32_t cause(const struct sup *s, int32_t code, int32_t *rank)
{
    *rank = -1;
    for (int32_t r = 0; r < s->watch.size; r++) {
        int32_t left = s->watch.ranks[r].last.exit_code;

        if (left <= 0 || left == EXIT_COMM) continue;
        *rank = r;
        return left;
    }
    return code > 0 && ladder_code_text(code)[0] ? code : -1;
}

static bool all_done(const struct sup *s)
{
    for (int32_t r = 0; r < s->watch.size; r++)
        if (s->watch.ranks[r].node < 0 || s->watch.ranks[r].last.exit_code != 0)
            return false;
    return s->watch.size > 0;
}

static void ended_badly(struct sup *s, int32_t code)
{
    int32_t rank, why = cause(s, code, &rank);
    int32_t node = rank < 0 ? -1 : nodes_of_rank(&s->nodes, rank);
    const char *note = rank < 0 ? "" : s->watch.ranks[rank].last.note;

    if (why == EXIT_REQUEUE && s->will_regroup) {
        s->attempts = 0;
        sup_decide(s, -1, true);
    } else if (why == EXIT_REQUEUE) {
        sup_finish(s, EXIT_REQUEUE, "stopped on request, state saved");
    } else {
        sup_fault(s,
                  &(struct sup_fault){ rank < 0 ? "mpirun ended" : "rank ended", node,
                                       rank, why, false, 0 },
                  "exit code %d: %s%s%s", why < 0 ? code : why,
                  why < 0 ? "no code of ours" : ladder_code_text(why),
                  *note ? "; it said: " : "", note);
    }
}

void sup_head_ended(struct sup *s, int32_t code)
{
    if (s->phase == SUP_REGAIN) s->is_broken = true;
    if (s->phase != SUP_RUN) return;
    if (code == 0 && all_done(s))
        sup_finish(s, EXIT_DONE, s->stop ? "stopped on request, state saved" : "done");
    else if (code == 0)
        s->ended_at = clock_now(); /* other nodes' last beats may be on their way */
    else
        ended_badly(s, code);
}

/* mpirun ended without fault: the ranks have, too, or it is not to be trusted. */
static void wait_for_beats(struct sup *s, double now)
{
    if (all_done(s))
        sup_finish(s, EXIT_DONE, s->stop ? "stopped on request, state saved" : "done");
    else if (now - s->ended_at > code_seconds)
        sup_fault(s, &(struct sup_fault){ "mpirun ended", -1, -1, -1, false, 0 },
                  "it ended without fault before the ranks were done");
}

/* ---- verdicts ----------------------------------------------------------------------- */

static void say_slow(struct sup *s, const struct watch_verdict *v)
{
    struct mem_text *t = journal_begin(s->journal, "slow");

    json_text(t, "node", sup_name(s, v->node));
    json_int(t, "rank", v->rank);
    json_text(t, "why", v->why);
    journal_end(s->journal);
    LOG_WARNING("%s: %s", sup_name(s, v->node), v->why);
}

/* Ask the ranks to save and end; ended_badly sees them again. */
void sup_regroup(struct sup *s, const char *why)
{
    if (s->will_regroup || s->stop) return;
    LOG_NOTE("asks the ranks to save and start again: %s", why);
    sup_record(s, "regroup", why);
    s->will_regroup = true;
    out.type = WIRE_SIGNAL;
    out.signal = (struct wire_signal){ s->generation, SIGUSR1 };
    if (s->head >= 0 && s->seats[s->head].link) link_send(s->seats[s->head].link, &out);
}

static void replace_slow(struct sup *s, int32_t node)
{
    if (!s->config->replace_slow || node < 0) return;
    s->nodes.at[node].faults++;
    if (!nodes_swap_out(&s->nodes, node)) return;
    sup_record_node(s, node, "swapped", "too slow");
    sup_regroup(s, "a spare takes the place of a slow node");
}

static void on_verdict(struct sup *s, const struct watch_verdict *v)
{
    struct sup_fault f = {
        watch_kind_text(v->kind), v->node, v->rank, -1, false, v->seconds
    };

    switch (v->kind) {
    case WATCH_FINE: break;
    case WATCH_SILENT: sup_lose_node(s, v->node, v->why, v->seconds); break;
    case WATCH_SLOW:
        say_slow(s, v);
        replace_slow(s, v->node);
        break;
    case WATCH_STUCK:
        if (s->phase == SUP_RUN && all_done(s))
            sup_finish(s, EXIT_DONE, "done; mpirun itself did not end");
        else if (s->phase == SUP_RUN)
            sup_fault(s, &f, "%s", v->why);
        break;
    case WATCH_DIED:
        if (s->phase == SUP_REGAIN) s->is_broken = true;
        if (s->phase == SUP_RUN) sup_fault(s, &f, "%s", v->why);
        break;
    }
}

/* A rank has ended and said why; mpirun should end within seconds, but may hang. */
static void wait_for_mpirun(struct sup *s, double now)
{
    int32_t rank;

    if (s->broken_since <= 0) {
        for (int32_t r = 0; r < s->watch.size; r++)
            if (s->watch.ranks[r].last.exit_code >= 0 &&
                !s->watch.ranks[r].last.is_alive && s->watch.ranks[r].node >= 0)
                s->broken_since = now;
    } else if (now - s->broken_since > code_seconds) {
        if (all_done(s))
            sup_finish(s, EXIT_DONE, "done; mpirun itself did not end");
        else if (cause(s, 0, &rank) > 0)
            ended_badly(s, 0);
        else if (now - s->broken_since > 4 * code_seconds)
            sup_fault(s, &(struct sup_fault){ "mpirun hangs", -1, -1, -1, false, 0 },
                      "ranks have ended, mpirun has not");
    }
}

static void wait_after_daemon(struct sup *s, double now)
{
    if (s->daemon_at <= 0 || now - s->daemon_at <= daemon_seconds) return;
    sup_fault(s,
              &(struct sup_fault){ "daemon ended", s->daemon_node, -1, -1, false,
                                   now - s->daemon_at },
              "Open MPI's daemon ended with %d, mpirun did not", s->daemon_code);
}

void sup_note_steps(struct sup *s)
{
    struct mem_text *t;

    if (s->watch.furthest > s->furthest) {
        s->furthest = s->watch.furthest;
        s->attempts = 0;
    }
    if (s->has_stepped || s->watch.size == 0 || s->watch.step < 0) return;
    s->has_stepped = true;
    t = journal_begin(s->journal, "running");
    json_int(t, "generation", s->generation);
    json_int(t, "step", s->watch.step);
    if (s->fault_at > 0) json_real(t, "recovery_s", clock_now() - s->fault_at);
    journal_end(s->journal);
    if (s->fault_at > 0)
        LOG_NOTE("runs again, %.1f s after the fault; step %" PRId64,
                 clock_now() - s->fault_at, s->watch.step);
    s->fault_at = 0;
}

void sup_judge(struct sup *s, double now)
{
    struct watch_verdict v;

    do {
        watch_judge(&s->watch, now, &v);
        on_verdict(s, &v);
    } while (v.kind != WATCH_FINE);
    if (s->phase == SUP_RUN && s->ended_at > 0)
        wait_for_beats(s, now);
    else if (s->phase == SUP_RUN)
        wait_for_mpirun(s, now);
    if (s->phase == SUP_RUN) wait_after_daemon(s, now);
}
