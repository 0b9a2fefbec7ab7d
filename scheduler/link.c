/* link.c - frames in and out of sockets. */
#include "scheduler/link.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

enum { UNREAD_MAX = 8 << 20, ROOM_STRANGER = 128, BACKLOG = 512, KEEPALIVE = 60 /* s */ };

/* Messages are large (wire.h) and there is one thread: one for all links. */
static struct wire_message message;
static uint8_t frame[WIRE_HEAD + WIRE_MAX];

/* ---- closing ------------------------------------------------------------------------ */

static void forget(struct link *l)
{
    struct link **at;

    if (!l->door) return;
    for (at = &l->door->links; *at && *at != l; at = &(*at)->next)
        ;
    if (*at) {
        *at = l->next;
        l->door->count--;
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;

    forget(l);
    l->on->closed(l, l->why);
    free(l->in);
    mem_free(l);
}

void link_close(struct link *l, const char *fmt, ...)
{
    va_list ap;

    if (l->is_closing) return;
    l->is_closing = true;
    va_start(ap, fmt);
    vsnprintf(l->why, sizeof l->why, fmt, ap);
    va_end(ap);
    uv_close((uv_handle_t *)&l->tcp, on_closed);
}

/* ---- out ---------------------------------------------------------------------------- */

struct letter {
    uv_write_t request;
    struct link *link;
    uint8_t bytes[];
};

static void on_written(uv_write_t *request, int status)
{
    struct letter *letter = request->data;

    if (status < 0 && status != UV_ECANCELED)
        link_close(letter->link, "%s", uv_strerror(status));
    free(letter);
}

void link_send(struct link *l, const struct wire_message *m)
{
    size_t len;
    struct letter *letter;
    uv_buf_t buf;

    if (l->is_closing) return;
    if (uv_stream_get_write_queue_size((uv_stream_t *)&l->tcp) > UNREAD_MAX) {
        link_close(l, "it does not read what it is sent");
        return;
    }
    len = wire_put(&l->session, m, frame, sizeof frame);
    letter = len > 0 ? malloc(sizeof *letter + len) : NULL;
    if (!letter) {
        link_close(l, "no room for a message of type %s", wire_type_text(m->type));
        return;
    }
    letter->link = l;
    letter->request.data = letter;
    memcpy(letter->bytes, frame, len);
    buf = uv_buf_init((char *)letter->bytes, (unsigned)len);
    if (uv_write(&letter->request, (uv_stream_t *)&l->tcp, &buf, 1, on_written) == 0)
        return;
    free(letter);
    link_close(l, "cannot write");
}

void link_say(struct link *l, enum wire_type type, int32_t code, const char *text)
{
    static struct wire_message m;

    m.type = type;
    m.words = (struct wire_words){ code, { text, (uint32_t)strlen(text) + 1 } };
    link_send(l, &m);
}

static void send_nonce(struct link *l, enum wire_type type)
{
    static struct wire_message m;
    const uint8_t *own = l->session.salt + (l->session.is_server ? 0 : WIRE_NONCE);

    m.type = type;
    memcpy(m.nonce, own, WIRE_NONCE);
    link_send(l, &m);
}

/* ---- in ----------------------------------------------------------------------------- */

static void on_room(uv_handle_t *handle, size_t hint, uv_buf_t *buf)
{
    struct link *l = handle->data;
    size_t room = l->session.is_open ? sizeof frame : ROOM_STRANGER;
    uint8_t *in = l->in;

    (void)hint;
    if (l->room < room && (in = realloc(l->in, room))) {
        l->in = in;
        l->room = room;
    }
    *buf = l->have < l->room && in
               ? uv_buf_init((char *)l->in + l->have, (unsigned)(l->room - l->have))
               : uv_buf_init(NULL, 0);
}

static void take(struct link *l, const struct wire_message *m)
{
    if (m->type == WIRE_CHALLENGE) send_nonce(l, WIRE_ANSWER);
    if (m->type == WIRE_CHALLENGE || m->type == WIRE_ANSWER)
        l->on->open(l);
    else
        l->on->message(l, m);
}

static void take_all(struct link *l)
{
    size_t at = 0, used = 1;
    const char *why = "";

    while (used > 0 && !l->is_closing) {
        if (wire_take(&l->session, l->in + at, l->have - at, &message, &used, &why) !=
            KR_OK) {
            link_close(l, "%s", why);
            return;
        }
        at += used;
        if (used > 0) take(l, &message);
    }
    if (l->is_closing) return;
    memmove(l->in, l->in + at, l->have - at);
    l->have -= at;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct link *l = stream->data;

    (void)buf;
    if (n < 0)
        link_close(l, "%s",
                   n == UV_EOF ? "it closed the connection" : uv_strerror((int)n));
    if (n <= 0) return;
    l->have += (size_t)n;
    take_all(l);
}

static kr_status begin_reading(struct link *l)
{
    uv_tcp_nodelay(&l->tcp, 1);
    uv_tcp_keepalive(&l->tcp, 1,
                     KEEPALIVE); /* else a peer that lost power stays for ever */
    if (uv_read_start((uv_stream_t *)&l->tcp, on_room, on_read) != 0) return KR_ERR_IO;
    if (l->session.is_server) send_nonce(l, WIRE_CHALLENGE);
    return KR_OK;
}

/* ---- making ------------------------------------------------------------------------- */

static kr_status make(struct link **out, uv_loop_t *loop, const struct wire_token *token,
                      bool is_server, const struct link_events *on, void *owner)
{
    uint8_t nonce[WIRE_NONCE];
    struct link *l = NULL;

    if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce)
        return KR_FAIL(KR_ERR_IO, "the system gives no random numbers");
    TRY(mem_alloc(&l, 1, sizeof *l, "connection"));
    if (uv_tcp_init(loop, &l->tcp) != 0) {
        mem_free(l);
        return KR_FAIL(KR_ERR_IO, "no more connections");
    }
    l->tcp.data = l->connect.data = l;
    l->on = on;
    l->owner = owner;
    l->since = clock_now();
    wire_begin(&l->session, token, is_server, nonce);
    *out = l;
    return KR_OK;
}

static bool read_address(const char *address, int port, struct sockaddr_storage *out)
{
    return uv_ip4_addr(address, port, (struct sockaddr_in *)out) == 0 ||
           uv_ip6_addr(address, port, (struct sockaddr_in6 *)out) == 0;
}

static void on_connected(uv_connect_t *request, int status)
{
    struct link *l = request->data;

    if (status == 0 && begin_reading(l) == KR_OK) return;
    if (status != UV_ECANCELED)
        link_close(l, "%s", status ? uv_strerror(status) : "cannot read");
}

kr_status link_connect(struct link **out, uv_loop_t *loop, const char *address, int port,
                       const struct wire_token *token, const struct link_events *on,
                       void *owner)
{
    struct sockaddr_storage to = { 0 };
    struct link *l = NULL;
    int error;

    if (!read_address(address, port, &to)) return KR_ERR_ARG;
    TRY(make(&l, loop, token, false, on, owner));
    snprintf(l->peer, sizeof l->peer, "%s", address);
    *out = l;
    error = uv_tcp_connect(&l->connect, &l->tcp, (struct sockaddr *)&to, on_connected);
    if (error) link_close(l, "%s", uv_strerror(error));
    return KR_OK;
}

/* ---- the door ----------------------------------------------------------------------- */

static void name_peer(struct link *l)
{
    struct sockaddr_storage from = { 0 };
    int len = sizeof from;

    snprintf(l->peer, sizeof l->peer, "?");
    if (uv_tcp_getpeername(&l->tcp, (struct sockaddr *)&from, &len) != 0) return;
    if (from.ss_family == AF_INET6)
        uv_ip6_name((struct sockaddr_in6 *)&from, l->peer, sizeof l->peer);
    else
        uv_ip4_name((struct sockaddr_in *)&from, l->peer, sizeof l->peer);
}

/* A flood of strangers pushes out the oldest of them and nobody else. */
static void make_room(struct door *d)
{
    struct link *oldest = NULL;
    int strangers = 0;

    for (struct link *l = d->links; l; l = l->next) {
        if (l->session.is_open || l->is_closing) continue;
        strangers++;
        oldest = l; /* newer ones are in front */
    }
    if (strangers >= DOOR_STRANGERS) link_close(oldest, "too many strangers");
}

static void on_knock(uv_stream_t *server, int status)
{
    struct door *d = server->data;
    struct link *l = NULL;

    if (status < 0) return;
    make_room(d);
    if (make(&l, server->loop, &d->token, true, d->on, d->owner) != KR_OK) return;
    l->door = d;
    l->next = d->links;
    d->links = l;
    d->count++;
    if (uv_accept(server, (uv_stream_t *)&l->tcp) != 0 || d->count > DOOR_LINKS ||
        begin_reading(l) != KR_OK)
        link_close(l, "no room");
    else
        name_peer(l);
}

static void find_port(struct door *d)
{
    struct sockaddr_storage at = { 0 };
    int len = sizeof at;

    if (uv_tcp_getsockname(&d->tcp, (struct sockaddr *)&at, &len) != 0) return;
    d->port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                             : ((struct sockaddr_in *)&at)->sin_port);
}

kr_status door_open(struct door *d, uv_loop_t *loop, const char *address,
                    const struct wire_token *token, const struct link_events *on,
                    void *owner)
{
    struct sockaddr_storage at = { 0 };
    int error;

    *d = (struct door){ .token = *token, .on = on, .owner = owner };
    snprintf(d->address, sizeof d->address, "%s", address);
    if (!read_address(address, 0, &at))
        return KR_FAIL(KR_ERR_ARG, "--bind %s: no IPv4 or IPv6 address", address);
    uv_tcp_init(loop, &d->tcp);
    d->tcp.data = d;
    error = uv_tcp_bind(&d->tcp, (struct sockaddr *)&at, 0);
    if (!error) error = uv_listen((uv_stream_t *)&d->tcp, BACKLOG, on_knock);
    if (error)
        return KR_FAIL(KR_ERR_ARG, "cannot listen on %s: %s", address,
                       uv_strerror(error));
    find_port(d);
    return KR_OK;
}

void door_sweep(struct door *d, double now)
{
    for (struct link *l = d->links; l; l = l->next)
        if (!l->session.is_open && now - l->since > DOOR_STRANGER_SECONDS)
            link_close(l, "it has not proved the token");
}

void door_close(struct door *d)
{
    for (struct link *l = d->links; l; l = l->next)
        link_close(l, "the supervisor ends");
    if (!uv_is_closing((uv_handle_t *)&d->tcp)) uv_close((uv_handle_t *)&d->tcp, NULL);
}
