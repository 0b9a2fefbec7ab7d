/*
 * t_nccl.c - collectives of emulated GPUs through NCCL (tests/emu/nccl), against MPI's on the
 * CPU, bit for bit; and that a rank that is silent, an error, and a peer that is gone end a
 * group in bounded time.
 *
 * Streams are threads.  Every group is bound to this rank's GPU; `cpu` alone to a CPU.
 */
/* RANKS: 3 4 */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "comm/comm_parts.h"
#include "comm/part.h"
#include "tests/check.h"
#include "tests/emu/emu.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static struct kern_device *gpu, *host;
static struct kern_queue *q; /* of the GPU, for copies */
static struct comm *nccl, *staged, *cpu;
static int32_t rank, size;

#define CHECK_OK(call) CHECK_I64((call), ==, KR_OK)

enum { CHUNK = 517, MOST = 12 /* leaves */ };

static struct comm *open_group(const char *backend, double limit, const char *fault,
                               struct kern_device *d)
{
    struct comm_config config = { backend, limit, fault };
    struct comm *c = NULL;

    CHECK_OK(comm_open(&c, &config));
    CHECK_OK(comm_bind(c, d));
    return c;
}

/* An array of both sides with the same contents: of very different sizes, so that another
 * order of sums has other bits. */
struct twin {
    char *gpu, *cpu;
    int64_t bytes;
};

static void fill(void *at, enum kern_dtype type, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t x = (seed * 1000003 + (uint64_t)i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        double v;

        x ^= x >> 29;
        v = ldexp((double)(x % 2000003) - 1000001.0, (int)(x >> 40 & 31) - 16);
        if (type == KERN_F32) ((float *)at)[i] = (float)v;
        if (type == KERN_BF16) {
            float f = (float)v;

            memcpy((uint16_t *)at + i, (char *)&f + 2, 2);
        }
    }
}

static void upload(struct twin *t)
{
    CHECK_OK(kern_upload(q, t->gpu, t->cpu, (size_t)t->bytes));
    CHECK_OK(kern_queue_sync(q));
}

static struct twin twin(enum kern_dtype type, int64_t n, uint64_t seed)
{
    struct twin t = { .bytes = n * (int64_t)kern_dtype_bytes(type) };

    CHECK_OK(kern_alloc(gpu, &t.gpu, (size_t)t.bytes, "test"));
    CHECK_OK(mem_alloc(&t.cpu, (size_t)t.bytes, 1, "test"));
    fill(t.cpu, type, n, seed);
    upload(&t);
    return t;
}

static void untwin(struct twin *t)
{
    kern_free(gpu, t->gpu);
    mem_free(t->cpu);
}

/* After collectives of both sides: are `bytes` at `offset` alike? */
static void check_alike(struct comm *c, const struct twin *t, int64_t offset,
                        int64_t bytes)
{
    char *got = NULL;

    CHECK_OK(mem_alloc(&got, (size_t)bytes, 1, "test"));
    CHECK_OK(kern_queue_sync(comm_queue(c)));
    CHECK_OK(kern_queue_sync(comm_queue(cpu)));
    CHECK_OK(kern_download(q, got, t->gpu + offset, (size_t)bytes));
    CHECK_OK(kern_queue_sync(q));
    CHECK(memcmp(got, t->cpu + offset, (size_t)bytes) == 0);
    mem_free(got);
}

/* ---- moves ---------------------------------------------------------------------------- */

static void check_moves(struct comm *c)
{
    struct twin all = twin(KERN_F32, size * CHUNK, (uint64_t)rank);
    struct twin got = twin(KERN_F32, size * CHUNK, 99);
    int64_t own = rank * CHUNK * 4;

    CHECK_OK(comm_all_to_all(c, all.gpu, got.gpu, CHUNK, KERN_F32));
    CHECK_OK(comm_all_to_all(cpu, all.cpu, got.cpu, CHUNK, KERN_F32));
    check_alike(c, &got, 0, got.bytes);
    CHECK_OK(comm_all_gather(c, all.gpu + own, all.gpu, CHUNK, KERN_F32)); /* in place */
    CHECK_OK(comm_all_gather(cpu, all.cpu + own, all.cpu, CHUNK, KERN_F32));
    check_alike(c, &all, 0, all.bytes);
    CHECK_OK(comm_all_gather(c, got.gpu, all.gpu, CHUNK, KERN_F32));
    CHECK_OK(comm_all_gather(cpu, got.cpu, all.cpu, CHUNK, KERN_F32));
    check_alike(c, &all, 0, all.bytes);
    for (int32_t root = 0; root < size; root++) {
        fill(got.cpu, KERN_F32, CHUNK, (uint64_t)(root * 10 + rank));
        upload(&got);
        CHECK_OK(comm_broadcast(c, got.gpu, CHUNK * 4, root));
        CHECK_OK(comm_broadcast(cpu, got.cpu, CHUNK * 4, root));
        check_alike(c, &got, 0, CHUNK * 4);
    }
    untwin(&all);
    untwin(&got);
}

static void moves_arrive_as_between_cpus(void) { check_moves(nccl); }
static void and_through_the_host(void) { check_moves(staged); }

/* ---- sums ----------------------------------------------------------------------------- */

/* Small integers: any order has the same sum. */
static void check_library_sums(struct comm *c)
{
    struct twin all = twin(KERN_F32, size * CHUNK, 0), own = twin(KERN_F32, CHUNK, 0);

    for (int64_t i = 0; i < size * CHUNK; i++)
        ((float *)all.cpu)[i] = (float)((rank + 1) * (i % 1000));
    upload(&all);
    CHECK_OK(comm_reduce_scatter(c, all.gpu, own.gpu, CHUNK, KERN_F32));
    CHECK_OK(comm_reduce_scatter(cpu, all.cpu, own.cpu, CHUNK, KERN_F32));
    check_alike(c, &own, 0, own.bytes);
    upload(&all);
    CHECK_OK(comm_all_reduce(c, all.gpu, CHUNK, KERN_F32));
    CHECK_OK(comm_all_reduce(cpu, all.cpu, CHUNK, KERN_F32));
    check_alike(c, &all, 0, all.bytes);
    untwin(&all);
    untwin(&own);
}

static void library_sums_are_sums(void)
{
    check_library_sums(nccl);
    check_library_sums(staged);
}

static void check_tree(struct comm *c, int64_t leaves, int64_t chunk,
                       enum kern_dtype type, bool in_place)
{
    static const struct comm_rounding chance = { 42, 1000 };
    struct span s = part_leaves(leaves, size, rank);
    struct tree_node nodes[TREE_DEPTH];
    int n = tree_cover(leaves, (struct tree_node){ s.begin, s.end - s.begin }, nodes);
    struct twin node[TREE_DEPTH], own = twin(type, chunk, 0);
    void *on_gpu[TREE_DEPTH], *on_cpu[TREE_DEPTH];
    int64_t bytes = chunk * (int64_t)kern_dtype_bytes(type);
    int64_t offset = in_place ? rank * bytes : 0;
    struct twin *out = in_place ? &node[0] : &own;

    for (int k = 0; k < n; k++) {
        node[k] = twin(type, size * chunk, (uint64_t)(leaves * 100 + nodes[k].first));
        on_gpu[k] = node[k].gpu;
        on_cpu[k] = node[k].cpu;
    }
    if (type == KERN_BF16) {
        CHECK_OK(comm_reduce_tree_bf16(c, leaves, nodes, on_gpu, n, out->gpu + offset,
                                       chunk, chance));
        CHECK_OK(comm_reduce_tree_bf16(cpu, leaves, nodes, on_cpu, n, out->cpu + offset,
                                       chunk, chance));
    } else {
        CHECK_OK(comm_reduce_tree(c, leaves, nodes, on_gpu, n, out->gpu + offset, chunk,
                                  type));
        CHECK_OK(comm_reduce_tree(cpu, leaves, nodes, on_cpu, n, out->cpu + offset, chunk,
                                  type));
    }
    check_alike(c, out, offset, bytes);
    for (int k = 0; k < n; k++)
        untwin(&node[k]);
    untwin(&own);
}

/* Cubes and all other splits; t_comm holds the CPU's bits to the serial tree. */
static void canonical_sums_have_the_bits_of_the_cpu(void)
{
    for (int64_t leaves = size; leaves <= MOST; leaves++) {
        check_tree(nccl, leaves, CHUNK, KERN_F32, leaves % 2);
        check_tree(nccl, leaves, CHUNK, KERN_BF16, leaves % 2);
    }
    check_tree(staged, size, CHUNK, KERN_F32, true);
    check_tree(staged, MOST - 1, CHUNK, KERN_BF16, false);
}

/* Chunks of several segments, the last one short. */
static void and_in_several_segments(void)
{
    enum { LONG = 2 * PART_ALIGN + 36 };

    nccl->gpu->segment = 1;
    check_tree(nccl, 4, LONG, KERN_F32, true);
    check_tree(nccl, 4, LONG, KERN_BF16, false);
    check_tree(nccl, 7, LONG, KERN_F32, false);
}

/* The adding queue stands still until two more groups of messages have come and gone: they
 * do only if the second segment does not wait for the sums of the first. */
static int (*groups_done)(void);
static int groups_before;

static kr_status hold_sums(void *arg)
{
    double start = clock_now();

    (void)arg;
    while (groups_done() < groups_before + 2)
        if (clock_now() - start > 10) return KR_ERR_COMM;
    clock_sleep(0.03); /* for a third, if it does not wait until its room is free */
    return KR_OK;
}

static void check_overlap(int64_t leaves, enum kern_dtype type)
{
    check_tree(nccl, leaves, 3 * PART_ALIGN + 36, type, true); /* takes what it needs */
    groups_before = groups_done();
    CHECK_OK(kern_queue_call(nccl->gpu->adder.queue, hold_sums, "", 1));
    check_tree(nccl, leaves, 3 * PART_ALIGN + 36, type, true);
    CHECK_OK(kern_queue_sync(nccl->gpu->adder.queue));
}

static void a_segment_is_on_its_way_while_another_is_added(void)
{
    void *at =
        dlsym(dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD), "fakeNcclGroupsDone");

    memcpy(&groups_done, &at, sizeof at);
    CHECK(at != NULL);
    if (!at) return;
    nccl->gpu->segment = 1;
    check_overlap(size, KERN_F32);
    check_overlap(size, KERN_BF16);
    check_overlap(MOST - 1, KERN_F32);
}

/* ---- order ---------------------------------------------------------------------------- */

/* The memory plan has it before there is a group. */
static void a_reduction_keeps_what_was_planned(void)
{
    static const enum kern_dtype types[] = { KERN_F32, KERN_BF16 };

    for (int64_t leaves = size; leaves <= 2 * size + 1; leaves++)
        for (int i = 0; i < 2; i++) {
            struct comm *c = open_group("nccl", 20, "", gpu);
            int64_t before = emu_device_bytes().now;

            check_tree(c, leaves, CHUNK * PART_ALIGN, types[i], false);
            CHECK_I64(emu_device_bytes().now - before, ==,
                      comm_tree_bytes(leaves, size, CHUNK * PART_ALIGN, types[i]));
            comm_close(c);
        }
    CHECK_I64(comm_tree_bytes(8, 4, 1 << 30, KERN_F32), ==, 64 << 20);
    CHECK_I64(comm_tree_bytes(9, 3, 1 << 30, KERN_F32), <=, 64 << 20);
    CHECK_I64(comm_tree_bytes(1, 1, 1 << 30, KERN_F32), ==, 0);
}

/* Another stream's work goes before, and after, by events alone. */
static void events_join_it_to_other_streams(void)
{
    struct twin all = twin(KERN_F32, size * CHUNK, 1), sum = twin(KERN_F32, CHUNK, 2);
    struct kern_mat own = kern_mat(all.gpu + rank * CHUNK * 4, 1, CHUNK, KERN_F32);
    struct kern_event *before = NULL, *after = NULL;
    float *got = (float *)sum.cpu;

    CHECK_OK(kern_event_open(&before, gpu));
    CHECK_OK(kern_event_open(&after, gpu));
    for (int round = 1; round <= 3; round++) {
        CHECK_OK(kern_fill(q, own, round * (rank + 1)));
        CHECK_OK(kern_event_record(before, q));
        CHECK_OK(kern_event_wait(before, comm_queue(nccl)));
        CHECK_OK(comm_all_gather(nccl, own.at, all.gpu, CHUNK, KERN_F32));
        CHECK_OK(kern_event_record(after, comm_queue(nccl)));
        CHECK_OK(kern_event_wait(after, q));
        CHECK_OK(
            kern_copy(q, kern_mat(sum.gpu, 1, CHUNK, KERN_F32),
                      kern_mat(all.gpu + (size - 1) * CHUNK * 4, 1, CHUNK, KERN_F32)));
        CHECK_OK(kern_download(q, got, sum.gpu, CHUNK * 4));
        CHECK_OK(kern_queue_sync(q));
        for (int i = 0; i < CHUNK; i++)
            CHECK(got[i] == (float)(round * size));
    }
    kern_event_close(before);
    kern_event_close(after);
    untwin(&all);
    untwin(&sum);
}

/* Messages of the host while the GPU's stream has work; memory that is registered. */
static void host_and_registered_memory(void)
{
    int32_t to = (rank + 1) % size, from = (rank + size - 1) % size, out = rank, in = -1;
    struct comm_packet list[] = { { &out, sizeof out, to, true },
                                  { &in, sizeof in, from, false } };
    struct twin all = twin(KERN_F32, size * CHUNK, (uint64_t)rank);
    double sent = comm_sent(nccl);

    comm_register(nccl, all.gpu, all.bytes);
    comm_register(nccl, NULL, 0);
    CHECK_OK(comm_all_gather(nccl, all.gpu + rank * CHUNK * 4, all.gpu, CHUNK, KERN_F32));
    CHECK_OK(comm_swap(nccl, list, 2));
    CHECK_OK(comm_agree(nccl, KR_OK));
    CHECK_OK(comm_swap_wait(nccl));
    CHECK_I64(in, ==, from);
    CHECK_NEAR(comm_sent(nccl) - sent, (size - 1) * CHUNK * 4.0 + 4, 0);
    CHECK_OK(kern_queue_sync(comm_queue(nccl)));
    comm_unregister(nccl, all.gpu);
    untwin(&all);
}

/* ---- faults --------------------------------------------------------------------------- */

static char last_error[512];

static void keep_error(enum log_level level, const char *text, void *arg)
{
    (void)arg;
    if (level == LOG_ERROR) snprintf(last_error, sizeof last_error, "%s", text);
}

/* A group whose second collective fails, within `most` seconds and with a line that has
 * `mine` on rank 0, `theirs` elsewhere. */
static void check_death(const char *fault, const char *mine, const char *theirs,
                        double most)
{
    struct twin all = twin(KERN_F32, size * CHUNK, 0);
    void *own = all.gpu + rank * CHUNK * 4;
    struct comm *c;
    double start;

    setenv("FAKE_NCCL", fault, 1);
    c = open_group("nccl", 1, "", gpu);
    unsetenv("FAKE_NCCL");
    log_capture(keep_error, NULL);
    last_error[0] = '\0';
    CHECK_OK(comm_all_gather(c, own, all.gpu, CHUNK, KERN_F32));
    CHECK_OK(kern_queue_sync(comm_queue(c)));
    start = clock_now();
    (void)comm_all_gather(c, own, all.gpu, CHUNK, KERN_F32); /* may know it already */
    CHECK_I64(kern_queue_sync(comm_queue(c)), ==, KR_ERR_COMM);
    CHECK_I64(comm_all_gather(c, own, all.gpu, CHUNK, KERN_F32), ==, KR_ERR_COMM);
    CHECK_I64(comm_agree(c, KR_OK), ==, KR_ERR_COMM);
    log_capture(NULL, NULL);
    CHECK(strstr(last_error, "collective 2 (all_gather): ") != NULL);
    CHECK(strstr(last_error, rank == 0 ? mine : theirs) != NULL);
    comm_close(c);
    CHECK(clock_now() - start < most);
    untwin(&all);
    CHECK_OK(comm_agree(cpu, KR_OK)); /* this one knows nothing of it */
}

static void silence_ends_in_bounded_time(void)
{
    check_death("mute:0:2", "some rank did not answer in 1 s", "", 5);
}

/* In the midst of a reduction, with sums on the other queue that wait for what never comes. */
static void and_in_the_midst_of_a_reduction(void)
{
    enum { LONG = 3 * PART_ALIGN };

    struct twin all = twin(KERN_F32, size * LONG, 0), own = twin(KERN_F32, LONG, 0);
    struct tree_node node = { rank, 1 };
    void *at = all.gpu;
    struct comm *c;
    double start;

    setenv("FAKE_NCCL", "mute:0:2", 1);
    c = open_group("nccl", 1, "", gpu);
    unsetenv("FAKE_NCCL");
    c->gpu->segment = 1;
    log_capture(keep_error, NULL);
    last_error[0] = '\0';
    start = clock_now();
    (void)comm_reduce_tree(c, size, &node, &at, 1, own.gpu, LONG, KERN_F32);
    CHECK_I64(kern_queue_sync(comm_queue(c)), ==, KR_ERR_COMM);
    log_capture(NULL, NULL);
    CHECK(strstr(last_error, "collective 1 (reduce_tree): ") != NULL);
    comm_close(c);
    CHECK(clock_now() - start < 5);
    untwin(&all);
    untwin(&own);
    CHECK_OK(comm_agree(cpu, KR_OK));
}

/* The others see that its end of the wire is closed. */
static void errors_that_nccl_finds_have_a_line(void)
{
    check_death("error:0:2", "unhandled system error: a link is down",
                "remote process exited or there was a network error: a peer is gone", 5);
}

static void a_rank_that_never_joins_is_waited_for_in_bounded_time(void)
{
    struct comm_config config = { "nccl", 1, "" };
    struct comm *c = NULL;
    double start = clock_now();

    setenv("FAKE_NCCL", "alone:0:0", 1);
    CHECK_OK(comm_open(&c, &config));
    log_capture(keep_error, NULL);
    CHECK_I64(comm_bind(c, gpu), ==, KR_ERR_COMM);
    log_capture(NULL, NULL);
    unsetenv("FAKE_NCCL");
    if (rank == 0) /* the others have met, and hear from it that it has not */
        CHECK(strstr(last_error, "(comm_bind): NCCL: some rank did not answer") != NULL);
    comm_close(c);
    CHECK(clock_now() - start < 5);
    CHECK_OK(comm_agree(cpu, KR_OK));
}

/* ---- main ----------------------------------------------------------------------------- */

static void nccl_is_what_auto_means_between_gpus(void)
{
    CHECK(strstr(comm_describe(nccl), ", NCCL 2.28.9") != NULL);
    CHECK(strstr(comm_describe(staged), ", GPU memory through the host") != NULL);
}

static void run_all(void)
{
    RUN(nccl_is_what_auto_means_between_gpus);
    RUN(moves_arrive_as_between_cpus);
    RUN(and_through_the_host);
    RUN(library_sums_are_sums);
    RUN(canonical_sums_have_the_bits_of_the_cpu);
    RUN(and_in_several_segments);
    RUN(a_segment_is_on_its_way_while_another_is_added);
    RUN(a_reduction_keeps_what_was_planned);
    RUN(events_join_it_to_other_streams);
    RUN(host_and_registered_memory);
    RUN(silence_ends_in_bounded_time);
    RUN(and_in_the_midst_of_a_reduction);
    RUN(errors_that_nccl_finds_have_a_line);
    RUN(a_rank_that_never_joins_is_waited_for_in_bounded_time);
}

static bool open_all(void)
{
    if (kern_device_open(&host, "cpu", 0, 1) != KR_OK) return false;
    if (comm_bind(cpu, host) != KR_OK) return false;
    if (kern_device_open(&gpu, "cuda32", comm_gpu_rank(cpu), 1) != KR_OK) return false;
    if (kern_queue_open(&q, gpu, KERN_QUEUE_COMPUTE) != KR_OK) return false;
    nccl = open_group("auto", 60, "", gpu);
    staged = open_group("mpi", 60, "", gpu);
    return nccl && staged && comm_queue(nccl) && comm_queue(staged);
}

int main(void)
{
    struct comm_config config = { "auto", 60, "" };
    int bad;

    setenv("EMU_STREAMS", "1", 1);
    setenv("EMU_GPUS", "4", 1);
    if (comm_open(&cpu, &config) != KR_OK) return 2;
    rank = comm_rank(cpu);
    size = comm_size(cpu);
    log_setup("t_nccl", rank);
    if (size < 2) {
        printf("1..0 # SKIP for several ranks, under mpirun\n");
        return 0;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* all ranks print their cases */
    if (!open_all()) comm_abort(cpu, 2);
    run_all();
    bad = check_done();
    comm_close(staged);
    comm_close(nccl);
    kern_queue_close(q);
    comm_close(cpu);
    kern_device_close(gpu);
    kern_device_close(host);
    return bad;
}
