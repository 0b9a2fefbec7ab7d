/* supervisor.c - the loop, and what happens between phases. */
#include "scheduler/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "scheduler/json.h"

enum { TICK_MS = 100, COPY = 1 << 16 };

/* Seconds; those of phases are in supervisor.h. */
static const double silence = 4.5, adopt_seconds = 4, gather_rest = 1.5,
                    clear_seconds = 8, regain_seconds = 2, end_seconds = 4,
                    save_seconds = 600, code_seconds = 5, hosts_seconds = 5;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

const char *sup_phase_text(enum sup_phase phase)
{
    static const char *const texts[] = {
#define X(name, text) text,
        SUP_PHASE_MAP(X)
#undef X
    };

    return texts[phase];
}

static void enter(struct sup *s, enum sup_phase phase, double seconds)
{
    s->phase = phase;
    s->until = clock_now() + seconds;
}

static const char *name_of(const struct sup *s, int32_t node)
{
    return node >= 0 ? s->nodes.at[node].name : "";
}

static void record(struct sup *s, const char *event, const char *why)
{
    json_text(journal_begin(s->journal, event), "why", why);
    journal_end(s->journal);
}

static void record_node(struct sup *s, int32_t node, const char *state, const char *why)
{
    struct mem_text *t = journal_begin(s->journal, "node");

    json_text(t, "node", name_of(s, node));
    json_text(t, "state", state);
    json_text(t, "why", why);
    journal_end(s->journal);
}

/* ---- the end ------------------------------------------------------------------------ */

static void finish(struct sup *s, int32_t code, const char *why)
{
    struct mem_text *t;
    char path[FS_PATH];

    if (s->phase == SUP_END) return;
    s->exit_code = code;
    t = journal_begin(s->journal, "end");
    json_int(t, "code", code);
    json_int(t, "step", s->furthest);
    json_text(t, "why", why);
    journal_end(s->journal);
    LOG_NOTE("ends with code %d: %s", code, why);
    if (s->stop == SUP_STOP_DONE && fs_path(path, "%s/stop", s->config->run) == KR_OK)
        (void)fs_unlink(path);
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (s->seats[i].link) link_say(s->seats[i].link, WIRE_LEAVE, 0, "");
    for (int i = 0; i < SUP_ASKERS; i++)
        if (s->askers[i]) link_say(s->askers[i], WIRE_BYE, code, "");
    enter(s, SUP_END, end_seconds);
}

static void leave(struct sup *s)
{
    (void)address_remove(s->config->run);
    door_close(&s->door);
    uv_stop(&s->loop);
}

/* ---- generations -------------------------------------------------------------------- */

static void send_prepare(struct sup *s, int32_t node, int64_t generation)
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
    struct mem_text *t = journal_begin(s->journal, "start");

    json_int(t, "generation", s->generation);
    json_int(t, "ranks", s->ranks);
    json_text(t, "rung", ladder_rung_text(m->rung));
    json_text(t, "why", m->why);
    json_text(t, "head", name_of(s, s->head));
    json_open_array(t, "nodes");
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (s->nodes.at[i].ranks > 0) json_text(t, NULL, s->nodes.at[i].name);
    json_close(t, ']');
    journal_end(s->journal);
}

/* Ranks on the nodes that nodes_place chose, once nothing older lives on any node. */
static void begin_generation(struct sup *s, const struct ladder_move *m)
{
    static int32_t order[NODES_MAX];

    s->ranks = nodes_place(&s->nodes, s->config->ranks);
    s->head = nodes_active(&s->nodes, order) > 0 ? order[0] : -1;
    s->generation++;
    s->has_stepped = s->will_regroup = s->is_broken = false;
    s->broken_since = s->ended_at = s->lacking_since = 0;
    record_start(s, m);
    LOG_NOTE("generation %" PRId64 ": %d ranks, mpirun on %s (%s: %s)", s->generation,
             s->ranks, name_of(s, s->head), ladder_rung_text(m->rung), m->why);
    watch_begin(&s->watch, s->generation, 0, clock_now());
    enter(s, SUP_CLEAR, clear_seconds);
    for (int32_t i = 0; i < s->nodes.count; i++) {
        s->seats[i].is_ready = s->nodes.at[i].ranks == 0;
        send_prepare(s, i, s->generation);
    }
}

static void run_mpirun(struct sup *s)
{
    out.type = WIRE_RUN;
    out.run.generation = s->generation;
    if (!s->seats[s->head].link || mpirun_line(s, &out.run.argv) != KR_OK) return;
    watch_begin(&s->watch, s->generation, s->ranks, clock_now());
    link_send(s->seats[s->head].link, &out);
    enter(s, SUP_RUN, 0);
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

static void end_everything(struct sup *s)
{
    for (int32_t i = 0; i < s->nodes.count; i++)
        send_prepare(s, i, 0);
    watch_begin(&s->watch, s->generation, 0, clock_now());
}

static void decide(struct sup *s, int32_t exit_code, bool node_lost)
{
    struct ladder_view v = view(s, exit_code, node_lost);
    struct ladder_move m;

    if (s->stop == SUP_STOP_REQUEUE) {
        finish(s, EXIT_REQUEUE, "a fault while it saved: what was saved before is kept");
        return;
    }
    ladder_next(&v, &m);
    if (m.rung == LADDER_END || m.rung == LADDER_REQUEUE) {
        finish(s, m.exit_code, m.why);
        return;
    }
    if (m.rung == LADDER_WAIT) {
        LOG_NOTE("%s, at most %.0f s", m.why, m.seconds);
        if (s->lacking_since <= 0) s->lacking_since = clock_now();
        end_everything(s);
        enter(s, SUP_GATHER, m.seconds);
        return;
    }
    if (m.seconds <= 0) {
        begin_generation(s, &m);
        return;
    }
    LOG_NOTE("attempt %d without a new step: waits %.1f s", s->attempts, m.seconds);
    end_everything(s);
    enter(s, SUP_PAUSE, m.seconds);
}

/* The back-off is over, or nodes came: the same question without the wait. */
static void go_on(struct sup *s)
{
    struct ladder_view v = view(s, -1, true);
    struct ladder_move m;

    v.attempts = 0;
    ladder_next(&v, &m);
    if (m.rung < LADDER_WAIT)
        begin_generation(s, &m);
    else
        decide(s, -1, true);
}

struct fault {
    const char *kind;
    int32_t node, rank, exit_code; /* -1: none */
    bool node_lost;
    double seconds; /* from the event to now */
};

static void record_fault(struct sup *s, const struct fault *f)
{
    struct mem_text *t = journal_begin(s->journal, "fault");

    json_int(t, "generation", s->generation);
    json_text(t, "kind", f->kind);
    json_text(t, "node", name_of(s, f->node));
    json_int(t, "rank", f->rank);
    json_int(t, "exit_code", f->exit_code);
    json_int(t, "step", s->watch.step);
    json_real(t, "detect_s", f->seconds);
    json_text(t, "why", s->fault_why);
    journal_end(s->journal);
}

static void blame(struct sup *s, int32_t node)
{
    struct node *n = node < 0 ? NULL : &s->nodes.at[node];

    if (!n || ++n->faults < NODES_FAULTS ||
        nodes_slots_up(&s->nodes) - n->slots < s->config->ranks_min)
        return;
    if (n->state != NODE_UP) return;
    n->state = NODE_BAD;
    record_node(s, node, "bad", "too many faults in this run");
    LOG_WARNING("%s had %d faults: it is left out from here on", n->name, n->faults);
}

__attribute__((format(printf, 3, 4))) static void
fault(struct sup *s, const struct fault *f, const char *fmt, ...)
{
    va_list ap;

    if (s->phase != SUP_RUN && s->phase != SUP_CLEAR && s->phase != SUP_REGAIN) return;
    va_start(ap, fmt);
    vsnprintf(s->fault_why, sizeof s->fault_why, fmt, ap);
    va_end(ap);
    s->faults++;
    if (s->fault_at <= 0) s->fault_at = clock_now() - f->seconds;
    if (!f->node_lost) s->attempts++;
    LOG_WARNING("%s%s%s: %s", f->kind, f->node >= 0 ? " on " : "", name_of(s, f->node),
                s->fault_why);
    record_fault(s, f);
    blame(s, f->node);
    decide(s, f->exit_code, f->node_lost);
}

static void lose_node(struct sup *s, int32_t node, const char *why, double seconds)
{
    bool has_ranks = s->nodes.at[node].ranks > 0;

    if (s->nodes.at[node].state == NODE_UP) s->nodes.at[node].state = NODE_AWAY;
    watch_node(&s->watch, node, false, 0);
    record_node(s, node, "lost", why);
    if (s->seats[node].link) {
        s->seats[node].link->mark = NULL;
        link_close(s->seats[node].link, "its node counts as lost");
        s->seats[node].link = NULL;
    }
    s->seats[node].tries = 2; /* no hurry to try again */
    s->seats[node].next = clock_now() + 5;
    if (has_ranks)
        fault(s, &(struct fault){ "node lost", node, -1, -1, true, seconds }, "%s", why);
    else
        LOG_WARNING("spare node %s lost: %s", name_of(s, node), why);
}

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
        decide(s, -1, true);
    } else if (why == EXIT_REQUEUE) {
        finish(s, EXIT_REQUEUE, "stopped on request, state saved");
    } else {
        if (why == EXIT_DEVICE && node >= 0) s->nodes.at[node].faults += NODES_FAULTS;
        fault(s,
              &(struct fault){ rank < 0 ? "mpirun ended" : "rank ended", node, rank, why,
                               false, 0 },
              "exit code %d: %s%s%s", why < 0 ? code : why,
              why < 0 ? "no code of ours" : ladder_code_text(why),
              *note ? "; it said: " : "", note);
    }
}

static void on_head_ended(struct sup *s, int32_t code)
{
    if (s->phase == SUP_REGAIN) s->is_broken = true;
    if (s->phase != SUP_RUN) return;
    if (code == 0 && all_done(s))
        finish(s, EXIT_DONE, s->stop ? "stopped on request, state saved" : "done");
    else if (code == 0)
        s->ended_at = clock_now(); /* other nodes' last beats may be on their way */
    else
        ended_badly(s, code);
}

/* mpirun ended without fault: the ranks have, too, or it is not to be trusted. */
static void wait_for_beats(struct sup *s, double now)
{
    if (all_done(s))
        finish(s, EXIT_DONE, s->stop ? "stopped on request, state saved" : "done");
    else if (now - s->ended_at > code_seconds)
        fault(s, &(struct fault){ "mpirun ended", -1, -1, -1, false, 0 },
              "it ended without fault before the ranks were done");
}

/* ---- verdicts ----------------------------------------------------------------------- */

static void say_slow(struct sup *s, const struct watch_verdict *v)
{
    struct mem_text *t = journal_begin(s->journal, "slow");

    json_text(t, "node", name_of(s, v->node));
    json_int(t, "rank", v->rank);
    json_text(t, "why", v->why);
    journal_end(s->journal);
    LOG_WARNING("%s: %s", name_of(s, v->node), v->why);
}

/* Ask the ranks to save and end; ended_badly sees them again. */
static void regroup(struct sup *s, const char *why)
{
    if (s->will_regroup || s->stop) return;
    LOG_NOTE("asks the ranks to save and start again: %s", why);
    record(s, "regroup", why);
    s->will_regroup = true;
    out.type = WIRE_SIGNAL;
    out.signal = (struct wire_signal){ s->generation, SIGUSR1 };
    if (s->head >= 0 && s->seats[s->head].link) link_send(s->seats[s->head].link, &out);
}

static void replace_slow(struct sup *s, int32_t node)
{
    if (!s->config->replace_slow || node < 0 || nodes_spare(&s->nodes) == 0) return;
    s->nodes.at[node].state = NODE_BAD;
    record_node(s, node, "bad", "too slow");
    regroup(s, "a spare takes the place of a slow node");
}

static void on_verdict(struct sup *s, const struct watch_verdict *v)
{
    struct fault f = {
        watch_kind_text(v->kind), v->node, v->rank, -1, false, v->seconds
    };

    switch (v->kind) {
    case WATCH_FINE: break;
    case WATCH_SILENT: lose_node(s, v->node, v->why, v->seconds); break;
    case WATCH_SLOW:
        say_slow(s, v);
        replace_slow(s, v->node);
        break;
    case WATCH_STUCK:
        if (s->phase == SUP_RUN && all_done(s))
            finish(s, EXIT_DONE, "done; mpirun itself did not end");
        else if (s->phase == SUP_RUN)
            fault(s, &f, "%s", v->why);
        break;
    case WATCH_DIED:
        if (s->phase == SUP_REGAIN) s->is_broken = true;
        if (s->phase == SUP_RUN) fault(s, &f, "%s", v->why);
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
            finish(s, EXIT_DONE, "done; mpirun itself did not end");
        else if (cause(s, 0, &rank) > 0)
            ended_badly(s, 0);
        else if (now - s->broken_since > 4 * code_seconds)
            fault(s, &(struct fault){ "mpirun hangs", -1, -1, -1, false, 0 },
                  "ranks have ended, mpirun has not");
    }
}

static void note_steps(struct sup *s)
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

/* ---- agents ------------------------------------------------------------------------- */

static void refuse(struct link *l, const char *why)
{
    link_say(l, WIRE_REFUSE, 0, why);
    l->mark = NULL;
}

static void take_seat(struct sup *s, int32_t node, struct link *l,
                      const struct wire_hello *h)
{
    struct seat *seat = &s->seats[node];

    if (seat->link) {
        seat->link->mark = NULL;
        link_close(seat->link, "another agent of its node came");
    }
    seat->link = l;
    seat->hello = *h;
    seat->tries = 0;
    l->mark = seat;
    s->nodes.at[node].state = NODE_UP;
    watch_node(&s->watch, node, true, clock_now());
    link_say(l, WIRE_WELCOME, 0, "");
    record_node(s, node, "up", "");
}

/* What runs there is what should run there. */
static bool is_whole(const struct sup *s, int32_t node, const struct wire_hello *h)
{
    const struct node *n = &s->nodes.at[node];

    return h->generation == s->generation && h->ranks == n->ranks &&
           (node != s->head || h->is_head);
}

static void regain(struct sup *s, int32_t node, const struct wire_hello *h)
{
    if (!is_whole(s, node, h)) s->is_broken = true;
    if (nodes_missing(&s->nodes) > 0) return;
    if (!s->is_broken) {
        LOG_NOTE("%s is back, and its ranks never left", name_of(s, node));
        enter(s, SUP_RUN, 0);
    } else {
        fault(s, &(struct fault){ "agent died", node, -1, -1, true, 0 },
              "it is back, its ranks are gone");
    }
}

static void on_hello(struct sup *s, struct link *l, const struct wire_hello *h)
{
    struct node *n = nodes_find(&s->nodes, h->node);
    int32_t node = n ? (int32_t)(n - s->nodes.at) : -1;

    if (!n || n->state == NODE_GONE || n->state == NODE_BAD ||
        h->version != WIRE_VERSION) {
        refuse(l, !n || n->state == NODE_GONE ? "no node of this run"
                  : n->state == NODE_BAD      ? "it was left out"
                                              : "another version of kilorank");
        return;
    }
    if (h->trouble[0]) {
        LOG_WARNING("node %s is left out: %s", n->name, h->trouble);
        record_node(s, node, "bad", h->trouble);
        n->state = NODE_BAD;
        refuse(l, h->trouble);
        return;
    }
    take_seat(s, node, l, h);
    if (s->phase == SUP_ADOPT) return;
    if (n->ranks > 0 && s->phase == SUP_REGAIN)
        regain(s, node, h);
    else if (n->ranks > 0 && s->phase == SUP_RUN && !is_whole(s, node, h))
        fault(s, &(struct fault){ "agent died", node, -1, -1, true, 0 },
              "another one came in its place");
    else if (n->ranks == 0 || s->phase != SUP_RUN)
        send_prepare(s, node, 0);
}

static void on_ready(struct sup *s, struct seat *seat, const struct wire_ready *r)
{
    int32_t node = (int32_t)(seat - s->seats);

    if (s->phase != SUP_CLEAR || r->generation != s->generation) return;
    if (r->trouble[0]) {
        lose_node(s, node, r->trouble, 0);
        return;
    }
    seat->is_ready = true;
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (!s->seats[i].is_ready && s->nodes.at[i].ranks > 0) return;
    run_mpirun(s);
}

static void on_beat(struct sup *s, struct seat *seat, const struct wire_beat *b)
{
    watch_beat(&s->watch, (int32_t)(seat - s->seats), b, clock_now());
    link_say(seat->link, WIRE_WELCOME, 0, ""); /* it wants to hear us too */
    note_steps(s);
}

static void on_ended(struct sup *s, struct seat *seat, const struct wire_ended *e)
{
    if (e->generation != s->generation) return;
    if (e->is_head)
        on_head_ended(s, e->code);
    else if (s->phase == SUP_RUN && s->broken_since <= 0)
        LOG_TRACE("%s: Open MPI's daemon ended with %d",
                  name_of(s, (int32_t)(seat - s->seats)), e->code);
}

/* ---- daemons of Open MPI ------------------------------------------------------------ */

/* From the helper to the node's agent; the answer finds its way back by its number, the
 * address of the helper's link, looked for among those that are there. */
static void on_exec(struct sup *s, struct link *l, const struct wire_message *m)
{
    const struct node *n = nodes_find(&s->nodes, m->exec.node);
    struct seat *seat = n ? &s->seats[n - s->nodes.at] : NULL;

    out = *m;
    if (seat && seat->link && m->exec.generation == s->generation && n->ranks > 0) {
        out.exec.id = (uintptr_t)l;
        link_send(seat->link, &out);
        return;
    }
    out.type = WIRE_STARTED;
    out.started = (struct wire_started){ 0, "no such node in this generation" };
    link_send(l, &out);
}

static void on_started(struct sup *s, const struct wire_message *m)
{
    struct link *l = s->door.links;

    while (l && (uintptr_t)l != m->started.id)
        l = l->next;
    if (!l) return;
    out = *m;
    link_send(l, &out);
}

/* ---- commands ----------------------------------------------------------------------- */

static void ask_to_stop(struct sup *s, enum sup_stop how, const char *why);

static void tell_status(struct sup *s, struct link *l, bool json)
{
    struct mem_text t = { 0 };

    (json ? view_json : view_text)(s, &t);
    for (size_t at = 0, most = WIRE_MAX / 2; at < t.len && !t.failed; at += most) {
        char *end = t.len - at > most ? t.at + at + most : t.at + t.len, kept = *end;

        *end = '\0';
        link_say(l, WIRE_TELL, 0, t.at + at);
        *end = kept;
    }
    mem_text_free(&t);
    link_say(l, WIRE_BYE, EXIT_DONE, "");
}

static void on_ask(struct sup *s, struct link *l, const struct wire_words *w)
{
    const char *text = wire_next(&w->text, NULL);
    int i = 0;

    if (text && strncmp(text, "status", 6) == 0) {
        tell_status(s, l, strcmp(text, "status json") == 0);
        return;
    }
    while (i < SUP_ASKERS && s->askers[i])
        i++;
    if (!text || strcmp(text, "stop") != 0 || i == SUP_ASKERS) {
        link_say(l, WIRE_BYE, EXIT_USAGE, "no such question\n");
        return;
    }
    s->askers[i] = l;
    link_say(l, WIRE_TELL, 0, "asked to finish the step, save and end\n");
    ask_to_stop(s, SUP_STOP_DONE, "kilorank stop");
}

static void ask_to_stop(struct sup *s, enum sup_stop how, const char *why)
{
    char path[FS_PATH];

    if (s->phase == SUP_END) return;
    if (s->stop == SUP_STOP_NO) record(s, "stop", why);
    LOG_NOTE("%s: the run saves and ends", why);
    s->stop = how > s->stop ? how : s->stop;
    s->stop_since = clock_now();
    if (s->phase != SUP_RUN && s->phase != SUP_REGAIN && s->phase != SUP_CLEAR) {
        finish(s, how == SUP_STOP_DONE ? EXIT_DONE : EXIT_REQUEUE,
               "stopped; no rank ran");
        return;
    }
    if (how == SUP_STOP_DONE) {
        if (fs_path(path, "%s/stop", s->config->run) == KR_OK)
            (void)fs_replace(path, why, strlen(why));
        return;
    }
    out.type = WIRE_SIGNAL;
    out.signal = (struct wire_signal){ s->generation, SIGUSR1 };
    if (s->head >= 0 && s->seats[s->head].link) link_send(s->seats[s->head].link, &out);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct sup *s = handle->data;

    if (number == SIGCHLD) {
        seats_bury(s);
    } else if (s->stop == SUP_STOP_REQUEUE && number == SIGINT) {
        finish(s, EXIT_REQUEUE, "interrupted twice: what was saved before is kept");
    } else {
        ask_to_stop(s, SUP_STOP_REQUEUE, strsignal(number));
    }
}

static void watch_stop(struct sup *s, double now)
{
    if (s->stop && s->phase != SUP_END && now - s->stop_since > save_seconds)
        finish(s, EXIT_IO, "asked to stop, the ranks did not save and end in time");
}

/* ---- links -------------------------------------------------------------------------- */

static void on_open(struct link *l) { (void)l; }

static void on_message(struct link *l, const struct wire_message *m)
{
    struct sup *s = l->owner;
    struct seat *seat = l->mark;

    switch (m->type) {
    case WIRE_HELLO: on_hello(s, l, &m->hello); return;
    case WIRE_ASK: on_ask(s, l, &m->words); return;
    case WIRE_EXEC: on_exec(s, l, m); return;
    default: break;
    }
    if (!seat) return; /* an agent that was refused or replaced has no say */
    switch (m->type) {
    case WIRE_READY: on_ready(s, seat, &m->ready); break;
    case WIRE_BEAT: on_beat(s, seat, &m->beat); break;
    case WIRE_ENDED: on_ended(s, seat, &m->ended); break;
    case WIRE_STARTED: on_started(s, m); break;
    default: link_close(l, "a message that no supervisor takes");
    }
}

static void seat_closed(struct sup *s, struct seat *seat, const char *why)
{
    int32_t node = (int32_t)(seat - s->seats);

    seat->link = NULL;
    seat->next = clock_now();
    if (s->phase == SUP_END) return;
    if (s->nodes.at[node].state == NODE_UP) s->nodes.at[node].state = NODE_AWAY;
    watch_node(&s->watch, node, false, 0);
    LOG_NOTE("%s: connection lost: %s", name_of(s, node), why);
    if (s->nodes.at[node].ranks == 0) return;
    if (s->phase == SUP_CLEAR) lose_node(s, node, why, 0);
    if (s->phase != SUP_RUN) return;
    if (s->fault_at <= 0) s->fault_at = clock_now();
    enter(s, SUP_REGAIN, regain_seconds);
}

static void on_closed(struct link *l, const char *why)
{
    struct sup *s = l->owner;

    for (int i = 0; i < SUP_ASKERS; i++)
        if (s->askers[i] == l) s->askers[i] = NULL;
    if (l->mark)
        seat_closed(s, l->mark, why);
    else if (!l->session.is_open)
        LOG_TRACE("a stranger at %s: %s", l->peer, why);
}

/* ---- a supervisor before this one --------------------------------------------------- */

/* Everything the journal's newest generation needs has reported: go on watching it. */
static bool adopt(struct sup *s, const struct journal_past *past)
{
    int32_t ranks = 0, head = -1;

    for (int32_t i = 0; i < s->nodes.count; i++) {
        const struct wire_hello *h = &s->seats[i].hello;

        if (!s->seats[i].link || h->generation != past->generation) continue;
        ranks += h->ranks;
        if (h->is_head) head = i;
    }
    if (head < 0 || ranks != past->ranks || ranks > s->config->ranks) return false;
    for (int32_t i = 0; i < s->nodes.count; i++) {
        const struct wire_hello *h = &s->seats[i].hello;

        if (s->seats[i].link && h->generation == past->generation && h->ranks > 0)
            s->nodes.at[i].place = h->place;
    }
    s->ranks = nodes_place(&s->nodes, ranks);
    s->head = head;
    watch_begin(&s->watch, s->generation, s->ranks, clock_now());
    json_int(journal_begin(s->journal, "adopted"), "generation", s->generation);
    journal_end(s->journal);
    LOG_NOTE("goes on with generation %" PRId64 ", which never stopped", s->generation);
    enter(s, SUP_RUN, 0);
    return true;
}

static void try_to_adopt(struct sup *s, double now, const struct journal_past *past)
{
    if (adopt(s, past) || now < s->until) return;
    LOG_NOTE("generation %" PRId64 " is not whole any more: it starts anew",
             s->generation);
    end_everything(s);
    enter(s, SUP_GATHER, s->config->wait_seconds);
}

/* ---- time --------------------------------------------------------------------------- */

/* All nodes have said something, or enough have and the rest had its chance. */
static void gather(struct sup *s, double now)
{
    bool all_known = true;
    int32_t fit = nodes_slots_up(&s->nodes);

    for (int32_t i = 0; i < s->nodes.count; i++)
        all_known &= s->nodes.at[i].state != NODE_AWAY;
    if (fit >= s->config->ranks) {
        if (s->lacking_since > 0 || s->hosts_seen <= 0) s->hosts_seen = now;
        s->lacking_since = 0;
        if (all_known || now - s->hosts_seen > gather_rest) go_on(s);
        return;
    }
    if (s->lacking_since <= 0) s->lacking_since = now;
    if (!all_known && now < s->until) return;
    if (fit >= s->config->ranks_min && fit > 0) {
        LOG_WARNING("%d of %d ranks have a place; starts with those", fit,
                    s->config->ranks);
        go_on(s);
    } else if (now >= s->until) {
        decide(s, -1, true);
    }
}

static void read_hosts(struct sup *s);

static void grow(struct sup *s)
{
    if (s->phase == SUP_RUN && s->has_stepped && s->ranks < s->config->ranks &&
        nodes_slots_up(&s->nodes) > s->ranks && !s->will_regroup)
        regroup(s, "more nodes are there than it uses");
}

static void copy_output(struct sup *s)
{
    static char bytes[COPY];
    ssize_t n;
    char path[FS_PATH];

    if (s->output < 0 && fs_path(path, "%s/output.log", s->config->run) == KR_OK)
        s->output = open(path, O_RDONLY | O_CLOEXEC);
    while (s->output >= 0 && (n = read(s->output, bytes, sizeof bytes)) > 0)
        if (write(STDOUT_FILENO, bytes, (size_t)n) < 0) break;
}

static void judge(struct sup *s, double now)
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
}

/* The limits of phases. */
static void look_at_clock(struct sup *s, double now)
{
    switch (s->phase) {
    case SUP_GATHER: gather(s, now); break;
    case SUP_PAUSE:
        if (now >= s->until) go_on(s);
        break;
    case SUP_CLEAR:
        for (int32_t i = 0; now >= s->until && i < s->nodes.count; i++)
            if (s->nodes.at[i].ranks > 0 && !s->seats[i].is_ready) {
                lose_node(s, i, "it did not make ready in time", now - s->until);
                break;
            }
        break;
    case SUP_REGAIN:
        for (int32_t i = 0; now >= s->until && i < s->nodes.count; i++)
            if (s->nodes.at[i].ranks > 0 && s->nodes.at[i].state != NODE_UP) {
                lose_node(s, i, "its connection broke and did not come back",
                          now - s->until + regain_seconds);
                break;
            }
        break;
    default: break;
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct sup *s = timer->data;
    double now = clock_now(), lag = now - s->ticked - 1e-3 * TICK_MS;
    bool all_gone = true;

    if (lag > 1) watch_forgive(&s->watch, lag);
    s->ticked = now;
    copy_output(s);
    door_sweep(&s->door, now);
    for (int32_t i = 0; i < s->nodes.count; i++)
        all_gone &= s->seats[i].link == NULL;
    if (s->phase == SUP_END && (all_gone || now >= s->until)) {
        leave(s);
        return;
    }
    if (s->phase == SUP_END) return;
    if (s->phase == SUP_ADOPT)
        try_to_adopt(s, now, &s->past);
    else
        seats_tick(s, now);
    judge(s, now);
    look_at_clock(s, now);
    watch_stop(s, now);
    read_hosts(s);
    grow(s);
}

/* ---- the host file, again ----------------------------------------------------------- */

static void add_host(struct sup *s, const struct node *new)
{
    struct node *old = nodes_find(&s->nodes, new->name);

    if (old && old->state != NODE_GONE) return;
    if (old)
        old->state = NODE_AWAY;
    else if (nodes_add(&s->nodes, new->name, new->slots) != KR_OK)
        return;
    LOG_NOTE("the host file has a new node: %s", new->name);
}

/* New names join; nodes that left it lose their ranks at the next step boundary. */
static void read_hosts(struct sup *s)
{
    static double read_at;
    double now = clock_now();
    struct nodes again = { 0 };
    char *text = NULL;
    size_t bytes;
    bool lost_ranks = false;

    if (!s->config->hostfile || now - read_at < hosts_seconds) return;
    read_at = now;
    if (!fs_exists(s->config->hostfile) ||
        fs_read_all(s->config->hostfile, &text, &bytes, 1 << 20) != KR_OK)
        return;
    if (nodes_parse(&again, text, s->config->hostfile) == KR_OK) {
        for (int32_t i = 0; i < again.count; i++)
            add_host(s, &again.at[i]);
        for (int32_t i = 0; i < s->nodes.count; i++) {
            struct node *n = &s->nodes.at[i];

            if (n->state == NODE_GONE || nodes_find(&again, n->name)) continue;
            LOG_NOTE("the host file has lost %s", n->name);
            n->state = NODE_GONE;
            lost_ranks |= n->ranks > 0;
        }
    }
    if (lost_ranks && s->phase == SUP_RUN) regroup(s, "a node left the host file");
    nodes_free(&again);
    mem_free(text);
}

/* ---- start -------------------------------------------------------------------------- */

/* The address of this host from which the first node is reached. */
static void find_address(const struct sup *s, char host[64])
{
    struct addrinfo want = { .ai_socktype = SOCK_DGRAM }, *at = NULL;
    struct sockaddr_storage own = { 0 };
    socklen_t len = sizeof own;
    int fd = -1;

    snprintf(host, 64, "%s", s->config->bind ? s->config->bind : "127.0.0.1");
    if (s->config->bind || s->config->start == SUP_FORK) return;
    if (getaddrinfo(s->nodes.at[s->nodes.count - 1].name, "9", &want, &at) != 0) return;
    fd = socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        getsockname(fd, (struct sockaddr *)&own, &len) == 0)
        (void)getnameinfo((struct sockaddr *)&own, len, host, 64, NULL, 0,
                          NI_NUMERICHOST);
    if (fd >= 0) close(fd);
    freeaddrinfo(at);
}

/* A token that agents of an earlier supervisor know is kept. */
static kr_status open_door(struct sup *s)
{
    static const struct link_events events = { on_open, on_message, on_closed };
    struct address old;

    if (address_read(&old, s->config->run) == KR_OK)
        s->address.token = old.token;
    else
        TRY(address_token(&s->address.token));
    find_address(s, s->address.host);
    TRY(door_open(&s->door, &s->loop, s->address.host, &s->address.token, &events, s));
    s->address.port = s->door.port;
    return address_write(&s->address, s->config->run);
}

static void record_launch(struct sup *s)
{
    struct mem_text *t = journal_begin(s->journal, "launch");
    char host[256] = "";

    (void)gethostname(host, sizeof host - 1);
    json_text(t, "run", s->id);
    json_int(t, "ranks_wanted", s->config->ranks);
    json_text(t, "host", host);
    json_int(t, "pid", getpid());
    journal_end(s->journal);
}

static kr_status remember(struct sup *s)
{
    uint64_t id;

    TRY(journal_open(&s->journal, s->config->run, &s->past));
    if (getrandom(&id, sizeof id, 0) != sizeof id) return KR_ERR_IO;
    snprintf(s->id, sizeof s->id, "%016" PRIx64, id);
    if (s->past.run[0]) memcpy(s->id, s->past.run, sizeof s->id);
    s->generation = s->past.generation;
    s->furthest = s->past.is_over ? -1 : s->past.step;
    record_launch(s);
    return KR_OK;
}

static void start_loop(struct sup *s)
{
    static const int numbers[SUP_SIGNALS] = { SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGHUP };

    signal(SIGPIPE, SIG_IGN);
    s->tick.data = s;
    uv_timer_init(&s->loop, &s->tick);
    uv_timer_start(&s->tick, on_tick, 0, TICK_MS);
    for (int i = 0; i < SUP_SIGNALS; i++) {
        uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, numbers[i]);
    }
    s->began = s->ticked = clock_now();
}

static kr_status open_supervisor(struct sup *s)
{
    char path[FS_PATH];

    TRY(mem_alloc(&s->seats, NODES_MAX, sizeof *s->seats, "nodes"));
    TRY(watch_open(&s->watch, NODES_MAX, s->config->ranks, silence));
    TRY(fs_mkdirs(s->config->run));
    TRY(remember(s));
    TRY(fs_path(path, "%s/output.log", s->config->run));
    if ((s->output = open(path, O_RDONLY | O_CLOEXEC)) >= 0)
        lseek(s->output, 0, SEEK_END);
    return open_door(s);
}

static int code_of(kr_status st)
{
    switch (st) {
    case KR_ERR_ARG: return EXIT_USAGE;
    case KR_ERR_BUSY: return EXIT_BUSY;
    case KR_ERR_IO: return EXIT_IO;
    default: return EXIT_FAILED;
    }
}

int supervisor_run(const struct sup_config *config, struct nodes *nodes)
{
    static struct sup s; /* links are as large as their buffers; one per process */
    kr_status st;

    s = (struct sup){ .config = config, .nodes = *nodes, .head = -1, .output = -1 };
    *nodes = (struct nodes){ 0 };
    uv_loop_init(&s.loop);
    st = open_supervisor(&s);
    if (st == KR_OK) {
        start_loop(&s);
        if (s.past.generation > 0 && !s.past.is_over)
            enter(&s, SUP_ADOPT, adopt_seconds);
        else
            enter(&s, SUP_GATHER, config->wait_seconds);
        uv_run(&s.loop, UV_RUN_DEFAULT);
    }
    copy_output(&s);
    if (s.output >= 0) close(s.output);
    journal_close(s.journal);
    watch_close(&s.watch);
    nodes_free(&s.nodes);
    mem_free(s.seats);
    mem_text_free(&s.text);
    return st == KR_OK ? s.exit_code : code_of(st);
}
