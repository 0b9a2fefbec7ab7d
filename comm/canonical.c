/*
 * canonical.c - the sum over micro-batches in the order of tree.h.
 *
 * Fast path (size a power of two, every rank holds one whole subtree of equal size): in
 * round k = 0, 1, ... a rank holds the chunks c with c = rank modulo 2^k, summed over its
 * 2^k neighbours.  It swaps half of them with rank xor 2^k and adds, left operand first.
 * After log2(size) rounds chunk `rank` is left, summed over all.  As many bytes as a
 * ring, fewer steps, and the largest exchange is between neighbours.
 *
 * General path: every rank sends every other its chunk of each of its nodes; the owner of
 * a chunk joins all nodes, in order of their leaves, by the same rule as everyone.
 */
#include <string.h>

#include "base/mem.h"
#include "comm/backend.h"
#include "comm/part.h"

#define ADD(T)                                                       \
    static void add_##T(T *y, const T *a, const T *b, int64_t n)     \
    {                                                                \
        for (int64_t i = 0; i < n; i++)                              \
            y[i] = a[i] + b[i];                                      \
    }
ADD(float)
ADD(double)
#undef ADD

static void add(void *y, const void *a, const void *b, int64_t n, enum kern_dtype type)
{
    if (type == KERN_F64)
        add_double(y, a, b, n);
    else
        add_float(y, a, b, n);
}

static kr_status room(struct comm_scratch *s, size_t bytes)
{
    if (s->bytes >= bytes) return KR_OK;
    mem_free(s->at);
    *s = (struct comm_scratch){ 0 };
    TRY(mem_alloc(&s->at, bytes, 1, "scratch of the reduction"));
    s->bytes = bytes;
    return KR_OK;
}

static bool power_of_two(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

static bool is_even(const struct comm_place *p, const struct comm_tree_job *job)
{
    return power_of_two(p->size) && job->leaves % p->size == 0 &&
           power_of_two(job->leaves / p->size);
}

/* Swap with rank xor `bit` and add.  Chunks held before: rank modulo bit. */
static kr_status halve(const struct comm_ops *ops, void *state, const struct comm_place *p,
                       const struct comm_tree_job *job, char *got, int32_t bit)
{
    int64_t bytes = job->chunk * (int64_t)kern_dtype_bytes(job->type);
    int32_t peer = p->rank ^ bit, low = p->rank & (bit - 1);
    int64_t blocks = p->size / (2 * bit), stride = 2 * bit * bytes;
    char *theirs = job->at[0] + ((peer & bit) + low) * bytes;
    char *mine = job->at[0] + ((p->rank & bit) + low) * bytes;
    struct comm_transfer list[] = {
        { peer, bit, false, got, 1, blocks * bytes, 0 },
        { peer, bit, true, theirs, blocks, bytes, stride },
    };

    TRY(ops->transfer(state, list, 2));
    for (int64_t i = 0; i < blocks; i++) {
        char *at = mine + i * stride;
        const void *other = got + i * bytes;
        bool left = p->rank < peer;

        add(at, left ? at : other, left ? other : at, job->chunk, job->type);
    }
    return KR_OK;
}

static kr_status exchange_halves(const struct comm_ops *ops, void *state,
                                 const struct comm_place *p, const struct comm_tree_job *job,
                                 struct comm_scratch *scratch, double *sent)
{
    size_t bytes = (size_t)job->chunk * kern_dtype_bytes(job->type);

    TRY(room(scratch, bytes * (size_t)(p->size / 2)));
    for (int32_t bit = 1; bit < p->size; bit *= 2) {
        TRY(halve(ops, state, p, job, scratch->at, bit));
        *sent += (double)bytes * (p->size / (2 * bit));
    }
    if (job->own != job->at[0] + (size_t)p->rank * bytes)
        memmove(job->own, job->at[0] + (size_t)p->rank * bytes, bytes);
    return KR_OK;
}

/* The nodes that a rank's run of leaves covers, as everyone can compute. */
static int cover(const struct comm_place *p, int64_t leaves, int32_t rank,
                 struct tree_node *nodes)
{
    struct span run = part_leaves(leaves, p->size, rank);
    int depth = 0;

    for (int64_t leaf = run.begin; leaf < run.end; leaf++)
        (void)tree_push(nodes, &depth, leaves, (struct tree_node){ leaf, 1 });
    return depth;
}

/* Transfers of the general path; list NULL only counts.  got: chunks of all others. */
static int plan(const struct comm_place *p, const struct comm_tree_job *job, char *got,
                int64_t bytes, struct comm_transfer *list)
{
    struct tree_node nodes[TREE_DEPTH];
    int count = 0;

    for (int32_t r = 0; r < p->size; r++) {
        int theirs = r == p->rank ? 0 : cover(p, job->leaves, r, nodes);

        for (int k = 0; k < theirs; k++, count++, got += bytes)
            if (list) list[count] = (struct comm_transfer){ r, k, false, got, 1, bytes, 0 };
        for (int k = 0; r != p->rank && k < job->count; k++, count++)
            if (list)
                list[count] = (struct comm_transfer){
                    r, k, true, job->at[k] + r * bytes, 1, bytes, 0
                };
    }
    return count;
}

/* Join the chunks of all nodes in order; `at` are their places, overwritten. */
static void join_all(const struct comm_place *p, const struct comm_tree_job *job, char *got,
                     int64_t bytes)
{
    struct tree_node stack[TREE_DEPTH * 2], nodes[TREE_DEPTH];
    char *at[TREE_DEPTH * 2];
    int depth = 0;

    for (int32_t r = 0; r < p->size; r++) {
        int count = cover(p, job->leaves, r, nodes);

        for (int k = 0; k < count; k++) {
            int joins;

            at[depth] = r == p->rank ? job->at[k] + r * bytes : got;
            if (r != p->rank) got += bytes;
            joins = tree_push(stack, &depth, job->leaves, nodes[k]);
            for (int left = depth - 2 + joins; joins > 0; joins--, left--)
                add(at[left], at[left], at[left + 1], job->chunk, job->type);
        }
    }
    if (at[0] != job->own) memmove(job->own, at[0], (size_t)bytes);
}

static kr_status exchange_nodes(const struct comm_ops *ops, void *state,
                                const struct comm_place *p, const struct comm_tree_job *job,
                                struct comm_scratch *scratch, double *sent)
{
    int64_t bytes = job->chunk * (int64_t)kern_dtype_bytes(job->type);
    int count = plan(p, job, NULL, bytes, NULL);
    struct comm_transfer *list = NULL;
    kr_status st;

    TRY(mem_alloc(&list, (size_t)count, sizeof *list, "list of transfers"));
    /* receives are count minus own sends */
    TRY_OR(st, room(scratch, (size_t)bytes *
                                 (size_t)(count - job->count * (p->size - 1) + 1)), done);
    (void)plan(p, job, scratch->at, bytes, list);
    TRY_OR(st, ops->transfer(state, list, count), done);
    *sent += (double)bytes * job->count * (p->size - 1);
    join_all(p, job, scratch->at, bytes);
done:
    mem_free(list);
    return st;
}

kr_status comm_canonical(const struct comm_ops *ops, void *state,
                         const struct comm_place *place, const struct comm_tree_job *job,
                         struct comm_scratch *scratch, double *bytes_sent)
{
    if (is_even(place, job))
        return exchange_halves(ops, state, place, job, scratch, bytes_sent);
    return exchange_nodes(ops, state, place, job, scratch, bytes_sent);
}
