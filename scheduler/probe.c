/* probe.c - echoes, and counting them. */
#include "scheduler/probe.h"

#include <math.h>

#include "base/clock.h"

static const double flood_seconds = 0.25, patience = 2;

/* Large, and one is enough: see link.c. */
static struct wire_message out;

/* ---- the other side ----------------------------------------------------------------- */

static void on_guest(struct link *l) { (void)l; }
static void on_guest_left(struct link *l, const char *why) { (void)l, (void)why; }

static void echo(struct link *l, const struct wire_message *m)
{
    if (m->type == WIRE_PROBE)
        link_send(l, m);
    else
        link_close(l, "only probes are answered here");
}

/* The address by which the supervisor is reached is that of the network to be measured. */
static bool own_address(const struct link *l, char *text, size_t size)
{
    struct sockaddr_storage own = { 0 };
    int len = sizeof own;

    return uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&own, &len) == 0 &&
           (own.ss_family == AF_INET6
                ? uv_ip6_name((struct sockaddr_in6 *)&own, text, size)
                : uv_ip4_name((struct sockaddr_in *)&own, text, size)) == 0;
}

int probe_listen(struct probe *p, uv_loop_t *loop, const struct link *up)
{
    static const struct link_events events = { on_guest, echo, on_guest_left };
    char address[64];

    if (!p->has_listened && own_address(up, address, sizeof address) &&
        door_open(&p->door, loop, address, &up->session.token, &events, p) != KR_OK)
        p->door.port = 0;
    p->has_listened = true;
    return p->door.port;
}

/* ---- this side ---------------------------------------------------------------------- */

static void throw(struct link * l, uint32_t bytes)
{
    static char block[PROBE_BLOCK];

    out.type = WIRE_PROBE;
    out.words = (struct wire_words){ 0, { block, bytes } };
    link_send(l, &out);
}

static void finish(struct probe *p)
{
    struct link *l = p->link;

    if (!l) return;
    p->link = NULL;
    l->owner = NULL;
    link_close(l, "it is measured");
    p->done(p->owner, p->round_trip, p->rate);
}

static void on_open(struct link *l)
{
    struct probe *p = l->owner;

    if (!p) return;
    p->sent_at = clock_now();
    throw(l, 1);
}

static void trip(struct probe *p, struct link *l, double now)
{
    double seconds = now - p->sent_at;

    p->round_trip = p->trips++ == 0 ? seconds : fmin(p->round_trip, seconds);
    p->sent_at = now;
    if (p->trips < PROBE_TRIPS) {
        throw(l, 1);
        return;
    }
    p->flood_began = now;
    for (int i = 0; i < PROBE_FLYING; i++)
        throw(l, PROBE_BLOCK);
}

static void on_message(struct link *l, const struct wire_message *m)
{
    struct probe *p = l->owner;
    double now = clock_now();

    if (!p || m->type != WIRE_PROBE) return;
    if (p->trips < PROBE_TRIPS) {
        trip(p, l, now);
        return;
    }
    p->back += m->words.text.bytes;
    p->rate = (double)p->back / fmax(now - p->flood_began, 1e-9);
    if (p->back >= PROBE_BYTES || now - p->flood_began > flood_seconds)
        finish(p);
    else
        throw(l, PROBE_BLOCK);
}

static void on_closed(struct link *l, const char *why)
{
    struct probe *p = l->owner;

    (void)why;
    if (!p || p->link != l) return;
    p->link = NULL;
    p->done(p->owner, p->round_trip, p->rate);
}

void probe_start(struct probe *p, uv_loop_t *loop, const char *host, int port,
                 const struct wire_token *token, void (*done)(void *, double, double),
                 void *owner)
{
    static const struct link_events events = { on_open, on_message, on_closed };

    finish(p);
    p->done = done;
    p->owner = owner;
    p->began = clock_now();
    p->round_trip = p->rate = 0;
    p->trips = 0;
    p->back = 0;
    if (link_connect(&p->link, loop, host, port, token, &events, p) != KR_OK) {
        p->link = NULL;
        done(owner, 0, 0);
    }
}

void probe_tick(struct probe *p, double now)
{
    if (p->door.port > 0) door_sweep(&p->door, now);
    if (p->link && now - p->began > patience) finish(p);
}
