/* bench_reduce.c - one row a unit, one column a kind of collective. */
#include "comm/bench_reduce.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/part.h"

enum kind { LIBRARY, CANONICAL, GATHER, KINDS };
enum { MIB = 1024 * 1024, MAX_ROUNDS = 41 };

static const struct {
    int64_t mib;
    int rounds; /* odd, for the median */
} units[] = { { 1, MAX_ROUNDS }, { 25, 11 }, { 100, 5 } };

struct bench {
    struct comm *c;
    enum kern_dtype type;
    int64_t chunk; /* elements */
    void *all, *own;
    double seconds[KINDS][MAX_ROUNDS];
};

static kr_status start(struct bench *b, enum kind kind)
{
    struct tree_node leaf = { comm_rank(b->c), 1 };

    if (kind == LIBRARY)
        return comm_reduce_scatter(b->c, b->all, b->own, b->chunk, b->type);
    if (kind == CANONICAL) /* as many leaves as ranks */
        return comm_reduce_tree(b->c, comm_size(b->c), &leaf, &b->all, 1, b->own,
                                b->chunk, b->type);
    return comm_all_gather(b->c, b->own, b->all, b->chunk, b->type);
}

/* All ranks start together, see comm_agree. */
static kr_status measure(struct bench *b, enum kind kind, double *seconds)
{
    double begun;

    TRY(comm_agree(b->c, KR_OK));
    begun = clock_now();
    TRY(start(b, kind));
    TRY(kern_queue_sync(comm_queue(b->c)));
    *seconds = clock_now() - begun;
    return KR_OK;
}

static kr_status measure_all(struct bench *b, int rounds)
{
    double unused;

    for (int kind = 0; kind < KINDS; kind++) /* touches the memory, grows the scratch */
        TRY(measure(b, (enum kind)kind, &unused));
    for (int i = 0; i < rounds; i++)
        for (int kind = 0; kind < KINDS; kind++)
            TRY(measure(b, (enum kind)kind, &b->seconds[kind][i]));
    return KR_OK;
}

/* Of each round the slowest rank counts. */
static kr_status slowest(struct bench *b)
{
    int32_t size = comm_size(b->c);
    double(*all)[KINDS][MAX_ROUNDS] = NULL;
    kr_status st = mem_alloc(&all, (size_t)size, sizeof *all, "times of ranks");

    if (st == KR_OK) st = comm_all_gather_bytes(b->c, b->seconds, sizeof b->seconds, all);
    for (int32_t r = 0; r < size && st == KR_OK; r++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int i = 0; i < MAX_ROUNDS; i++)
                if (all[r][kind][i] > b->seconds[kind][i])
                    b->seconds[kind][i] = all[r][kind][i];
    mem_free(all);
    return st;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *x, int count)
{
    qsort(x, (size_t)count, sizeof *x, by_size);
    return x[count / 2];
}

static void print_head(const struct comm *c, FILE *out)
{
    fprintf(out, "%s\n", comm_describe(c));
    fprintf(
        out,
        "ms: median of rounds, slowest rank; GB/s per rank: (ranks - 1) / ranks of the "
        "padded unit,\nwhat each rank sends, over the time, 1 GB = 1e9 bytes\n");
    fprintf(out, "%8s | %18s | %18s | %9s | %18s\n", "unit", "reduce library",
            "canonical", "canonical", "all-gather");
    fprintf(out, "%8s | %9s %8s | %9s %8s | %9s | %9s %8s\n", "MiB", "ms", "GB/s", "ms",
            "GB/s", "/ library", "ms", "GB/s");
}

static void print_row(struct bench *b, int64_t mib, int rounds, FILE *out)
{
    double sent = (double)(comm_size(b->c) - 1) * (double)b->chunk *
                  (double)kern_dtype_bytes(b->type);
    double t[KINDS];

    for (int kind = 0; kind < KINDS; kind++)
        t[kind] = median(b->seconds[kind], rounds);
    fprintf(out, "%8lld | %9.3f %8.2f | %9.3f %8.2f | %9.2f | %9.3f %8.2f\n",
            (long long)mib, 1e3 * t[LIBRARY], 1e-9 * sent / t[LIBRARY],
            1e3 * t[CANONICAL], 1e-9 * sent / t[CANONICAL], t[CANONICAL] / t[LIBRARY],
            1e3 * t[GATHER], 1e-9 * sent / t[GATHER]);
    fflush(out);
}

static kr_status bench_unit(struct bench *b, struct kern_device *d, int64_t mib,
                            int rounds, FILE *out)
{
    int64_t size = (int64_t)kern_dtype_bytes(b->type);
    size_t bytes;
    kr_status st;

    b->chunk = part_chunk(mib * MIB / size, comm_size(b->c));
    bytes = (size_t)(b->chunk * size);
    st = kern_alloc(d, &b->all, bytes * (size_t)comm_size(b->c), "a unit");
    if (st == KR_OK) st = kern_alloc(d, &b->own, bytes, "a chunk");
    TRY_OR(st, comm_agree(b->c, st), done);
    TRY_OR(st, measure_all(b, rounds), done);
    TRY_OR(st, slowest(b), done);
    if (comm_rank(b->c) == 0) print_row(b, mib, rounds, out);
done:
    kern_free(d, b->all);
    kern_free(d, b->own);
    b->all = b->own = NULL;
    return st;
}

kr_status comm_bench_reduce(struct comm *c, struct kern_device *d, FILE *out)
{
    struct bench *b = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&b, 1, sizeof *b, "benchmark"));
    b->c = c;
    b->type = kern_device_type(d);
    if (comm_rank(c) == 0) print_head(c, out);
    for (size_t i = 0; i < sizeof units / sizeof *units && st == KR_OK; i++)
        st = bench_unit(b, d, units[i].mib, units[i].rounds, out);
    mem_free(b);
    return st;
}
