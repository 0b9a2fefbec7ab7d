/*
 * wire.h - messages between the supervisor, its agents and the commands that ask it.
 *
 * Pure: bytes in, messages out; link.h and client.h move the bytes.  What comes in is
 * hostile until checked: every length has a limit, a frame with a wrong seal ends the
 * connection, texts are ended and hold no control characters.
 *
 * A frame is a head of 16 bytes, all numbers little endian, and a payload:
 *
 *   uint32 bytes of payload, uint8 type, 3 bytes 0, uint64 seal
 *
 * The seal is SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012)
 * keyed with the run's token, over both sides' nonces, the direction, the number of the
 * frame in its direction, its type and the payload.  So the token never crosses the wire,
 * and no frame can be forged, repeated, or carried over from another connection.  Nothing
 * is secret: who can listen can read.
 *
 *   side that accepted    CHALLENGE (nonce, no seal) ->
 *   side that connected   <- ANSWER (nonce, sealed), HELLO, ...
 */
#ifndef SCHED_WIRE_H
#define SCHED_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    WIRE_VERSION = 2,
    WIRE_HEAD = 16,
    WIRE_MAX = 256 << 10, /* bytes of payload, from somebody who has proved the token */
    WIRE_MAX_STRANGER = 64,
    WIRE_RANKS = 256, /* per node */
    WIRE_NAME = 64,
    WIRE_TEXT = 384,
    WIRE_NONCE = 16,
};

/* clang-format off */
/*    type        from       to          meaning */
#define WIRE_TYPE_MAP(X)                                                                   \
    X(CHALLENGE)  /* server  peer        nonce */                                          \
    X(ANSWER)     /* peer    server      nonce; its seal proves the token */               \
    X(HELLO)      /* agent   supervisor  who I am and what runs here */                    \
    X(WELCOME)    /* sup.    agent       you are one of us */                              \
    X(REFUSE)     /* sup.    agent       you are not, and why: end */                      \
    X(PREPARE)    /* sup.    agent       end all ranks of earlier generations, make ready */ \
    X(READY)      /* agent   supervisor  done, nothing older lives here */                 \
    X(RUN)        /* sup.    agent       start mpirun here */                              \
    X(EXEC)       /* helper  sup., agent start one of Open MPI's daemons */                \
    X(STARTED)    /* agent   sup., helper  its process is there, or why not */             \
    X(ENDED)      /* agent   supervisor  mpirun or a daemon ended */                       \
    X(BEAT)       /* agent   supervisor  once a second, or when a rank died */             \
    X(CHECK)      /* sup.    agent       measure the link to another node, or check all */ \
    X(CHECKED)    /* agent   supervisor  what was found */                                 \
    X(PROBE)      /* agent   agent       comes back as it is */                            \
    X(SIGNAL)     /* sup.    agent       to mpirun */                                      \
    X(LEAVE)      /* sup.    agent       clean up and end */                               \
    X(ASK)        /* command supervisor  status, stop */                                   \
    X(TELL)       /* sup.    command     part of the reply */                              \
    X(BYE)        /* sup.    command     end of the reply, and its code */
/* clang-format on */

enum wire_type {
#define X(name) WIRE_##name,
    WIRE_TYPE_MAP(X)
#undef X
        WIRE_TYPES
};

/* Texts one after the other, each ended by NUL. */
struct wire_list {
    const char *at;
    uint32_t bytes;
};

struct wire_hello {
    uint32_t version;
    int64_t generation; /* running here; 0: none */
    int64_t pid;
    uint8_t is_head;         /* mpirun of that generation runs here */
    int32_t place, ranks;    /* of this node in that generation */
    char node[WIRE_NAME];    /* as the supervisor calls it */
    char trouble[WIRE_TEXT]; /* what the node check found; empty: well */
    int32_t cores;
    uint64_t memory; /* bytes that are free */
    int32_t port;    /* where it answers probes; 0: nowhere */
};

/* PREPARE; environment: NAME=VALUE for all that is started in this generation. */
struct wire_prepare {
    int64_t generation; /* 0: end everything, prepare nothing */
    int32_t ranks;      /* that will run here */
    int32_t place;      /* of this node among those with ranks */
    struct wire_list environment;
};

struct wire_ready {
    int64_t generation;
    char trouble[WIRE_TEXT];
};

struct wire_run {
    int64_t generation;
    struct wire_list argv;
};

struct wire_exec {
    int64_t generation;
    uint64_t id;
    char node[WIRE_NAME];
    struct wire_list command; /* one: for sh -c */
};

struct wire_started {
    uint64_t id;
    char trouble[WIRE_TEXT];
};

struct wire_ended {
    int64_t generation;
    uint8_t is_head;
    int32_t code; /* exit status, or 128 + signal */
};

/* One rank, as its slot in the pulse file says. */
struct wire_rank {
    int32_t rank, phase, exit_code;
    uint8_t is_alive; /* its process is there */
    uint8_t state;    /* of the process, the letter of /proc: 'T' is stopped; 0: none */
    int64_t pid, step;
    double age; /* seconds since it last changed anything */
    uint64_t entered, left;
    double compute_seconds, wait_seconds, loss, snapshot_seconds;
    int64_t snapshot_step;
    char entered_name[24];
    char note[WIRE_TEXT];
};

struct wire_beat {
    int64_t generation;
    uint64_t number;
    double lag;      /* seconds this beat is late, by the agent's clock */
    uint64_t memory; /* bytes that are free */
    int32_t count;
    struct wire_rank ranks[WIRE_RANKS];
};

struct wire_signal {
    int64_t generation;
    int32_t number;
};

struct wire_check {
    uint8_t is_whole; /* the node too, not only its link */
    char host[WIRE_NAME];
    int32_t port; /* of the partner */
};

struct wire_checked {
    double round_trip, rate; /* seconds; bytes a second each way, 0: no link */
    char trouble[WIRE_TEXT]; /* of the node */
};

/* ASK, TELL, REFUSE, BYE, WELCOME, PROBE */
struct wire_words {
    int32_t code;
    struct wire_list text;
};

struct wire_message {
    enum wire_type type;
    union {
        uint8_t nonce[WIRE_NONCE];
        struct wire_hello hello;
        struct wire_prepare prepare;
        struct wire_ready ready;
        struct wire_run run;
        struct wire_exec exec;
        struct wire_started started;
        struct wire_ended ended;
        struct wire_beat beat;
        struct wire_signal signal;
        struct wire_check check;
        struct wire_checked checked;
        struct wire_words words;
    };
};

struct wire_token {
    uint8_t key[16];
};

/* One end of a connection. */
struct wire_session {
    struct wire_token token;
    uint8_t salt[2 * WIRE_NONCE]; /* nonce of the server, nonce of the peer */
    uint64_t sent, received;      /* sealed frames */
    bool is_server, is_open;      /* open: both nonces are known */
};

/* A session of the side that accepted (is_server) or connected; nonce: this side's,
 * random. */
void wire_begin(struct wire_session *s, const struct wire_token *token, bool is_server,
                const uint8_t nonce[WIRE_NONCE]);

/* Write the message as a frame into out.  Lists are copied.  Returns the frame's length,
 * 0 if it does not fit (our mistake: nothing is logged, and the session has not moved). */
size_t wire_put(struct wire_session *s, const struct wire_message *m, uint8_t *out,
                size_t room);

/* Take one message off the front of `bytes` received bytes.  *used = 0: more are needed;
 * else so many were used, and m is filled; its lists point into `from`.  KR_ERR_DATA: this
 * is no friend, or a broken one; not logged, *why says what was wrong. */
kr_status wire_take(struct wire_session *s, const uint8_t *from, size_t bytes,
                    struct wire_message *m, size_t *used, const char **why);

/* The next text of a list, from NULL on; NULL at the end. */
const char *wire_next(const struct wire_list *l, const char *text);

const char *wire_type_text(enum wire_type type);

uint64_t wire_siphash(const uint8_t key[16], const void *at, size_t bytes);

#endif
