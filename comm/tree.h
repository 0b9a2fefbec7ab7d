/*
 * tree.h - the canonical order of a sum over the micro-batches of one step.
 *
 * The gradient of a global batch is a sum over `leaves` micro-batches.  Its order is one
 * fixed binary tree, whoever computes the leaves: a node over [first, first + count) with
 * count > 1 adds, left to right, the node over its first p leaves and the node over the
 * rest, p the largest power of two below count.
 *
 *   leaves = 6:   ((0 1) (2 3)) (4 5)
 *
 * A rank that computes a contiguous run pushes leaf after leaf on a stack and joins the
 * two top entries whenever they are the two children of one node.  What is left are the
 * nodes that the run covers: one, if the run is a whole subtree; never more than
 * 2 * log2(leaves).  The same rule joins the nodes of all ranks.  Pure arithmetic.
 */
#ifndef COMM_TREE_H
#define COMM_TREE_H

#include <stdbool.h>
#include <stdint.h>

/* The sum of the leaves first .. first + count - 1. */
struct tree_node {
    int64_t first, count;
};

/* Enough for any stack and any cover of up to 2^30 leaves. */
enum { TREE_DEPTH = 64 };

/* Largest power of two below count; count >= 2. */
static inline int64_t tree_split(int64_t count)
{
    int64_t p = 1;

    while (p * 2 < count)
        p *= 2;
    return p;
}

/* Are a and b, in this order, the two children of one node of the tree over `leaves`? */
static inline bool tree_joins(int64_t leaves, struct tree_node a, struct tree_node b)
{
    int64_t first = 0, count = leaves;

    if (a.first + a.count != b.first) return false;
    while (count > a.count + b.count) { /* go down towards a */
        int64_t left = tree_split(count);

        if (a.first < first + left) {
            count = left;
        } else {
            first += left;
            count -= left;
        }
    }
    return first == a.first && count == a.count + b.count && count > 1 &&
           tree_split(count) == a.count;
}

/* Push leaf (or node) n on the stack of *depth nodes and say how many times the two top
 * entries are to be joined: after each join the left one has the sum. */
static inline int tree_push(struct tree_node *stack, int *depth, int64_t leaves,
                            struct tree_node n)
{
    int joins = 0;

    stack[(*depth)++] = n;
    while (*depth > 1 && tree_joins(leaves, stack[*depth - 2], stack[*depth - 1])) {
        stack[*depth - 2].count += stack[*depth - 1].count;
        (*depth)--;
        joins++;
    }
    return joins;
}

/* The nodes that the run of leaves covers, ascending, into nodes[TREE_DEPTH]: what
 * tree_push leaves on the stack.  Returns how many; a run of 0 leaves has none. */
static inline int tree_cover(int64_t leaves, struct tree_node run,
                             struct tree_node *nodes)
{
    int count = 0;

    while (run.count > 0) {
        struct tree_node n = { 0, leaves };

        while (n.first != run.first || n.count > run.count) { /* go down to its begin */
            int64_t left = tree_split(n.count);

            if (run.first < n.first + left) {
                n.count = left;
            } else {
                n.first += left;
                n.count -= left;
            }
        }
        nodes[count++] = n;
        run.first += n.count;
        run.count -= n.count;
    }
    return count;
}

#endif
