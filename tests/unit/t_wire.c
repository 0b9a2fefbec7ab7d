/* t_wire.c - messages come through whole; nothing without the token, twice, or torn does. */
#include <stdlib.h>

#include "scheduler/wire.h"
#include "tests/check.h"

static const struct wire_token token = { "sixteen bytes .." },
                               other = { "another token .." };
static const uint8_t server_nonce[WIRE_NONCE] = { 1 }, peer_nonce[WIRE_NONCE] = { 2 };

static struct wire_session server, peer;
static struct wire_message in, out;
static uint8_t frame[WIRE_HEAD + WIRE_MAX];
static const char *why;

static kr_status pass(struct wire_session *from, struct wire_session *to,
                      const struct wire_message *m)
{
    size_t len = wire_put(from, m, frame, sizeof frame), used = 0;
    kr_status st = wire_take(to, frame, len, &in, &used, &why);

    if (st == KR_OK) CHECK_I64(used, ==, len);
    return st;
}

static kr_status meet(const struct wire_token *peers)
{
    struct wire_message m = { .type = WIRE_CHALLENGE };

    wire_begin(&server, &token, true, server_nonce);
    wire_begin(&peer, peers, false, peer_nonce);
    memcpy(m.nonce, server_nonce, sizeof m.nonce);
    CHECK_I64(pass(&server, &peer, &m), ==, KR_OK);
    m.type = WIRE_ANSWER;
    memcpy(m.nonce, peer_nonce, sizeof m.nonce);
    return pass(&peer, &server, &m);
}

/* Values of the authors' reference program: key 00 01 .. 0f, message 00 01 .. */
static void the_seal_is_siphash(void)
{
    uint8_t key[16], text[15];

    for (uint8_t i = 0; i < 16; i++)
        key[i] = i;
    for (uint8_t i = 0; i < 15; i++)
        text[i] = i;
    CHECK(wire_siphash(key, text, 0) == UINT64_C(0x726fdb47dd0e0e31));
    CHECK(wire_siphash(key, text, 15) == UINT64_C(0xa129ca6149be45e5));
}

static void two_with_the_token_meet(void) { CHECK_I64(meet(&token), ==, KR_OK); }

static void a_stranger_is_refused(void)
{
    CHECK_I64(meet(&other), ==, KR_ERR_DATA);
    CHECK(strstr(why, "seal") != NULL);
}

static void a_beat_of_many_ranks_comes_through(void)
{
    (void)meet(&token);
    out = (struct wire_message){ .type = WIRE_BEAT };
    out.beat.generation = 7;
    out.beat.count = WIRE_RANKS;
    for (int32_t i = 0; i < WIRE_RANKS; i++) {
        out.beat.ranks[i] =
            (struct wire_rank){ .rank = i, .step = -1, .loss = 1.0 / (i + 1) };
        snprintf(out.beat.ranks[i].note, WIRE_TEXT, "note of rank %d", i);
    }
    CHECK_I64(pass(&peer, &server, &out), ==, KR_OK);
    CHECK_I64(in.type, ==, WIRE_BEAT);
    CHECK_I64(in.beat.generation, ==, 7);
    CHECK_I64(in.beat.count, ==, WIRE_RANKS);
    for (int32_t i = 0; i < WIRE_RANKS; i++) {
        CHECK_I64(in.beat.ranks[i].rank, ==, i);
        CHECK_I64(in.beat.ranks[i].step, ==, -1);
        CHECK(in.beat.ranks[i].loss == 1.0 / (i + 1));
        CHECK_STR(in.beat.ranks[i].note, out.beat.ranks[i].note);
    }
}

static void lists_come_through(void)
{
    static const char words[] = "mpirun\0-np\0\0last";
    struct wire_message m = { .type = WIRE_RUN };
    const char *at = NULL;
    int count = 0;

    (void)meet(&token);
    m.run.argv = (struct wire_list){ words, sizeof words };
    CHECK_I64(pass(&server, &peer, &m), ==, KR_OK);
    while ((at = wire_next(&in.run.argv, at)))
        count++;
    CHECK_I64(count, ==, 4);
    CHECK(wire_next(&(struct wire_list){ NULL, 0 }, NULL) == NULL);
}

static struct wire_message signal_message(int32_t number)
{
    struct wire_message m = { .type = WIRE_SIGNAL };

    m.signal.generation = 3;
    m.signal.number = number;
    return m;
}

static void every_flipped_bit_is_noticed(void)
{
    struct wire_message m = signal_message(10);
    struct wire_session before;
    size_t len, used;

    (void)meet(&token);
    len = wire_put(&peer, &m, frame, sizeof frame);
    before = server;
    for (size_t bit = 0; bit < 8 * len; bit++) {
        kr_status st;

        server = before;
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        st = wire_take(&server, frame, len, &in, &used, &why);
        /* a longer length waits for bytes that do not come */
        CHECK(st == KR_ERR_DATA || (st == KR_OK && used == 0));
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void a_frame_counts_once_and_one_way(void)
{
    struct wire_message m = signal_message(10);
    struct wire_session copy;
    size_t len, used;

    (void)meet(&token);
    copy = peer;
    len = wire_put(&peer, &m, frame, sizeof frame);
    CHECK_I64(wire_take(&server, frame, len, &in, &used, &why), ==, KR_OK);
    CHECK_I64(wire_take(&server, frame, len, &in, &used, &why), ==, KR_ERR_DATA);
    CHECK_I64(wire_take(&copy, frame, len, &in, &used, &why), ==, KR_ERR_DATA);
}

static void a_frame_of_another_connection_does_not_count(void)
{
    static const uint8_t later[WIRE_NONCE] = { 3 };
    struct wire_message m = signal_message(10), c = { .type = WIRE_CHALLENGE };
    struct wire_session replay;
    size_t len, used;

    (void)meet(&token);
    len = wire_put(&peer, &m, frame, sizeof frame);
    wire_begin(&replay, &token, true, later);
    memcpy(c.nonce, peer_nonce, sizeof c.nonce);
    memcpy(replay.salt + WIRE_NONCE, peer_nonce, WIRE_NONCE);
    replay.is_open = true;
    replay.received = server.received;
    CHECK_I64(wire_take(&replay, frame, len, &in, &used, &why), ==, KR_ERR_DATA);
}

static void pieces_are_waited_for(void)
{
    struct wire_message m = signal_message(12);
    size_t len, used;

    (void)meet(&token);
    len = wire_put(&peer, &m, frame, sizeof frame);
    for (size_t n = 0; n < len; n++) {
        CHECK_I64(wire_take(&server, frame, n, &in, &used, &why), ==, KR_OK);
        CHECK_I64(used, ==, 0);
    }
    CHECK_I64(wire_take(&server, frame, len, &in, &used, &why), ==, KR_OK);
    CHECK_I64(in.signal.number, ==, 12);
}

static void what_does_not_fit_is_not_written(void)
{
    static char much[WIRE_MAX];
    struct wire_message m = { .type = WIRE_TELL };

    (void)meet(&token);
    m.words.text = (struct wire_list){ much, sizeof much };
    CHECK_I64(wire_put(&peer, &m, frame, sizeof frame), ==, 0);
    m = signal_message(1);
    CHECK_I64(wire_put(&peer, &m, frame, WIRE_HEAD), ==, 0);
    CHECK_I64(pass(&peer, &server, &m), ==, KR_OK); /* the session has not moved */
}

static void a_stranger_gets_no_room(void)
{
    uint8_t big[WIRE_HEAD] = { 0xff, 0xff, 0, 0, WIRE_ANSWER };
    size_t used;

    wire_begin(&server, &token, true, server_nonce);
    CHECK_I64(wire_take(&server, big, sizeof big, &in, &used, &why), ==, KR_ERR_DATA);
}

static void control_characters_are_refused(void)
{
    struct wire_message m = { .type = WIRE_STARTED };

    (void)meet(&token);
    strcpy(m.started.trouble, "two\nlines");
    CHECK_I64(pass(&peer, &server, &m), ==, KR_ERR_DATA);
}

int main(void)
{
    RUN(the_seal_is_siphash);
    RUN(two_with_the_token_meet);
    RUN(a_stranger_is_refused);
    RUN(a_beat_of_many_ranks_comes_through);
    RUN(lists_come_through);
    RUN(every_flipped_bit_is_noticed);
    RUN(a_frame_counts_once_and_one_way);
    RUN(a_frame_of_another_connection_does_not_count);
    RUN(pieces_are_waited_for);
    RUN(what_does_not_fit_is_not_written);
    RUN(a_stranger_gets_no_room);
    RUN(control_characters_are_refused);
    return check_done();
}
