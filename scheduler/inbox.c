/* inbox.c - what agents and commands tell and ask. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/exitcode.h"
#include "scheduler/history.h"
#include "scheduler/supervisor.h"

static const double regain_seconds = 2;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

/* ---- agents ------------------------------------------------------------------------- */

static void refuse(struct link *l, const char *why)
{
    link_say(l, WIRE_REFUSE, 0, why);
    l->mark = NULL;
}

/* The agent itself came again, and this is a connection it has given up. */
static void replace(struct link *l)
{
    l->mark = NULL;
    link_close(l, "it came again");
}

static void reject(struct sup *s, int32_t node, const char *why)
{
    LOG_WARNING("node %s is left out: %s", sup_name(s, node), why);
    sup_record_node(s, node, "bad", why);
    history_add(sup_name(s, node), why);
    sup_note(s, node, "%s", why);
    s->nodes.at[node].state = NODE_BAD;
}

void sup_reject(struct sup *s, int32_t node, const char *why)
{
    struct link *l = s->seats[node].link;

    reject(s, node, why);
    watch_node(&s->watch, node, false, 0);
    s->seats[node].link = NULL;
    if (l) refuse(l, why);
}

static void take_seat(struct sup *s, int32_t node, struct link *l,
                      const struct wire_hello *h)
{
    struct seat *seat = &s->seats[node];

    if (seat->link &&
        seat->hello.pid != h->pid) /* two would push each other out for ever */
        refuse(seat->link, "another agent of its node came");
    else if (seat->link)
        replace(seat->link);
    seat->link = l;
    seat->hello = *h;
    seat->tries = seat->bad_links = 0;
    seat->asked = 0;
    seat->trouble[0] = '\0';
    l->mark = seat;
    s->nodes.at[node].state = NODE_UP;
    watch_node(&s->watch, node, true, clock_now());
    link_say(l, WIRE_WELCOME, 0, "");
    sup_record_node(s, node, "up", "");
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
        LOG_NOTE("%s is back, and its ranks never left", sup_name(s, node));
        s->fault_at = 0;
        s->is_told = false; /* if it was, perhaps over the lost connection */
        s->watch.said.kind =
            WATCH_FINE; /* a hang that was found meanwhile is one still */
        sup_enter(s, SUP_RUN, 0);
    } else {
        sup_fault(s, &(struct sup_fault){ "agent died", node, -1, -1, true, 0 },
                  "it is back, its ranks are gone");
    }
}

static void on_hello(struct sup *s, struct link *l, const struct wire_hello *h)
{
    struct node *n = nodes_find(&s->nodes, h->node);
    int32_t node = n ? (int32_t)(n - s->nodes.at) : -1;

    if (l->mark) {
        link_close(l, "it says twice who it is");
        return;
    }
    if (s->phase == SUP_END) {
        link_say(l, WIRE_LEAVE, 0, "");
        return;
    }
    if (h->generation > s->generation) {
        refuse(l, "what runs there is of another run");
        return;
    }
    if (!n || n->state == NODE_GONE || n->state == NODE_BAD ||
        h->version != WIRE_VERSION) {
        refuse(l, !n || n->state == NODE_GONE ? "no node of this run"
                  : n->state == NODE_BAD      ? "it was left out"
                                              : "another version of kilorank");
        return;
    }
    if (h->trouble[0]) {
        reject(s, node, h->trouble);
        refuse(l, h->trouble);
        return;
    }
    take_seat(s, node, l, h);
    if (s->phase == SUP_ADOPT) return;
    if (n->ranks > 0 && s->phase == SUP_REGAIN)
        regain(s, node, h);
    else if (n->ranks > 0 && s->phase == SUP_RUN && !is_whole(s, node, h))
        sup_fault(s, &(struct sup_fault){ "agent died", node, -1, -1, true, 0 },
                  "another one came in its place");
    else if (n->ranks == 0 || s->phase != SUP_RUN)
        sup_send_prepare(s, node, 0);
}

static void on_ready(struct sup *s, struct seat *seat, const struct wire_ready *r)
{
    int32_t node = (int32_t)(seat - s->seats);

    if (s->phase != SUP_CLEAR || r->generation != s->generation) return;
    if (r->trouble[0]) {
        sup_lose_node(s, node, r->trouble, 0);
        return;
    }
    seat->is_ready = true;
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (!s->seats[i].is_ready && s->nodes.at[i].ranks > 0) return;
    sup_run_mpirun(s);
}

static void on_beat(struct sup *s, struct seat *seat, const struct wire_beat *b)
{
    watch_beat(&s->watch, (int32_t)(seat - s->seats), b, clock_now());
    link_say(seat->link, WIRE_WELCOME, 0, ""); /* it wants to hear us too */
    sup_note_steps(s);
}

/* A daemon that fails takes mpirun with it, or leaves it waiting for ever. */
static void on_ended(struct sup *s, struct seat *seat, const struct wire_ended *e)
{
    if (e->generation != s->generation) return;
    if (e->is_head) {
        sup_head_ended(s, e->code);
    } else if (s->daemon_at <= 0) {
        s->daemon_at = clock_now();
        s->daemon_node = (int32_t)(seat - s->seats);
        s->daemon_code = e->code;
    }
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

static void tell_status(struct sup *s, struct link *l, view_write *view)
{
    struct mem_text t = { 0 };

    view(s, &t);
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
    static const struct {
        const char *question;
        view_write *write;
    } views[] = { { "status", view_text },
                  { "status json", view_json },
                  { "status prometheus", view_prometheus } };
    const char *text = wire_next(&w->text, NULL);
    int i = 0;

    for (size_t k = 0; text && k < sizeof views / sizeof *views; k++)
        if (strcmp(text, views[k].question) == 0) {
            tell_status(s, l, views[k].write);
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
    sup_ask_to_stop(s, SUP_STOP_DONE, "kilorank stop");
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
    case WIRE_CHECKED: sup_on_checked(s, seat, &m->checked); break;
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
    LOG_NOTE("%s: connection lost: %s", sup_name(s, node), why);
    if (s->nodes.at[node].ranks == 0) return;
    if (s->phase == SUP_CLEAR) sup_lose_node(s, node, why, 0);
    if (s->phase != SUP_RUN) return;
    if (s->fault_at <= 0) s->fault_at = clock_now();
    sup_enter(s, SUP_REGAIN, regain_seconds);
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

const struct link_events sup_events = { on_open, on_message, on_closed };
