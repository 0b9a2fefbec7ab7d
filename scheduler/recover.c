/* recover.c - a generation begins; after a fault, the next one. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "scheduler/history.h"
#include "scheduler/json.h"
#include "scheduler/supervisor.h"

static const double clear_seconds = 8;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

/* ---- generations -------------------------------------------------------------------- */

void sup_send_prepare(struct sup *s, int32_t node, int64_t generation)
{
    const struct node *n = &s->nodes.at[node];

    if (!s->seats[node].link) return;
    out.type = WIRE_PREPARE;
    out.prepare = (struct wire_prepare){ .generation = generation,
                                         .ranks = n->ranks,
                                         .place = n->place };
    if (mpirun_environment(s, &out.prepare.environment) == KR_OK)
        link_send(s->seats[node].link, &out);
}

static void record_start(struct sup *s, const struct ladder_move *m)
{
    static int32_t order[NODES_MAX];
    int32_t count = nodes_active(&s->nodes, order);
    struct mem_text *t = journal_begin(s->journal, "start");

    json_int(t, "generation", s->generation);
    json_int(t, "ranks", s->ranks);
    json_text(t, "rung", ladder_rung_text(m->rung));
    json_text(t, "why", m->why);
    json_text(t, "head", sup_name(s, s->head));
    json_open_array(t, "nodes");
    for (int32_t i = 0; i < count; i++) /* in order of rank */
        json_text(t, NULL, sup_name(s, order[i]));
    json_close(t, ']');
    journal_end(s->journal);
}

/* Ranks on the nodes that nodes_place chose, once nothing older lives on any node. */
static void begin_generation(struct sup *s, const struct ladder_move *m)
{
    s->ranks = nodes_place(&s->nodes, s->config->ranks);
    s->head = nodes_of_rank(&s->nodes, 0);
    s->generation++;
    s->has_stepped = s->will_regroup = s->is_broken = false;
    s->broken_since = s->ended_at = s->daemon_at = s->lacking_since = 0;
    record_start(s, m);
    LOG_NOTE("generation %" PRId64 ": %d ranks, mpirun on %s (%s: %s)", s->generation,
             s->ranks, sup_name(s, s->head), ladder_rung_text(m->rung), m->why);
    watch_begin(&s->watch, s->generation, 0, clock_now());
    sup_enter(s, SUP_CLEAR, clear_seconds);
    for (int32_t i = 0; i < s->nodes.count; i++) {
        s->seats[i].is_ready = s->nodes.at[i].ranks == 0;
        sup_send_prepare(s, i, s->generation);
    }
}

void sup_run_mpirun(struct sup *s)
{
    out.type = WIRE_RUN;
    out.run.generation = s->generation;
    if (!s->seats[s->head].link || mpirun_line(s, &out.run.argv) != KR_OK) return;
    watch_begin(&s->watch, s->generation, s->ranks, clock_now());
    link_send(s->seats[s->head].link, &out);
    sup_enter(s, SUP_RUN, 0);
}

/* ---- what to do next ---------------------------------------------------------------- */

static struct ladder_view view(const struct sup *s, int32_t exit_code, bool node_lost)
{
    struct ladder_view v = { .exit_code = exit_code,
                             .node_lost = node_lost,
                             .attempts = s->attempts,
                             .attempts_max = s->config->attempts,
                             .missing = nodes_missing(&s->nodes),
                             .spares = nodes_spare(&s->nodes),
                             .ranks = s->ranks,
                             .slots_up = nodes_slots_up(&s->nodes),
                             .ranks_wanted = s->config->ranks,
                             .ranks_min = s->config->ranks_min,
                             .wait_max = s->config->wait_seconds,
                             .may_requeue = s->config->in_slurm };

    if (s->lacking_since > 0) v.waited = clock_now() - s->lacking_since;
    (void)!getrandom(&v.jitter, sizeof v.jitter, 0);
    return v;
}

void sup_end_everything(struct sup *s)
{
    for (int32_t i = 0; i < s->nodes.count; i++)
        sup_send_prepare(s, i, 0);
    watch_begin(&s->watch, s->generation, 0, clock_now());
}

void sup_decide(struct sup *s, int32_t exit_code, bool node_lost)
{
    struct ladder_view v = view(s, exit_code, node_lost);
    struct ladder_move m;

    if (s->stop == SUP_STOP_REQUEUE) {
        sup_finish(s, EXIT_REQUEUE,
                   "a fault while it saved: what was saved before is kept");
        return;
    }
    ladder_next(&v, &m);
    if (m.rung == LADDER_END || m.rung == LADDER_REQUEUE) {
        sup_finish(s, m.exit_code, m.why);
        return;
    }
    if (m.rung == LADDER_WAIT) {
        LOG_NOTE("%s, at most %.0f s", m.why, m.seconds);
        if (s->lacking_since <= 0) s->lacking_since = clock_now();
        sup_end_everything(s);
        sup_enter(s, SUP_GATHER, m.seconds);
        return;
    }
    if (m.seconds <= 0) {
        begin_generation(s, &m);
        return;
    }
    LOG_NOTE("attempt %d without a new step: waits %.1f s", s->attempts, m.seconds);
    sup_end_everything(s);
    sup_enter(s, SUP_PAUSE, m.seconds);
}

/* The back-off is over, or nodes came: the same question without the wait. */
void sup_go_on(struct sup *s)
{
    struct ladder_view v = view(s, -1, true);
    struct ladder_move m;

    v.attempts = 0;
    ladder_next(&v, &m);
    if (m.rung < LADDER_WAIT)
        begin_generation(s, &m);
    else
        sup_decide(s, -1, true);
}

static void record_fault(struct sup *s, const struct sup_fault *f)
{
    struct mem_text *t = journal_begin(s->journal, "fault");

    json_int(t, "generation", s->generation);
    json_text(t, "kind", f->kind);
    json_text(t, "node", sup_name(s, f->node));
    json_int(t, "rank", f->rank);
    json_int(t, "exit_code", f->exit_code);
    json_int(t, "step", s->watch.step);
    json_real(t, "detect_s", f->seconds);
    json_text(t, "why", s->fault_why);
    journal_end(s->journal);
}

/* A node whose ranks fail again and again makes room, if there is a better one. */
static void blame(struct sup *s, const struct sup_fault *f)
{
    struct node *n = f->node < 0 ? NULL : &s->nodes.at[f->node];

    if (!n) return;
    n->faults++;
    if (f->exit_code == EXIT_DEVICE) history_add(n->name, s->fault_why);
    if ((f->exit_code == EXIT_DEVICE || n->faults % NODES_FAULTS == 0) &&
        nodes_swap_out(&s->nodes, f->node)) {
        sup_record_node(s, f->node, "swapped", "it had many faults, a spare has fewer");
        LOG_WARNING("%s had %d faults: a spare takes its place", n->name, n->faults);
    }
}

void sup_fault(struct sup *s, const struct sup_fault *f, const char *fmt, ...)
{
    va_list ap;

    if (s->phase != SUP_RUN && s->phase != SUP_CLEAR && s->phase != SUP_REGAIN) return;
    va_start(ap, fmt);
    vsnprintf(s->fault_why, sizeof s->fault_why, fmt, ap);
    va_end(ap);
    s->faults++;
    if (s->fault_at <= 0) s->fault_at = clock_now() - f->seconds;
    if (!f->node_lost) s->attempts++;
    LOG_WARNING("%s%s%s: %s", f->kind, f->node >= 0 ? " on " : "", sup_name(s, f->node),
                s->fault_why);
    record_fault(s, f);
    blame(s, f);
    sup_decide(s, f->exit_code, f->node_lost);
}

void sup_lose_node(struct sup *s, int32_t node, const char *why, double seconds)
{
    bool has_ranks = s->nodes.at[node].ranks > 0;

    if (s->nodes.at[node].state == NODE_UP) s->nodes.at[node].state = NODE_AWAY;
    watch_node(&s->watch, node, false, 0);
    sup_note(s, node, "lost: %s", why);
    sup_record_node(s, node, "lost", why);
    history_add(sup_name(s, node), why);
    if (s->seats[node].link) {
        s->seats[node].link->mark = NULL;
        link_close(s->seats[node].link, "its node counts as lost");
        s->seats[node].link = NULL;
    }
    s->seats[node].tries = 2; /* no hurry to try again */
    s->seats[node].next = clock_now() + 5;
    if (has_ranks)
        sup_fault(s, &(struct sup_fault){ "node lost", node, -1, -1, true, seconds },
                  "%s", why);
    else
        LOG_WARNING("spare node %s lost: %s", sup_name(s, node), why);
}
