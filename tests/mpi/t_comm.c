/*
 * t_comm.c - every collective gives the computed answer, faults end it in bounded time.
 *
 * One group stays open from first to last (MPI starts once per process); tests of faults
 * open others beside it.  Ranks above 0 show their output only if they fail.
 */
/* RANKS: 1 2 3 4 */
#include "base/bf16.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "comm/part.h"
#include "tests/check.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct comm *group; /* bound to `device` */
static struct kern_device *device;
static int32_t rank, size;

#define CHECK_OK(call) CHECK_I64((call), ==, KR_OK)

static void *alloc(int64_t bytes)
{
    void *at = NULL;

    CHECK_OK(mem_alloc(&at, (size_t)bytes, 1, "test"));
    return at;
}

static kr_status sync_queue(struct comm *c) { return kern_queue_sync(comm_queue(c)); }

/* A second group with a fault; NULL text: none. */
static struct comm *open_group(const char *fault, double limit, bool bind)
{
    struct comm_config config = { "auto", limit, fault };
    struct comm *c = NULL;

    CHECK_OK(comm_open(&c, &config));
    if (bind) CHECK_OK(comm_bind(c, device));
    return c;
}

/* ---- places --------------------------------------------------------------------------- */

static void ranks_know_their_place(void)
{
    const char *launched = getenv("OMPI_COMM_WORLD_SIZE");

    CHECK_I64(size, ==, launched ? atoi(launched) : 1);
    CHECK(rank >= 0 && rank < size);
    CHECK_I64(comm_local_size(group), ==, size);
    CHECK_I64(comm_local_rank(group), ==, rank);
    CHECK_I64(comm_nodes(group), ==, 1);
    CHECK_I64(comm_node(group, size - 1), ==, 0);
    CHECK(strncmp(comm_describe(group), launched ? "mpi: " : "self: ", 5) == 0);
}

/* The runner binds no rank to a core, so all have the same mask. */
static void cores_are_shared_out(void)
{
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);

    CHECK_I64(comm_threads(group), >=, 1);
    CHECK(comm_threads(group) * size <= cores || comm_threads(group) == 1);
}

static void bad_settings_are_refused(void)
{
    struct comm_config configs[] = {
        { "tcp", 60, "" },         { "self", 0, "" },          { "self", 60, "fail" },
        { "self", 60, "fail:0" },  { "self", 60, "kill:1" },   { "self", 60, "hang:1:x" },
        { "self", 60, "slow:-3" }, { "self", 60, "delay:1s" },
    };
    struct comm *c = NULL;

    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        CHECK_I64(comm_open(&c, &configs[i]), ==, KR_ERR_ARG);
    CHECK(c == NULL);
}

/* ---- host collectives ----------------------------------------------------------------- */

static void check_agree(struct comm *c)
{
    CHECK_I64(comm_agree(c, KR_OK), ==, KR_OK);
    for (int32_t bad = 0; bad < size; bad++) {
        kr_status mine = rank == bad ? KR_ERR_NUMERIC : KR_OK;

        CHECK_I64(comm_agree(c, mine), ==, KR_ERR_NUMERIC);
        mine = rank == bad ? KR_ERR_NUMERIC : rank == 0 ? KR_ERR_ARG : KR_OK;
        CHECK_I64(comm_agree(c, mine), ==, bad || size > 1 ? KR_ERR_NUMERIC : mine);
    }
}

static void check_share(struct comm *c)
{
    int64_t bytes = 3000001;
    unsigned char *at = alloc(bytes);
    int64_t wrong = 0;

    for (int64_t i = 0; i < bytes; i++)
        at[i] = rank == 0 ? (unsigned char)(i * 7) : 255;
    CHECK_OK(comm_share(c, at, (size_t)bytes));
    for (int64_t i = 0; i < bytes; i++)
        wrong += at[i] != (unsigned char)(i * 7);
    CHECK_I64(wrong, ==, 0);
    CHECK_I64(comm_share(c, at, ((size_t)1 << 30) + 1), ==, KR_ERR_ARG);
    mem_free(at);
}

static void check_share_text(struct comm *c)
{
    static const char *const texts[] = { "", "one line", "two\nlines" };

    for (int i = 0; i < 3; i++) {
        char mine[32] = "", *text = mine;

        if (rank == 0) strcpy(mine, texts[i]);
        CHECK_OK(comm_share_text(c, &text));
        CHECK_STR(text, texts[i]);
        CHECK((text == mine) == (rank == 0));
        if (rank != 0) mem_free(text);
    }
}

/* As many letters as five times the rank; rank 1 has nothing to say. */
static const char *say(char text[64], int32_t r)
{
    memset(text, 0, 64);
    memset(text, 'a' + r % 26, r == 1 ? 0 : (size_t)(1 + 5 * r) % 63);
    return text;
}

static void check_gather_texts(struct comm *c)
{
    char text[64], *all = NULL, *at;

    CHECK_OK(comm_gather_texts(c, say(text, rank), &all));
    CHECK((all != NULL) == (rank == 0));
    at = all;
    for (int32_t r = 0; all && r < size; r++, at += strlen(at) + 1)
        CHECK_STR(at, say(text, r));
    mem_free(all);
}

static void check_all_gather_bytes(struct comm *c)
{
    struct {
        int32_t rank;
        char text[5];
    } mine = { rank, "text" }, *all = alloc(size * (int64_t)sizeof mine);

    CHECK_OK(comm_all_gather_bytes(c, &mine, sizeof mine, all));
    for (int32_t r = 0; r < size; r++) {
        CHECK_I64(all[r].rank, ==, r);
        CHECK_STR(all[r].text, "text");
    }
    mem_free(all);
}

static void check_host(struct comm *c)
{
    check_agree(c);
    check_share(c);
    check_share_text(c);
    check_gather_texts(c);
    check_all_gather_bytes(c);
}

static void host_collectives_work_on_the_callers_thread(void)
{
    struct comm *c = open_group("", 60, false);

    check_host(c);
    comm_close(c);
}

static void host_collectives_work_on_the_queue(void) { check_host(group); }

/* ---- queued collectives --------------------------------------------------------------- */

static const int64_t chunks[] = { 1, 4096, 300001 };

/* Small integers: sums are exact in any order. */
static double addend(int32_t r, int64_t i) { return (double)((r + 1) * (i % 1000 + 1)); }

static void put(void *at, enum kern_dtype type, int64_t i, double value)
{
    if (type == KERN_F64)
        ((double *)at)[i] = value;
    else
        ((float *)at)[i] = (float)value;
}

static double get(const void *at, enum kern_dtype type, int64_t i)
{
    return type == KERN_F64 ? ((const double *)at)[i] : (double)((const float *)at)[i];
}

static void check_reduce_scatter(int64_t chunk, enum kern_dtype type, bool in_place)
{
    int64_t bytes = chunk * (int64_t)kern_dtype_bytes(type), wrong = 0;
    char *all = alloc(size * bytes), *other = alloc(bytes);
    void *own = in_place ? all + rank * bytes : other;

    for (int64_t i = 0; i < size * chunk; i++)
        put(all, type, i, addend(rank, i));
    CHECK_OK(comm_reduce_scatter(group, all, own, chunk, type));
    CHECK_OK(sync_queue(group));
    for (int64_t i = 0; i < chunk; i++) {
        double want = addend(0, rank * chunk + i) * size * (size + 1) / 2;

        wrong += get(own, type, i) != want;
    }
    CHECK_I64(wrong, ==, 0);
    mem_free(all);
    mem_free(other);
}

static void reduce_scatter_sums_each_chunk(void)
{
    for (int i = 0; i < 3; i++)
        for (int in_place = 0; in_place < 2; in_place++) {
            check_reduce_scatter(chunks[i], KERN_F32, in_place);
            check_reduce_scatter(chunks[i], KERN_F64, in_place);
        }
}

static void check_all_gather(int64_t chunk, enum kern_dtype type, bool in_place)
{
    int64_t bytes = chunk * (int64_t)kern_dtype_bytes(type), wrong = 0;
    unsigned char *all = alloc(size * bytes), *other = alloc(bytes);
    unsigned char *own = in_place ? all + rank * bytes : other;

    for (int64_t i = 0; i < bytes; i++)
        own[i] = (unsigned char)(rank * 31 + i * 5);
    CHECK_OK(comm_all_gather(group, own, all, chunk, type));
    CHECK_OK(sync_queue(group));
    for (int32_t r = 0; r < size; r++)
        for (int64_t i = 0; i < bytes; i++)
            wrong += all[r * bytes + i] != (unsigned char)(r * 31 + i * 5);
    CHECK_I64(wrong, ==, 0);
    mem_free(all);
    mem_free(other);
}

static void all_gather_places_every_chunk(void)
{
    static const enum kern_dtype types[] = { KERN_F32, KERN_F64, KERN_BF16 };

    for (int i = 0; i < 3; i++)
        for (int t = 0; t < 3; t++)
            for (int in_place = 0; in_place < 2; in_place++)
                check_all_gather(chunks[i], types[t], in_place);
}

static void broadcast_reaches_all_from_any_root(void)
{
    for (int32_t root = 0; root < size; root++) {
        int64_t bytes = 1000003, wrong = 0;
        unsigned char *at = alloc(bytes);

        for (int64_t i = 0; i < bytes && rank == root; i++)
            at[i] = (unsigned char)(i + root + 1);
        CHECK_OK(comm_broadcast(group, at, bytes, root));
        CHECK_OK(sync_queue(group));
        for (int64_t i = 0; i < bytes; i++)
            wrong += at[i] != (unsigned char)(i + root + 1);
        CHECK_I64(wrong, ==, 0);
        mem_free(at);
    }
    CHECK_I64(comm_broadcast(group, group, 1, size), ==, KR_ERR_ARG);
}

/* ---- the canonical order -------------------------------------------------------------- */

/* Element i of leaf l: of very different sizes and both signs, so that any other order
 * of adding gives other bits. */
static double leaf_value(int64_t l, int64_t i)
{
    uint64_t x = (uint64_t)(l * 1000003 + i) * UINT64_C(0x9e3779b97f4a7c15);

    x ^= x >> 29;
    return ldexp((double)(x % 2000003) - 1000001.0, (int)(x >> 40 & 31) - 16);
}

static double add(enum kern_dtype type, double a, double b)
{
    return type == KERN_F64 ? a + b : (double)((float)a + (float)b);
}

/* The whole tree, one element, serially. */
static double tree_value(enum kern_dtype type, int64_t first, int64_t count, int64_t i)
{
    int64_t p;

    if (count == 1) {
        double v = leaf_value(first, i);

        return type == KERN_F64 ? v : (double)(float)v;
    }
    p = tree_split(count);
    return add(type, tree_value(type, first, p, i),
               tree_value(type, first + p, count - p, i));
}

/* The nodes of this rank, with their values. */
struct cover {
    struct tree_node nodes[TREE_DEPTH];
    void *at[TREE_DEPTH];
    int count;
};

static void cover_open(struct cover *v, int64_t leaves, int64_t chunk,
                       enum kern_dtype type)
{
    struct span s = part_leaves(leaves, size, rank);

    v->count =
        tree_cover(leaves, (struct tree_node){ s.begin, s.end - s.begin }, v->nodes);
    for (int k = 0; k < v->count; k++) {
        v->at[k] = alloc(size * chunk * (int64_t)kern_dtype_bytes(type));
        for (int64_t i = 0; i < size * chunk; i++)
            put(v->at[k], type, i,
                tree_value(type, v->nodes[k].first, v->nodes[k].count, i));
    }
}

static void cover_close(struct cover *v)
{
    for (int k = 0; k < v->count; k++)
        mem_free(v->at[k]);
}

static void check_tree(int64_t leaves, int64_t chunk, enum kern_dtype type, bool in_place)
{
    int64_t bytes = chunk * (int64_t)kern_dtype_bytes(type), wrong = 0;
    struct cover v;
    void *other = alloc(bytes), *own;

    cover_open(&v, leaves, chunk, type);
    own = in_place ? (char *)v.at[0] + rank * bytes : other;
    CHECK_OK(comm_reduce_tree(group, leaves, v.nodes, v.at, v.count, own, chunk, type));
    CHECK_OK(sync_queue(group));
    for (int64_t i = 0; i < chunk; i++) {
        double got = get(own, type, i),
               want = tree_value(type, 0, leaves, rank * chunk + i);

        wrong += memcmp(&got, &want, sizeof got) != 0;
    }
    CHECK_I64(wrong, ==, 0);
    cover_close(&v);
    mem_free(other);
}

/* The serial value knows no ranks, so this is also: the same bits on any number of them. */
static void canonical_sum_has_the_bits_of_the_serial_tree(void)
{
    for (int64_t leaves = size; leaves <= 17; leaves++)
        for (int in_place = 0; in_place < 2; in_place++) {
            check_tree(leaves, 517, KERN_F32, in_place);
            check_tree(leaves, 517, KERN_F64, in_place);
        }
}

/* ---- bf16, rounded by chance ---------------------------------------------------------- */

static const struct comm_rounding chance = { 42, 1000 };

/* The whole tree, one element, serially; every sum rounded. */
static uint16_t tree_bf16(int64_t first, int64_t count, int64_t i)
{
    int64_t p = tree_split(count > 1 ? count : 2);
    uint16_t sum;
    float value;

    if (count == 1) return bf16_round((float)leaf_value(first, i));
    value = bf16_value(tree_bf16(first, p, i)) +
            bf16_value(tree_bf16(first + p, count - p, i));
    bf16_round_row(&sum, &value, 1, chance.key, (uint32_t)(chance.first_leaf + first + p),
                   i);
    return sum;
}

static void check_tree_bf16(int64_t leaves, int64_t chunk)
{
    struct span s = part_leaves(leaves, size, rank);
    struct tree_node nodes[TREE_DEPTH];
    uint16_t *at[TREE_DEPTH], *own = alloc(chunk * 2);
    int count = tree_cover(leaves, (struct tree_node){ s.begin, s.end - s.begin }, nodes);
    int64_t wrong = 0;

    for (int k = 0; k < count; k++) {
        at[k] = alloc(size * chunk * 2);
        for (int64_t i = 0; i < size * chunk; i++)
            at[k][i] = tree_bf16(nodes[k].first, nodes[k].count, i);
    }
    CHECK_OK(comm_reduce_tree_bf16(group, leaves, nodes, (void **)at, count, own, chunk,
                                   chance));
    CHECK_OK(sync_queue(group));
    for (int64_t i = 0; i < chunk; i++)
        wrong += own[i] != tree_bf16(0, leaves, rank * chunk + i);
    CHECK_I64(wrong, ==, 0);
    for (int k = 0; k < count; k++)
        mem_free(at[k]);
    mem_free(own);
}

/* By the short way and by the long one, and again over several segments. */
static void canonical_sum_of_bf16_has_the_bits_of_the_serial_tree(void)
{
    for (int64_t leaves = size; leaves <= 12; leaves++)
        check_tree_bf16(leaves, 517);
    check_tree_bf16(4, 300001);
}

static void everyone_gets_a_chunk_of_everyone(void)
{
    for (int i = 0; i < 3; i++) {
        int64_t chunk = chunks[i], wrong = 0;
        float *all = alloc(size * chunk * 4), *got = alloc(size * chunk * 4);

        for (int64_t k = 0; k < size * chunk; k++)
            all[k] = (float)(rank * 1000 + k % 997);
        CHECK_OK(comm_all_to_all(group, all, got, chunk, KERN_F32));
        CHECK_OK(sync_queue(group));
        for (int64_t k = 0; k < size * chunk; k++)
            wrong +=
                got[k] != (float)(k / chunk * 1000 + (rank * chunk + k % chunk) % 997);
        CHECK_I64(wrong, ==, 0);
        mem_free(all);
        mem_free(got);
    }
}

/* Chunks of several segments, of which the last is short: a cube, and not. */
static void canonical_sum_of_long_chunks(void)
{
    check_tree(4, 300001, KERN_F32, false);
    check_tree(4, 150001, KERN_F64, true);
    check_tree(7, 300001, KERN_F32, true);
}

/* Any other order gives other bits for these values, so the tests above mean something. */
static void order_matters_for_these_values(void)
{
    int64_t different = 0;

    for (int64_t i = 0; i < 1000; i++) {
        double sum = (float)leaf_value(0, i), tree = tree_value(KERN_F32, 0, 8, i);

        for (int64_t l = 1; l < 8; l++)
            sum = add(KERN_F32, sum, (float)leaf_value(l, i));
        different += sum != tree;
    }
    CHECK_I64(different, >, 300);
}

static void wrong_nodes_are_refused_and_the_group_lives(void)
{
    struct cover v;
    float own[16];

    cover_open(&v, 2 * size, 16, KERN_F32);
    v.nodes[0].count++;
    CHECK_I64(
        comm_reduce_tree(group, 2 * size, v.nodes, v.at, v.count, own, 16, KERN_F32), ==,
        KR_ERR_ARG);
    v.nodes[0].count--;
    CHECK_I64(
        comm_reduce_tree(group, size - 1, v.nodes, v.at, v.count, own, 16, KERN_F32), ==,
        KR_ERR_ARG);
    CHECK_I64(
        comm_reduce_tree(group, 2 * size, v.nodes, v.at, v.count, own, 16, KERN_BF16), ==,
        KR_ERR_ARG);
    CHECK_OK(comm_agree(group, KR_OK));
    cover_close(&v);
}

/* ---- queue ---------------------------------------------------------------------------- */

static void queued_work_needs_bind(void)
{
    struct comm *c = open_group("", 60, false);
    float x = 0;

    CHECK(comm_queue(c) == NULL);
    CHECK_I64(comm_broadcast(c, &x, sizeof x, 0), ==, KR_ERR_ARG);
    CHECK_OK(comm_agree(c, KR_OK));
    CHECK_OK(comm_bind(c, device));
    CHECK_I64(comm_bind(c, device), ==, KR_ERR_ARG);
    CHECK_OK(comm_broadcast(c, &x, sizeof x, 0));
    comm_unbind(c);
    CHECK_OK(comm_agree(c, KR_OK)); /* on this thread again */
    comm_close(c);
}

/* A host collective comes after all that is queued, on every rank. */
static void host_collectives_keep_the_order_of_the_queue(void)
{
    enum { CHUNK = 200000 };
    float *all = alloc(size * CHUNK * 4);

    for (int64_t i = 0; i < CHUNK; i++)
        all[rank * CHUNK + i] = (float)(rank + 1);
    for (int k = 0; k < 5; k++)
        CHECK_OK(comm_all_gather(group, all + rank * CHUNK, all, CHUNK, KERN_F32));
    CHECK_OK(comm_agree(group, KR_OK));
    for (int32_t r = 0; r < size; r++)
        CHECK_NEAR(all[r * CHUNK + CHUNK - 1], r + 1, 0);
    mem_free(all);
}

/* Each rank sends to the one `step` further, several messages of different lengths, some
 * empty; a list may also be absent. */
static void swapped_messages_arrive_in_order(void)
{
    enum { STEPS = 3, EACH = 1000 };
    struct comm_packet list[2 * STEPS];
    unsigned char out[STEPS][EACH], in[STEPS][EACH] = { { 0 } };

    for (int i = 0; i < STEPS; i++) {
        int32_t to = (rank + 1) % size, from = (rank + size - 1) % size;

        memset(out[i], 1 + rank * STEPS + i, EACH);
        list[2 * i] = (struct comm_packet){ out[i], i * (EACH / 2), to, true };
        list[2 * i + 1] = (struct comm_packet){ in[i], i * (EACH / 2), from, false };
    }
    if (size == 1) {
        CHECK_OK(comm_swap(group, NULL, 0));
        return;
    }
    CHECK_OK(comm_swap(group, list, 2 * STEPS));
    CHECK_OK(sync_queue(group));
    for (int i = 0; i < STEPS; i++) {
        unsigned char want = (unsigned char)(1 + (rank + size - 1) % size * STEPS + i);

        for (int k = 0; k < EACH; k++)
            CHECK(in[i][k] == (k < i * (EACH / 2) ? want : 0));
    }
    CHECK_OK(comm_swap(group, NULL, 0));
    list[0].peer = rank;
    CHECK_I64(comm_swap(group, list, 1), ==, KR_ERR_ARG);
}

static void totals_count_what_was_sent(void)
{
    enum { CHUNK = 10000 };
    struct comm *c = open_group("", 60, true);
    float *all = alloc(size * CHUNK * 4);
    double bytes, seconds;

    CHECK_OK(comm_reduce_scatter(c, all, all + rank * CHUNK, CHUNK, KERN_F32));
    CHECK_OK(comm_all_gather(c, all + rank * CHUNK, all, CHUNK, KERN_F32));
    CHECK_OK(sync_queue(c));
    comm_totals(c, &bytes, &seconds);
    CHECK_NEAR(bytes, 2.0 * (size - 1) * CHUNK * 4, 0);
    CHECK(seconds > 0 && seconds < 10);
    comm_close(c);
    mem_free(all);
}

/* ---- faults --------------------------------------------------------------------------- */

static char last_error[512];

static void keep_error(enum log_level level, const char *text, void *arg)
{
    (void)arg;
    if (level == LOG_ERROR) snprintf(last_error, sizeof last_error, "%s", text);
}

static void failed_collective_ends_the_group_and_nobody_hangs(void)
{
    struct comm *c = open_group("fail:3", 60, true);
    double start = clock_now();
    float x = 1;

    log_capture(keep_error, NULL);
    CHECK_OK(comm_broadcast(c, &x, sizeof x, 0));
    CHECK_OK(comm_broadcast(c, &x, sizeof x, 0));
    CHECK_OK(sync_queue(c));
    (void)comm_broadcast(c, &x, sizeof x, 0);
    CHECK_I64(sync_queue(c), ==, KR_ERR_COMM);
    CHECK_I64(comm_broadcast(c, &x, sizeof x, 0), ==, KR_ERR_COMM);
    CHECK_I64(comm_agree(c, KR_OK), ==, KR_ERR_COMM);
    CHECK(strstr(last_error, "collective 3 (broadcast)") != NULL);
    log_capture(NULL, NULL);
    comm_close(c);
    CHECK(clock_now() - start < 10);
    CHECK_OK(comm_agree(group, KR_OK)); /* this one knows nothing of it */
}

/* The last rank stays away; who waits for it directly names it. */
static void hang_is_bounded_and_the_missing_rank_is_named(void)
{
    int32_t hung = size - 1, peer = size == 2 || size == 4 ? hung ^ 1 : 0;
    char fault[32], name[32];
    struct comm *c;
    struct cover v;
    float own[64];
    double start;

    if (size == 1) return;
    snprintf(fault, sizeof fault, "hang:2:%d", hung);
    snprintf(name, sizeof name, "from rank %d", hung);
    c = open_group(fault, 2, true);
    cover_open(&v, size, 64, KERN_F32);
    log_capture(keep_error, NULL);
    CHECK_OK(comm_reduce_tree(c, size, v.nodes, v.at, v.count, own, 64, KERN_F32));
    CHECK_OK(sync_queue(c));
    start = clock_now();
    (void)comm_reduce_tree(c, size, v.nodes, v.at, v.count, own, 64, KERN_F32);
    CHECK_I64(sync_queue(c), ==, KR_ERR_COMM);
    CHECK(clock_now() - start > 1.5 && clock_now() - start < 5);
    log_capture(NULL, NULL);
    CHECK(strstr(last_error, "(reduce_tree)") != NULL);
    if (rank == peer) CHECK(strstr(last_error, name) != NULL);
    comm_close(c);
    cover_close(&v);
    CHECK_OK(comm_agree(group, KR_OK));
}

/* ---- overlap -------------------------------------------------------------------------- */

/* Keep the core busy. */
static void compute(double seconds)
{
    volatile double x = 1;

    for (double end = clock_now() + seconds; clock_now() < end;)
        for (int i = 0; i < 1000; i++)
            x = x * 1.0000001;
}

static double transfer(struct comm *c, float *all, int64_t chunk, double work)
{
    double start;

    CHECK_OK(comm_agree(c, KR_OK));
    start = clock_now();
    for (int k = 0; k < 4; k++)
        CHECK_OK(comm_all_gather(c, all + rank * chunk, all, chunk, KERN_F32));
    compute(work);
    CHECK_OK(sync_queue(c));
    return clock_now() - start;
}

/* A link of 32 MiB/s; one rank sends nothing, so there it is a delay. */
static void slow_link_hides_behind_computation(void)
{
    enum { CHUNK = 262144 }; /* 1 MiB */
    struct comm *c = open_group(size > 1 ? "slow:32" : "delay:0.05", 60, true);
    float *all = alloc(size * CHUNK * 4);
    double alone = transfer(c, all, CHUNK, 0), both;

    CHECK(alone > 4 * (size > 1 ? (size - 1) / 32.0 : 0.05));
    both = transfer(c, all, CHUNK, alone);
    CHECK(both >= alone);
    CHECK(both < 0.75 * (alone + alone));
    comm_close(c);
    mem_free(all);
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Rank 0 comes half a second late: the others must nap, not spin. */
static void waiting_leaves_the_core_to_others(void)
{
    float *all = alloc(size * 4096 * 4);
    double start, cpu;

    CHECK_OK(comm_agree(group, KR_OK));
    start = clock_now();
    cpu = cpu_seconds();
    if (rank == 0) clock_sleep(0.5);
    CHECK_OK(comm_reduce_scatter(group, all, all + rank * 4096, 4096, KERN_F32));
    CHECK_OK(sync_queue(group));
    CHECK(clock_now() - start > 0.45);
    CHECK(cpu_seconds() - cpu < 0.2 * (clock_now() - start));
    mem_free(all);
}

/* ---- main ----------------------------------------------------------------------------- */

static void run_all(void)
{
    RUN(ranks_know_their_place);
    RUN(cores_are_shared_out);
    RUN(bad_settings_are_refused);
    RUN(host_collectives_work_on_the_callers_thread);
    RUN(host_collectives_work_on_the_queue);
    RUN(reduce_scatter_sums_each_chunk);
    RUN(all_gather_places_every_chunk);
    RUN(broadcast_reaches_all_from_any_root);
    RUN(order_matters_for_these_values);
    RUN(canonical_sum_has_the_bits_of_the_serial_tree);
    RUN(canonical_sum_of_long_chunks);
    RUN(canonical_sum_of_bf16_has_the_bits_of_the_serial_tree);
    RUN(everyone_gets_a_chunk_of_everyone);
    RUN(wrong_nodes_are_refused_and_the_group_lives);
    RUN(queued_work_needs_bind);
    RUN(host_collectives_keep_the_order_of_the_queue);
    RUN(swapped_messages_arrive_in_order);
    RUN(totals_count_what_was_sent);
    RUN(failed_collective_ends_the_group_and_nobody_hangs);
    RUN(hang_is_bounded_and_the_missing_rank_is_named);
    RUN(slow_link_hides_behind_computation);
    RUN(waiting_leaves_the_core_to_others);
}

/* Ranks above 0 write to a file of their own; here it is shown, if there is need. */
static void show(FILE *kept)
{
    char line[512];

    fflush(stdout);
    rewind(kept);
    while (fgets(line, sizeof line, kept))
        fprintf(stderr, "[%d] %s", rank, line);
}

int main(void)
{
    struct comm_config config = { "auto", 60, "" };
    FILE *kept = NULL;
    int bad;

    if (comm_open(&group, &config) != KR_OK) return 2;
    rank = comm_rank(group);
    size = comm_size(group);
    log_setup("t_comm", rank);
    if (rank != 0 && (kept = tmpfile())) dup2(fileno(kept), STDOUT_FILENO);
    if (kern_device_open(&device, "cpu", 0, 1) != KR_OK) comm_abort(group, 2);
    if (comm_bind(group, device) != KR_OK) comm_abort(group, 2);
    run_all();
    bad = check_done();
    if (bad && kept) show(kept);
    comm_close(group);
    kern_device_close(device);
    return bad;
}
