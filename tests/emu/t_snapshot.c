/*
 * t_snapshot.c - a snapshot of emulated GPUs on two nodes: its first chunk is under way when
 * snapshot_take returns, as on a CPU, nobody has waited for the copy, and what the partner
 * gets is the state of that step.
 *
 * Streams are threads.
 */
/* RANKS: 2 */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "checkpoints/snapshot_parts.h"
#include "kernels/kernels.h"
#include "tests/check.h"
#include "tests/emu/emu.h"

enum { LENGTH = 5 << 20 /* elements of a rank, two chunks */, STEP = 7 };

static char folder[FS_PATH], run[FS_PATH], checkpoints[FS_PATH];
static struct comm *both; /* MPI begins and ends once */
static int32_t rank;

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

static kr_status layout(void *self, int32_t world, int32_t of,
                        struct snapshot_extent **out, int32_t *count)
{
    (void)self, (void)world;
    TRY(mem_alloc(out, 1, sizeof **out, "test"));
    **out = (struct snapshot_extent){ 0, (int64_t)of * LENGTH, LENGTH };
    *count = 1;
    return KR_OK;
}

/* A rank with its half of one tensor on a device. */
struct side {
    struct kern_device *device;
    struct kern_queue *q;
    struct comm *comm;
    struct ckpt_tensor tensor;
    struct ckpt_piece piece;
    struct ckpt_state state;
    struct snapshot *s;
};

static void fill(struct side *x, double value)
{
    must(kern_fill(x->q, kern_mat(x->piece.at, 1, LENGTH, KERN_F32), value));
}

static void open_side(struct side *x, const char *device, const char *backend)
{
    struct comm_config config = { backend, 20, "" };
    struct snapshot_config where = {
        .run = run, .dir = folder, .settings = 1, .generation = 1, .layout = layout
    };
    const char *text;

    *x = (struct side){ .tensor = { .name = "weight/x", .rows = 2, .cols = LENGTH },
                        .piece = { 0, rank * LENGTH, LENGTH, NULL } };
    x->state = (struct ckpt_state){ &x->tensor, &x->piece, 1, 1 };
    must(comm_open(&x->comm, &config));
    must(kern_device_open(&x->device, device, 0, 1));
    must(kern_queue_open(&x->q, x->device, KERN_QUEUE_COMPUTE));
    must(comm_bind(x->comm, x->device));
    must(kern_alloc(x->device, &x->piece.at, LENGTH * sizeof(float), "test"));
    must(snapshot_open(&x->s, x->comm, &x->state, &where));
    must(snapshot_start(x->s, false, &text));
    CHECK_I64(comm_nodes(x->comm), ==, 2);
    CHECK_I64(x->s->scheme, ==, SNAPSHOT_PARTNER);
    CHECK_I64(x->s->chunks, ==, 2);
}

static void close_side(struct side *x)
{
    snapshot_close(x->s, true);
    kern_free(x->device, x->piece.at);
    kern_queue_close(x->q);
    comm_unbind(x->comm);
    kern_device_close(x->device);
    comm_close(x->comm);
}

static int64_t smallest(struct comm *c, int64_t mine)
{
    int64_t all[2];

    must(comm_all_gather_bytes(c, &mine, sizeof mine, all));
    return all[0] < all[1] ? all[0] : all[1];
}

/* Steps until all know that the snapshot is whole, without those for which the threads that
 * write took longer. */
static int moves(struct side *x)
{
    int n = 0;

    for (int64_t told = -1; told != STEP && told != SNAPSHOT_FAILED;) {
        enum snapshot_stage stage = x->s->stage;

        told = smallest(x->comm, snapshot_newest(x->s));
        must(snapshot_advance(x->s, told));
        n += stage == SNAPSHOT_SENDING;
    }
    return n;
}

/* Every part on this node, the own one and the partner's, holds this number only. */
static void check_parts(struct side *x, float value)
{
    const char *kinds[] = { "own", "copy" };
    float *got = NULL;

    must(mem_alloc(&got, LENGTH, sizeof *got, "test"));
    for (int i = 0; i < 2; i++) {
        struct memory_head heads[MEMORY_BUFFERS];
        int32_t buffer[MEMORY_BUFFERS], count = 0, wrong = 0;
        char path[FS_PATH];

        must(fs_path(path, "%s/part-%05d-of-00002.%s", x->s->folder, i ? 1 - rank : rank,
                     kinds[i]));
        CHECK(memory_look(path, true, heads, buffer, &count) == KR_OK);
        CHECK_I64(count, ==, 1);
        if (count != 1) continue;
        CHECK_I64(heads[0].step, ==, STEP);
        must(memory_read(path, heads, buffer[0], 0, LENGTH * sizeof *got, (char *)got));
        for (int64_t k = 0; k < LENGTH; k++)
            wrong += got[k] != value + (float)(i ? 1 - rank : rank);
        CHECK_I64(wrong, ==, 0);
    }
    mem_free(got);
}

/* Moves that a snapshot takes; changes the state as a step would, once it may. */
static int take(struct side *x, bool is_gpu)
{
    int64_t waits = emu_count(EMU_SYNC);
    double seconds;
    int n;

    fill(x, 3.0 + rank);
    must(snapshot_take(x->s, x->q, STEP, 1, -1, &seconds));
    CHECK_I64(x->s->sent, ==, 1);
    must(snapshot_hold(x->s, x->q));
    fill(x, 99);
    if (is_gpu) CHECK_I64(emu_count(EMU_SYNC), ==, waits);
    n = moves(x);
    check_parts(x, 3.0f);
    return n;
}

static void a_gpu_sends_as_early_as_a_cpu(void)
{
    static const struct {
        const char *device, *backend;
    } sides[] = { { "cpu", "mpi" }, { "cuda", "nccl" }, { "cuda", "mpi" } };
    int first = 0;

    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        struct side x;
        int n;

        open_side(&x, sides[i].device, sides[i].backend);
        n = take(&x, i > 0);
        if (i == 0) first = n;
        CHECK_I64(n, ==, first);
        close_side(&x);
    }
}

/* Of a part of 12 GiB, 16 MiB a step would be 768 steps. */
static void a_large_part_takes_no_more_steps_than_a_middling_one(void)
{
    const uint64_t mib = 1 << 20;

    CHECK_I64(snapshot_chunk(0), ==, 16 * mib);
    CHECK_I64(snapshot_chunk(500 * mib), ==, 16 * mib);
    CHECK_I64(snapshot_chunk(12288 * mib), ==, 384 * mib);
    CHECK_I64(snapshot_chunk(1 + 512 * mib), ==, 16 * mib + 1);
    CHECK_I64(snapshot_chunk(100000 * mib), ==, 1024 * mib); /* of one message */
}

int main(void)
{
    const char *number = getenv("OMPI_COMM_WORLD_RANK");
    const char *temporary = getenv("TMPDIR");
    struct comm_config config = { "mpi", 60, "" };

    if (!number) return 2;
    rank = atoi(number);
    log_setup("t_snapshot", rank);
    setenv("EMU_STREAMS", "1", 1);
    setenv("EMU_GPUS", "2", 1);
    setenv("KILORANK_NODE", rank ? "b" : "a", 1);
    must(fs_path(folder, "%s/t_snapshot-%d", temporary ? temporary : "/tmp",
                 (int)getppid()));
    must(fs_path(run, "%s/run", folder));
    must(fs_path(checkpoints, "%s/checkpoints", run));
    must(fs_mkdirs(checkpoints));
    must(comm_open(&both, &config));
    RUN(a_gpu_sends_as_early_as_a_cpu);
    RUN(a_large_part_takes_no_more_steps_than_a_middling_one);
    must(comm_agree(both, KR_OK));
    if (rank == 0) (void)fs_remove_tree(folder);
    comm_close(both);
    return check_done();
}
