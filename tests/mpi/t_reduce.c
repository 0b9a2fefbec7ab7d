/*
 * t_reduce.c - collectives of the queue give the computed answer, the canonical sum that of
 * the serial tree.
 */
/* RANKS: 1 2 3 4 */
#include "base/bf16.h"
#include "base/mem.h"
#include "comm/part.h"
#include "tests/mpi/ranks.h"

static struct kern_device *device;

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

int main(void)
{
    ranks_open("t_reduce");
    if (kern_device_open(&device, "cpu", 0, 1) != KR_OK) comm_abort(group, 2);
    if (comm_bind(group, device) != KR_OK) comm_abort(group, 2);
    RUN(reduce_scatter_sums_each_chunk);
    RUN(all_gather_places_every_chunk);
    RUN(broadcast_reaches_all_from_any_root);
    RUN(everyone_gets_a_chunk_of_everyone);
    RUN(order_matters_for_these_values);
    RUN(canonical_sum_has_the_bits_of_the_serial_tree);
    RUN(canonical_sum_of_long_chunks);
    RUN(wrong_nodes_are_refused_and_the_group_lives);
    RUN(canonical_sum_of_bf16_has_the_bits_of_the_serial_tree);
    comm_unbind(group);
    kern_device_close(device);
    return ranks_close();
}
