/*
 * fuzz_wire.c - libFuzzer on wire_take and on host files.
 *
 * The first byte chooses: raw bytes from a stranger, a payload of some type sealed with the
 * right token (a faulty friend), or a host file.  What is accepted must survive being
 * written and taken again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "scheduler/nodes.h"
#include "scheduler/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct wire_token token = { "sixteen bytes .." };
static const uint8_t nonce[WIRE_NONCE] = { 1 };
static struct wire_message m;
static uint8_t frame[WIRE_HEAD + WIRE_MAX];

static void strangers_bytes(const uint8_t *data, size_t size)
{
    struct wire_session s;
    const char *why;
    size_t used;

    wire_begin(&s, &token, true, nonce);
    while (wire_take(&s, data, size, &m, &used, &why) == KR_OK && used > 0) {
        data += used;
        size -= used;
    }
}

static void put64(uint8_t *at, uint64_t x)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(x >> 8 * i);
}

/* Builds the frame by hand, so that the payload is the fuzzer's; the seal is as in wire.c. */
static size_t seal(struct wire_session *s, uint8_t type, const uint8_t *payload,
                   size_t size)
{
    static uint8_t text[42 + WIRE_MAX];

    memset(frame, 0, WIRE_HEAD);
    frame[0] = (uint8_t)size;
    frame[1] = (uint8_t)(size >> 8);
    frame[2] = (uint8_t)(size >> 16);
    frame[4] = type;
    memcpy(frame + WIRE_HEAD, payload, size);
    memcpy(text, s->salt, 32);
    text[32] = 0;
    text[33] = type;
    put64(text + 34, s->sent++);
    memcpy(text + 42, payload, size);
    put64(frame + 8, wire_siphash(token.key, text, 42 + size));
    return WIRE_HEAD + size;
}

static void faulty_friend(const uint8_t *data, size_t size)
{
    struct wire_session from, to;
    static struct wire_message again;
    const char *why;
    size_t len, used;

    if (size < 1 || size > WIRE_MAX) return;
    wire_begin(&from, &token, false, nonce);
    wire_begin(&to, &token, true, nonce);
    memcpy(from.salt, to.salt, WIRE_NONCE);
    memcpy(to.salt + WIRE_NONCE, from.salt + WIRE_NONCE, WIRE_NONCE);
    to.is_open = from.is_open = true;
    len = seal(&from, data[0] % WIRE_TYPES, data + 1, size - 1);
    if (wire_take(&to, frame, len, &m, &used, &why) != KR_OK) return;
    if (used != len) abort();
    again = m;
    len = wire_put(&from, &again, frame, sizeof frame);
    if (len != used || wire_take(&to, frame, len, &m, &used, &why) != KR_OK) abort();
}

static void host_file(const uint8_t *data, size_t size)
{
    struct nodes n = { 0 };
    char *text = malloc(size + 1);

    if (!text) abort();
    memcpy(text, data, size);
    text[size] = '\0';
    if (nodes_parse(&n, text, "fuzz") == KR_OK) {
        for (int32_t i = 0; i < n.count; i++) {
            if (n.at[i].slots < 1 || n.at[i].slots > NODES_SLOTS_MAX) abort();
            if (strpbrk(n.at[i].name, " ;$`'\"\\&|<>(){}*?\n\t") ||
                n.at[i].name[0] == '-')
                abort();
            n.at[i].state = NODE_UP;
        }
        if (nodes_place(&n, 10) < 1) abort();
    }
    nodes_free(&n);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_mute(true);
    if (size < 1) return 0;
    switch (data[0] % 3) {
    case 0: strangers_bytes(data + 1, size - 1); break;
    case 1: faulty_friend(data + 1, size - 1); break;
    default: host_file(data + 1, size - 1);
    }
    return 0;
}
