/* shard_room.c - what the collectives of a shard take beside the arrays that they move. */
#include "trainer/run/shard_parts.h"

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* The longest chunk of units that are trained, of all units. */
static int64_t longest(const struct params *p, int32_t size, int first)
{
    int64_t most = 0;

    for (int i = first; i < p->units; i++)
        most = larger(most, part_chunk(p->unit_len[i], size));
    return most;
}

/* Nodes of the tree that a rank holds at the end of a step, the most of any rank. */
static int64_t nodes_of_a_rank(int64_t leaves, int32_t size)
{
    struct tree_node nodes[TREE_DEPTH];
    int64_t most = 0;

    for (int32_t r = 0; r < size; r++) {
        struct span s = part_leaves(leaves, size, r);
        struct tree_node mine = { s.begin, s.end - s.begin };

        most = larger(most, tree_cover(leaves, mine, nodes));
    }
    return most;
}

struct shard_room shard_room(const struct params *params, int32_t size,
                             const struct shard_config *c, enum kern_dtype type,
                             enum kern_dtype wide)
{
    int64_t trained = longest(params, size, params->frozen),
            any = longest(params, size, 0);
    int64_t elem = (int64_t)kern_dtype_bytes(c->grads), leaves = c->leaves, arrays = 1;
    int64_t reduced, gathered;

    if (size == 1) return (struct shard_room){ 0 };
    if (c->stage >= 2) leaves = size; /* a round at a time */
    if (c->canonical) arrays = nodes_of_a_rank(leaves, size);
    if (shard_needs_got(c, size)) arrays = larger(arrays, 2);
    reduced = (arrays * size + 1) * trained * elem;
    gathered = (size + 1) * any * (int64_t)kern_dtype_bytes(type);
    /* a load refreshes what every rank keeps of the masters */
    if (c->stage == 0) gathered = (size + 1) * trained * (int64_t)kern_dtype_bytes(wide);
    return (struct shard_room){
        .device = c->canonical ? comm_tree_bytes(leaves, size, trained, c->grads) : 0,
        .pinned = (size_t)larger(reduced, gathered),
        .checksums = shard_checksum_bytes(params, size),
    };
}
