/*
 * checks.c - nodes are measured against each other before the first start, spares again
 * while they wait.
 *
 * Before the start all measure the link to the next one at the same time; who looks bad
 * then does it once more, alone and with another partner.  A spare is checked whole, at a
 * low rate; it takes three bad links in a row, with different partners, to leave it out, and a
 * partner that is silent itself proves nothing.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "scheduler/links.h"
#include "scheduler/supervisor.h"

static const double answer_seconds = 3, soon_seconds = 2, silent_seconds = 1.5;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

static bool can_check(const struct sup *s, int32_t node)
{
    return s->nodes.at[node].state == NODE_UP && s->seats[node].link &&
           s->seats[node].hello.port > 0;
}

/* The `nth` node after this one that can be a partner; -1: none. */
static int32_t partner_of(const struct sup *s, int32_t node, int32_t nth)
{
    for (int32_t i = 1; i < s->nodes.count; i++) {
        int32_t other = (node + i) % s->nodes.count;

        if (can_check(s, other) && nth-- == 0) return other;
    }
    return -1;
}

static void ask(struct sup *s, int32_t node, int32_t partner, bool is_whole, double now)
{
    struct seat *seat = &s->seats[node];
    const struct seat *other = &s->seats[partner];

    seat->asked = now;
    seat->has_answered = false;
    seat->partner = partner;
    out.type = WIRE_CHECK;
    out.check = (struct wire_check){ .is_whole = is_whole, .port = other->hello.port };
    snprintf(out.check.host, sizeof out.check.host, "%s", other->link->peer);
    link_send(seat->link, &out);
}

/* ---- before the first start --------------------------------------------------------- */

static bool all_answered(const struct sup *s)
{
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (s->seats[i].asked > 0 && !s->seats[i].has_answered && can_check(s, i))
            return false;
    return true;
}

static void ask_all(struct sup *s, double now)
{
    for (int32_t i = 0; i < s->nodes.count; i++) {
        int32_t other = can_check(s, i) ? partner_of(s, i, 0) : -1;

        s->seats[i].speed = (struct link_speed){ 0 };
        if (other >= 0) ask(s, i, other, false, now);
    }
}

/* What is normal, and who is suspect: asked again, with the second node after it.  Are
 * there any? */
static bool look_closer(struct sup *s, double now)
{
    static struct link_speed best[NODES_MAX];
    static double room[NODES_MAX];
    int32_t count = 0, asked = 0;

    for (int32_t i = 0; i < s->nodes.count; i++) {
        best[i] = links_better(best[i], s->seats[i].speed);
        if (s->seats[i].asked > 0)
            best[s->seats[i].partner] =
                links_better(best[s->seats[i].partner], s->seats[i].speed);
        count += best[i].rate > 0;
    }
    if (count >= LINKS_FEWEST) {
        s->normal = links_median(best, s->nodes.count, room);
        LOG_NOTE("links between nodes: %.3g MB/s each way, %.3g ms there and back",
                 1e-6 * s->normal.rate, 1e3 * s->normal.round_trip);
    }
    for (int32_t i = 0; i < s->nodes.count; i++) {
        bool is_bad =
            s->seats[i].asked > 0 && links_is_bad(best[i], s->normal, LINKS_IDLE);
        int32_t other = is_bad ? partner_of(s, i, 1) : -1;

        s->seats[i].has_answered = true;
        if (other < 0) continue;
        ask(s, i, other, false, now);
        asked++;
    }
    return asked > 0;
}

static void leave_out(struct sup *s, int32_t node)
{
    const struct seat *seat = &s->seats[node];
    char why[WIRE_TEXT];

    snprintf(why, sizeof why,
             "link: %.3g MB/s, %.3g ms to %s; normal here are %.3g MB/s, %.3g ms",
             1e-6 * seat->speed.rate, 1e3 * seat->speed.round_trip,
             sup_name(s, seat->partner), 1e-6 * s->normal.rate,
             1e3 * s->normal.round_trip);
    sup_reject(s, node, why);
}

/* Those that were asked again. */
static void leave_out_bad(struct sup *s)
{
    for (int32_t i = 0; i < s->nodes.count; i++)
        if (s->seats[i].asked >= s->links_since &&
            links_is_bad(s->seats[i].speed, s->normal, LINKS_IDLE))
            leave_out(s, i);
}

static int32_t checkable(const struct sup *s)
{
    int32_t count = 0;

    for (int32_t i = 0; i < s->nodes.count; i++)
        count += can_check(s, i);
    return count;
}

bool sup_links_known(struct sup *s, double now)
{
    if (s->links == LINKS_NEW && checkable(s) < LINKS_FEWEST) s->links = LINKS_KNOWN;
    if (s->links == LINKS_KNOWN) return true;
    if (s->links != LINKS_NEW && !all_answered(s) &&
        now - s->links_since <= answer_seconds)
        return false;
    switch (s->links) {
    case LINKS_NEW:
        s->links_since = now;
        ask_all(s, now);
        s->links = LINKS_FIRST;
        return false;
    case LINKS_FIRST:
        s->links_since = now;
        s->links = look_closer(s, now) ? LINKS_AGAIN : LINKS_KNOWN;
        return s->links == LINKS_KNOWN;
    default:
        leave_out_bad(s);
        s->links = LINKS_KNOWN;
        return false; /* there may be too few nodes now */
    }
}

/* ---- spares while they wait ---------------------------------------------------------- */

static double pace(void)
{
    const char *text = getenv("KILORANK_CHECK_SECONDS");
    double seconds = text ? atof(text) : 0;

    return seconds > 0 ? seconds : 300;
}

void sup_check_spares(struct sup *s, double now)
{
    double seconds = pace();

    if (s->phase != SUP_RUN) return;
    for (int32_t i = 0; i < s->nodes.count; i++) {
        struct seat *seat = &s->seats[i];
        double wait = seat->bad_links > 0 ? soon_seconds : seconds;
        int32_t other;

        if (s->nodes.at[i].ranks > 0 || !can_check(s, i) || now - seat->asked < wait)
            continue;
        other = partner_of(s, i, seat->bad_links);
        if (other >= 0) ask(s, i, other, true, now);
    }
}

/* It may be the partner that is being lost. */
static bool is_silent(const struct sup *s, int32_t node)
{
    return s->watch.heard[node] < 0 ||
           clock_now() - s->watch.heard[node] > silent_seconds;
}

void sup_on_checked(struct sup *s, struct seat *seat, const struct wire_checked *c)
{
    int32_t node = (int32_t)(seat - s->seats);

    seat->has_answered = true;
    seat->speed = (struct link_speed){ c->rate, c->round_trip };
    if (s->links == LINKS_FIRST || s->links == LINKS_AGAIN) return;
    if (c->trouble[0]) {
        sup_reject(s, node, c->trouble);
        return;
    }
    if (!links_is_bad(seat->speed, s->normal, LINKS_BUSY))
        seat->bad_links = 0;
    else if (!is_silent(s, seat->partner) && ++seat->bad_links >= 3)
        leave_out(s, node);
}
