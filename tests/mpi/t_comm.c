/*
 * t_comm.c - who is where, what the host asks all ranks, the order of the queue, and faults,
 * which end a collective in bounded time: they have groups of their own.
 */
/* RANKS: 1 2 3 4 */
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/mpi/ranks.h"

static struct kern_device *device; /* of `group` */

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
    CHECK_OK(comm_reduce_scatter(c, all, all + rank * CHUNK, CHUNK, KERN_F32));
    CHECK_OK(comm_all_gather(c, all + rank * CHUNK, all, CHUNK, KERN_F32));
    CHECK_OK(sync_queue(c));
    CHECK_NEAR(comm_sent(c), 2.0 * (size - 1) * CHUNK * 4, 0);
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
    struct tree_node leaf = { rank, 1 };
    void *values;
    float own[64];
    double start;

    if (size == 1) return;
    values = alloc(size * 64 * 4);
    snprintf(fault, sizeof fault, "hang:2:%d", hung);
    snprintf(name, sizeof name, "from rank %d", hung);
    c = open_group(fault, 2, true);
    log_capture(keep_error, NULL);
    CHECK_OK(comm_reduce_tree(c, size, &leaf, &values, 1, own, 64, KERN_F32));
    CHECK_OK(sync_queue(c));
    start = clock_now();
    (void)comm_reduce_tree(c, size, &leaf, &values, 1, own, 64, KERN_F32);
    CHECK_I64(sync_queue(c), ==, KR_ERR_COMM);
    CHECK(clock_now() - start > 1.5 && clock_now() - start < 5);
    log_capture(NULL, NULL);
    CHECK(strstr(last_error, "(reduce_tree)") != NULL);
    if (rank == peer) CHECK(strstr(last_error, name) != NULL);
    comm_close(c);
    mem_free(values);
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

int main(void)
{
    ranks_open("t_comm");
    if (kern_device_open(&device, "cpu", 0, 1) != KR_OK) comm_abort(group, 2);
    if (comm_bind(group, device) != KR_OK) comm_abort(group, 2);
    RUN(ranks_know_their_place);
    RUN(cores_are_shared_out);
    RUN(bad_settings_are_refused);
    RUN(host_collectives_work_on_the_callers_thread);
    RUN(host_collectives_work_on_the_queue);
    RUN(queued_work_needs_bind);
    RUN(host_collectives_keep_the_order_of_the_queue);
    RUN(swapped_messages_arrive_in_order);
    RUN(totals_count_what_was_sent);
    RUN(failed_collective_ends_the_group_and_nobody_hangs);
    RUN(hang_is_bounded_and_the_missing_rank_is_named);
    RUN(slow_link_hides_behind_computation);
    RUN(waiting_leaves_the_core_to_others);
    comm_unbind(group);
    kern_device_close(device);
    return ranks_close();
}
