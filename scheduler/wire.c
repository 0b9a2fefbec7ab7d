/* wire.c - one function per message says its members for both directions. */
#include "scheduler/wire.h"

#include <string.h>

/* ---- SipHash-2-4 -------------------------------------------------------------------- */

struct sip {
    uint64_t v[4], tail; /* tail: bytes that do not fill a word yet */
    uint64_t bytes;
};

static uint64_t turn(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static void sip_rounds(uint64_t v[4], int rounds)
{
    while (rounds-- > 0) {
        v[0] += v[1], v[1] = turn(v[1], 13) ^ v[0], v[0] = turn(v[0], 32);
        v[2] += v[3], v[3] = turn(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = turn(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = turn(v[1], 17) ^ v[2], v[2] = turn(v[2], 32);
    }
}

static uint64_t load64(const uint8_t *at)
{
    uint64_t x = 0;

    for (int i = 7; i >= 0; i--)
        x = x << 8 | at[i];
    return x;
}

static void sip_begin(struct sip *s, const uint8_t key[16])
{
    uint64_t k0 = load64(key), k1 = load64(key + 8);

    *s = (struct sip){ .v = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d,
                              k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573 } };
}

static void sip_word(struct sip *s, uint64_t word)
{
    s->v[3] ^= word;
    sip_rounds(s->v, 2);
    s->v[0] ^= word;
}

static void sip_add(struct sip *s, const void *from, size_t bytes)
{
    const uint8_t *at = from, *end = at + bytes;

    while (at < end) {
        if (s->bytes % 8 == 0 && end - at >= 8) {
            sip_word(s, load64(at));
            at += 8, s->bytes += 8;
            continue;
        }
        s->tail |= (uint64_t)*at++ << 8 * (s->bytes++ % 8);
        if (s->bytes % 8 != 0) continue;
        sip_word(s, s->tail);
        s->tail = 0;
    }
}

static uint64_t sip_end(struct sip *s)
{
    sip_word(s, s->tail | s->bytes << 56);
    s->v[2] ^= 0xff;
    sip_rounds(s->v, 4);
    return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

uint64_t wire_siphash(const uint8_t key[16], const void *at, size_t bytes)
{
    struct sip s;

    sip_begin(&s, key);
    sip_add(&s, at, bytes);
    return sip_end(&s);
}

/* ---- members ------------------------------------------------------------------------ */

/* Walks the members of a message and either writes or reads them. */
struct coder {
    uint8_t *at, *end;
    bool reads, bad;
};

static uint8_t *take(struct coder *c, size_t bytes)
{
    uint8_t *at = c->at;

    if (c->bad || (size_t)(c->end - c->at) < bytes) {
        c->bad = true;
        return NULL;
    }
    c->at += bytes;
    return at;
}

/* The low `bytes` bytes of *x. */
static void word(struct coder *c, uint64_t *x, size_t bytes)
{
    uint8_t *at = take(c, bytes);

    if (!at) return;
    if (c->reads) *x = 0;
    for (size_t i = 0; i < bytes; i++)
        if (c->reads)
            *x |= (uint64_t)at[i] << 8 * i;
        else
            at[i] = (uint8_t)(*x >> 8 * i);
}

static void code_u64(struct coder *c, uint64_t *x) { word(c, x, 8); }

static void code_u8(struct coder *c, uint8_t *x)
{
    uint64_t w = *x;

    word(c, &w, 1);
    *x = (uint8_t)w;
}

static void code_u32(struct coder *c, uint32_t *x)
{
    uint64_t w = *x;

    word(c, &w, 4);
    *x = (uint32_t)w;
}

static void code_i32(struct coder *c, int32_t *x)
{
    uint32_t w = (uint32_t)*x;

    code_u32(c, &w);
    *x = (int32_t)w;
}

static void code_i64(struct coder *c, int64_t *x)
{
    uint64_t w = (uint64_t)*x;

    code_u64(c, &w);
    *x = (int64_t)w;
}

static void code_f64(struct coder *c, double *x)
{
    uint64_t w;

    memcpy(&w, x, sizeof w);
    code_u64(c, &w);
    memcpy(x, &w, sizeof w);
}

/* A text of at most room - 1 bytes, printable: it ends up in logs and JSON. */
static void code_text(struct coder *c, char *text, size_t room)
{
    uint64_t n = c->reads ? 0 : strnlen(text, room - 1);
    uint8_t *at;

    word(c, &n, 2);
    if (n >= room) c->bad = true;
    if (!(at = take(c, n))) return;
    if (!c->reads) {
        memcpy(at, text, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (at[i] < 32 || at[i] == 127) c->bad = true;
    memcpy(text, at, n);
    text[n] = '\0';
}

static void code_list(struct coder *c, struct wire_list *l)
{
    uint8_t *at;

    code_u32(c, &l->bytes);
    if (!(at = take(c, l->bytes))) return;
    if (!c->reads)
        memcpy(at, l->at, l->bytes);
    else if (l->bytes > 0 && at[l->bytes - 1] != '\0')
        c->bad = true;
    else
        l->at = (const char *)at;
}

static void code_nonce(struct coder *c, struct wire_message *m)
{
    uint8_t *at = take(c, WIRE_NONCE);

    if (!at) return;
    memcpy(c->reads ? m->nonce : at, c->reads ? at : m->nonce, WIRE_NONCE);
}

static void code_hello(struct coder *c, struct wire_message *m)
{
    struct wire_hello *h = &m->hello;

    code_u32(c, &h->version);
    code_i64(c, &h->generation);
    code_i64(c, &h->pid);
    code_u8(c, &h->is_head);
    code_i32(c, &h->place);
    code_i32(c, &h->ranks);
    code_text(c, h->node, sizeof h->node);
    code_text(c, h->trouble, sizeof h->trouble);
    code_i32(c, &h->cores);
    code_u64(c, &h->memory);
    code_i32(c, &h->port);
}

static void code_prepare(struct coder *c, struct wire_message *m)
{
    code_i64(c, &m->prepare.generation);
    code_i32(c, &m->prepare.ranks);
    code_i32(c, &m->prepare.place);
    code_list(c, &m->prepare.environment);
    if (m->prepare.ranks < 0 || m->prepare.ranks > WIRE_RANKS) c->bad = true;
}

static void code_ready(struct coder *c, struct wire_message *m)
{
    code_i64(c, &m->ready.generation);
    code_text(c, m->ready.trouble, sizeof m->ready.trouble);
}

static void code_run(struct coder *c, struct wire_message *m)
{
    code_i64(c, &m->run.generation);
    code_list(c, &m->run.argv);
}

static void code_exec(struct coder *c, struct wire_message *m)
{
    code_i64(c, &m->exec.generation);
    code_u64(c, &m->exec.id);
    code_text(c, m->exec.node, sizeof m->exec.node);
    code_list(c, &m->exec.command);
}

static void code_started(struct coder *c, struct wire_message *m)
{
    code_u64(c, &m->started.id);
    code_text(c, m->started.trouble, sizeof m->started.trouble);
}

static void code_ended(struct coder *c, struct wire_message *m)
{
    code_i64(c, &m->ended.generation);
    code_u8(c, &m->ended.is_head);
    code_i32(c, &m->ended.code);
}

static void code_rank(struct coder *c, struct wire_rank *r)
{
    code_i32(c, &r->rank);
    code_i32(c, &r->phase);
    code_i32(c, &r->exit_code);
    code_u8(c, &r->is_alive);
    code_u8(c, &r->state);
    code_i64(c, &r->pid);
    code_i64(c, &r->step);
    code_f64(c, &r->age);
    code_u64(c, &r->entered);
    code_u64(c, &r->left);
    code_f64(c, &r->compute_seconds);
    code_f64(c, &r->wait_seconds);
    code_f64(c, &r->loss);
    code_f64(c, &r->snapshot_seconds);
    code_i64(c, &r->snapshot_step);
    code_text(c, r->entered_name, sizeof r->entered_name);
    code_text(c, r->note, sizeof r->note);
}

static void code_beat(struct coder *c, struct wire_message *m)
{
    struct wire_beat *b = &m->beat;

    code_i64(c, &b->generation);
    code_u64(c, &b->number);
    code_f64(c, &b->lag);
    code_u64(c, &b->memory);
    code_i32(c, &b->count);
    if (b->count < 0 || b->count > WIRE_RANKS) c->bad = true;
    for (int32_t i = 0; !c->bad && i < b->count; i++)
        code_rank(c, &b->ranks[i]);
}

static void code_signal(struct coder *c, struct wire_message *m)
{
    code_i64(c, &m->signal.generation);
    code_i32(c, &m->signal.number);
}

static void code_check(struct coder *c, struct wire_message *m)
{
    code_u8(c, &m->check.is_whole);
    code_text(c, m->check.host, sizeof m->check.host);
    code_i32(c, &m->check.port);
}

static void code_checked(struct coder *c, struct wire_message *m)
{
    code_f64(c, &m->checked.round_trip);
    code_f64(c, &m->checked.rate);
    code_text(c, m->checked.trouble, sizeof m->checked.trouble);
}

static void code_words(struct coder *c, struct wire_message *m)
{
    code_i32(c, &m->words.code);
    code_list(c, &m->words.text);
}

static void (*const codes[WIRE_TYPES])(struct coder *, struct wire_message *) = {
    [WIRE_CHALLENGE] = code_nonce, [WIRE_ANSWER] = code_nonce,
    [WIRE_HELLO] = code_hello,     [WIRE_WELCOME] = code_words,
    [WIRE_REFUSE] = code_words,    [WIRE_PREPARE] = code_prepare,
    [WIRE_READY] = code_ready,     [WIRE_RUN] = code_run,
    [WIRE_EXEC] = code_exec,       [WIRE_STARTED] = code_started,
    [WIRE_ENDED] = code_ended,     [WIRE_BEAT] = code_beat,
    [WIRE_SIGNAL] = code_signal,   [WIRE_LEAVE] = code_words,
    [WIRE_ASK] = code_words,       [WIRE_TELL] = code_words,
    [WIRE_BYE] = code_words,       [WIRE_CHECK] = code_check,
    [WIRE_CHECKED] = code_checked, [WIRE_PROBE] = code_words,
};

const char *wire_type_text(enum wire_type type)
{
    static const char *const names[] = {
#define X(name) #name,
        WIRE_TYPE_MAP(X)
#undef X
    };

    return (unsigned)type < WIRE_TYPES ? names[type] : "?";
}

/* ---- frames ------------------------------------------------------------------------- */

void wire_begin(struct wire_session *s, const struct wire_token *token, bool is_server,
                const uint8_t nonce[WIRE_NONCE])
{
    *s = (struct wire_session){ .token = *token, .is_server = is_server };
    memcpy(s->salt + (is_server ? 0 : WIRE_NONCE), nonce, WIRE_NONCE);
}

static uint64_t seal(const struct wire_session *s, bool from_server, uint64_t number,
                     enum wire_type type, const uint8_t *payload, size_t bytes)
{
    uint8_t front[10] = { from_server, (uint8_t)type };
    struct sip sip;

    for (int i = 0; i < 8; i++)
        front[2 + i] = (uint8_t)(number >> 8 * i);
    sip_begin(&sip, s->token.key);
    sip_add(&sip, s->salt, sizeof s->salt);
    sip_add(&sip, front, sizeof front);
    sip_add(&sip, payload, bytes);
    return sip_end(&sip);
}

size_t wire_put(struct wire_session *s, const struct wire_message *m, uint8_t *out,
                size_t room)
{
    struct coder c = { out + WIRE_HEAD, out + room, false, false };
    struct coder head = { out, out + WIRE_HEAD, false, false };
    uint64_t bytes, type = m->type, mark = 0;

    if (room < WIRE_HEAD) return 0;
    codes[m->type](&c, (struct wire_message *)(uintptr_t)m); /* writing changes nothing */
    bytes = (uint64_t)(c.at - out) - WIRE_HEAD;
    if (c.bad || bytes > WIRE_MAX) return 0;
    if (m->type != WIRE_CHALLENGE)
        mark = seal(s, s->is_server, s->sent++, m->type, out + WIRE_HEAD, bytes);
    word(&head, &bytes, 4);
    word(&head, &type, 4);
    word(&head, &mark, 8);
    return WIRE_HEAD + bytes;
}

/* May this frame come now?  The first one each way brings the other side's nonce. */
static bool is_expected(const struct wire_session *s, uint64_t type, uint64_t bytes)
{
    if (type >= WIRE_TYPES) return false;
    if (s->is_open)
        return type != WIRE_CHALLENGE && type != WIRE_ANSWER && bytes <= WIRE_MAX;
    return bytes <= WIRE_MAX_STRANGER &&
           type == (s->is_server ? WIRE_ANSWER : WIRE_CHALLENGE);
}

static kr_status refuse(const char **why, const char *text)
{
    *why = text;
    return KR_ERR_DATA;
}

kr_status wire_take(struct wire_session *s, const uint8_t *from, size_t bytes,
                    struct wire_message *m, size_t *used, const char **why)
{
    uint8_t *at = (uint8_t *)(uintptr_t)from; /* reading changes nothing */
    struct coder head = { at, at + WIRE_HEAD, true, false }, c;
    uint64_t len = 0, type = 0, mark = 0;

    *used = 0;
    if (bytes < WIRE_HEAD) return KR_OK;
    word(&head, &len, 4);
    word(&head, &type, 4);
    word(&head, &mark, 8);
    if (!is_expected(s, type, len)) return refuse(why, "not a message that may come now");
    if (bytes - WIRE_HEAD < len) return KR_OK;
    c = (struct coder){ at + WIRE_HEAD, at + WIRE_HEAD + len, true, false };
    m->type = (enum wire_type)type;
    if (!s->is_open) {
        code_nonce(&c, m);
        if (c.bad || c.at != c.end) return refuse(why, "a nonce of the wrong length");
        memcpy(s->salt + (s->is_server ? WIRE_NONCE : 0), m->nonce, WIRE_NONCE);
        s->is_open = true;
    }
    if (type != WIRE_CHALLENGE &&
        mark != seal(s, !s->is_server, s->received++, m->type, from + WIRE_HEAD, len))
        return refuse(why, "its seal is wrong: another token, or no Kilorank");
    c.at = at + WIRE_HEAD;
    codes[type](&c, m);
    if (c.bad || c.at != c.end) return refuse(why, "a message of the wrong shape");
    *used = WIRE_HEAD + len;
    return KR_OK;
}

const char *wire_next(const struct wire_list *l, const char *text)
{
    const char *next = text ? text + strlen(text) + 1 : l->at;

    return l->bytes > 0 && next < l->at + l->bytes ? next : NULL;
}
