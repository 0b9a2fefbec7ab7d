/* client.c - a socket and poll(2). */
#include "scheduler/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "scheduler/address.h"

struct client {
    int fd;
    struct wire_session session;
    struct wire_message in;
    size_t have, taken;
    uint8_t bytes[WIRE_HEAD + WIRE_MAX], frame[WIRE_HEAD + WIRE_MAX];
};

/* Wait until the socket is ready or it is `until`. */
static kr_status wait_for(int fd, short events, double until)
{
    struct pollfd p = { fd, events, 0 };
    double left;
    int n;

    do {
        left = until - clock_now();
        n = poll(&p, 1, left > 0 ? (int)(1000 * left) + 1 : 0);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? KR_OK : KR_ERR_COMM;
}

static kr_status connect_to(int *out, const struct address *a, double until)
{
    struct addrinfo want = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM },
                    *at = NULL;
    char port[16];
    int fd, error = 0, one = 1;
    socklen_t len = sizeof error;
    kr_status st = KR_OK;

    snprintf(port, sizeof port, "%d", a->port);
    if (getaddrinfo(a->host, port, &want, &at) != 0) return KR_ERR_COMM;
    fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 ||
        (connect(fd, at->ai_addr, at->ai_addrlen) != 0 && errno != EINPROGRESS) ||
        wait_for(fd, POLLOUT, until) != KR_OK ||
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error)
        st = KR_ERR_COMM;
    freeaddrinfo(at);
    if (st != KR_OK && fd >= 0) close(fd);
    if (st != KR_OK) return st;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *out = fd;
    return KR_OK;
}

static kr_status write_all(int fd, const uint8_t *at, size_t bytes, double until)
{
    while (bytes > 0) {
        ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR) return KR_ERR_COMM;
        if (n < 0) {
            TRY(wait_for(fd, POLLOUT, until));
            continue;
        }
        at += n;
        bytes -= (size_t)n;
    }
    return KR_OK;
}

kr_status client_send(struct client *c, const struct wire_message *m)
{
    size_t len = wire_put(&c->session, m, c->frame, sizeof c->frame);

    return len == 0 ? KR_FAIL(KR_ERR_ARG, "a message of type %s is too long",
                              wire_type_text(m->type))
                    : write_all(c->fd, c->frame, len, clock_now() + 10);
}

static kr_status read_more(struct client *c, double until)
{
    ssize_t n;

    TRY(wait_for(c->fd, POLLIN, until));
    n = recv(c->fd, c->bytes + c->have, sizeof c->bytes - c->have, 0);
    if (n > 0) c->have += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)) ? KR_OK : KR_ERR_COMM;
}

kr_status client_receive(struct client *c, const struct wire_message **m, double seconds)
{
    double until = clock_now() + seconds;
    const char *why = "";

    memmove(c->bytes, c->bytes + c->taken, c->have - c->taken);
    c->have -= c->taken;
    c->taken = 0;
    for (;;) {
        if (wire_take(&c->session, c->bytes, c->have, &c->in, &c->taken, &why) != KR_OK)
            return KR_FAIL(KR_ERR_COMM, "what answers is no supervisor of this run: %s",
                           why);
        if (c->taken > 0) break;
        TRY(read_more(c, until));
    }
    *m = &c->in;
    return KR_OK;
}

static kr_status meet(struct client *c, double seconds)
{
    const struct wire_message *in;
    static struct wire_message answer;

    TRY(client_receive(c, &in, seconds));
    answer.type = WIRE_ANSWER;
    memcpy(answer.nonce, c->session.salt + WIRE_NONCE, WIRE_NONCE);
    return client_send(c, &answer);
}

kr_status client_open(struct client **out, const char *run, double seconds)
{
    uint8_t nonce[WIRE_NONCE];
    struct address at;
    struct client *c = NULL;
    kr_status st;

    st = address_read(&at, run);
    if (st != KR_OK) return st == KR_ERR_IO ? KR_ERR_COMM : st;
    if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce) return KR_ERR_IO;
    TRY(mem_alloc(&c, 1, sizeof *c, "connection"));
    c->fd = -1;
    wire_begin(&c->session, &at.token, false, nonce);
    st = connect_to(&c->fd, &at, clock_now() + seconds);
    if (st == KR_OK) st = meet(c, seconds);
    if (st == KR_OK)
        *out = c;
    else
        client_close(c);
    return st;
}

void client_close(struct client *c)
{
    if (!c) return;
    if (c->fd >= 0) close(c->fd);
    mem_free(c);
}

kr_status client_ask(struct client *c, const char *text, double seconds,
                     void (*tell)(const char *text), int32_t *code)
{
    static struct wire_message ask;
    const struct wire_message *in;

    ask.type = WIRE_ASK;
    ask.words = (struct wire_words){ 0, { text, (uint32_t)strlen(text) + 1 } };
    TRY(client_send(c, &ask));
    for (;;) {
        const char *told;

        TRY(client_receive(c, &in, seconds));
        if (in->type != WIRE_TELL && in->type != WIRE_BYE) return KR_ERR_COMM;
        if ((told = wire_next(&in->words.text, NULL)) && *told) tell(told);
        if (in->type == WIRE_TELL) continue;
        *code = in->words.code;
        return KR_OK;
    }
}
