/*
 * link.h - connections that carry messages, on a libuv loop.
 *
 * One loop and one thread per process.  A link is given to its owner's functions: `open`
 * when the other side has proved the token, `message` for each message, `closed` once at
 * the end with the reason; after that the link is gone.  What the peer sends is judged by
 * wire.h before anybody sees it; a peer that does not read is cut off.
 */
#ifndef SCHED_LINK_H
#define SCHED_LINK_H

#include <stdbool.h>
#include <uv.h>

#include "scheduler/wire.h"

struct link;

struct link_events {
    void (*open)(struct link *l);
    void (*message)(struct link *l, const struct wire_message *m);
    void (*closed)(struct link *l, const char *why);
};

struct link {
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct wire_session session;
    const struct link_events *on;
    void *owner, *mark; /* mark: the owner's, NULL at first */
    struct door *door;  /* it came in through; NULL: we connected */
    struct link *next;  /* of that door */
    double since;
    uint8_t *in;
    size_t have, room;
    bool is_closing;
    char peer[64], why[128];
};

/* Where strangers come in: a listening socket and the links accepted on it. */
struct door {
    uv_tcp_t tcp;
    struct wire_token token;
    const struct link_events *on;
    void *owner;
    struct link *links;
    int count;
    char address[64];
    int port; /* chosen by the system */
};

enum { DOOR_LINKS = 8192, DOOR_STRANGERS = 1024, DOOR_STRANGER_SECONDS = 5 };

/* Listen on an IPv4 or IPv6 address.  KR_ERR_ARG: no address of this host. */
kr_status door_open(struct door *d, uv_loop_t *loop, const char *address,
                    const struct wire_token *token, const struct link_events *on,
                    void *owner);
/* Cut off those that have not proved the token in time.  Once a second or so. */
void door_sweep(struct door *d, double now);
void door_close(struct door *d); /* and its links */

/* Connect.  The link is closed, with the reason, if that fails. */
kr_status link_connect(struct link **out, uv_loop_t *loop, const char *address, int port,
                       const struct wire_token *token, const struct link_events *on,
                       void *owner);

/* Queue a message; nothing is sent on a link that closes. */
void link_send(struct link *l, const struct wire_message *m);
/* The same for types that carry a code and a text. */
void link_say(struct link *l, enum wire_type type, int32_t code, const char *text);

/* `closed` is called later, from the loop. */
__attribute__((format(printf, 2, 3))) void link_close(struct link *l, const char *fmt,
                                                      ...);

#endif
