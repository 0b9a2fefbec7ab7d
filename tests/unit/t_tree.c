/*
 * t_tree.c - the canonical sum is one expression, whoever adds which part of it.
 *
 * Sums are compared by their bits and, as a second and independent witness, as text:
 * "((0 1) 2)" for the sum of leaves 0 and 1, then of leaf 2.
 */
#include "comm/part.h"
#include "comm/tree.h"
#include "tests/check.h"

#include <stdlib.h>

enum { LEAVES = 40, TEXT = 512 };

/* A sum and how it came about. */
struct sum {
    float value;
    char text[TEXT];
};

/* Values for which any other order gives other bits: large ones that cancel, with small
 * ones that are lost or not, depending on who meets whom first. */
static struct sum leaf(int64_t i)
{
    static const float value[] = { 1e8f,  1.0f,  -1e8f, 0.3f, 3e7f,
                                   -1.7f, 1e-3f, -3e7f, 7.77f };
    struct sum s = { value[i % 9] * (1.0f + (float)i / 64.0f), "" };

    snprintf(s.text, sizeof s.text, "%d", (int)i);
    return s;
}

static struct sum join(const struct sum *a, const struct sum *b)
{
    struct sum s = { a->value + b->value, "" };
    int n = snprintf(s.text, sizeof s.text, "(%s %s)", a->text, b->text);

    CHECK(n > 0 && n < TEXT);
    return s;
}

/* The definition, as tree.h words it, by recursion. */
static struct sum evaluate(int64_t first, int64_t count)
{
    int64_t p = 1;
    struct sum a, b;

    if (count == 1) return leaf(first);
    while (2 * p < count)
        p *= 2;
    a = evaluate(first, p);
    b = evaluate(first + p, count - p);
    return join(&a, &b);
}

struct stack {
    struct tree_node node[TREE_DEPTH];
    struct sum sum[TREE_DEPTH];
    int depth;
};

static void push(struct stack *s, int64_t leaves, struct tree_node n,
                 const struct sum *sum)
{
    int top = s->depth, joins;

    s->sum[top] = *sum;
    joins = tree_push(s->node, &s->depth, leaves, n);
    for (; joins > 0; joins--, top--)
        s->sum[top - 1] = join(&s->sum[top - 1], &s->sum[top]);
    CHECK_I64(top + 1, ==, s->depth);
}

/* One rank adds its leaves, what is left goes to the stack that joins all ranks. */
static void push_run(struct stack *all, int64_t leaves, int64_t begin, int64_t end)
{
    static struct stack run;

    run.depth = 0;
    for (int64_t i = begin; i < end; i++) {
        struct sum x = leaf(i);

        push(&run, leaves, (struct tree_node){ i, 1 }, &x);
    }
    for (int k = 0; k < run.depth; k++)
        push(all, leaves, run.node[k], &run.sum[k]);
}

static void check_root(const struct stack *s, int64_t leaves, const struct sum *want)
{
    CHECK_I64(s->depth, ==, 1);
    CHECK_I64(s->node[0].first, ==, 0);
    CHECK_I64(s->node[0].count, ==, leaves);
    CHECK(memcmp(&s->sum[0].value, &want->value, sizeof want->value) == 0);
    CHECK_STR(s->sum[0].text, want->text);
}

static void six_leaves_are_as_the_header_says(void)
{
    struct sum s = evaluate(0, 6);

    CHECK_STR(s.text, "(((0 1) (2 3)) (4 5))");
}

/* The values are worth something: left to right gives other bits for some counts. */
static void order_matters_for_these_values(void)
{
    int different = 0;

    for (int64_t leaves = 1; leaves <= LEAVES; leaves++) {
        float sum = leaf(0).value;
        struct sum tree = evaluate(0, leaves);

        for (int64_t i = 1; i < leaves; i++)
            sum += leaf(i).value;
        different += memcmp(&sum, &tree.value, sizeof sum) != 0;
    }
    CHECK_I64(different, >, LEAVES / 2);
}

static void any_number_of_ranks_gives_the_same_expression(void)
{
    static struct stack all;

    for (int64_t leaves = 1; leaves <= LEAVES; leaves++) {
        struct sum want = evaluate(0, leaves);

        for (int32_t size = 1; size <= 9 && size <= leaves; size++) {
            all.depth = 0;
            for (int32_t r = 0; r < size; r++) {
                struct span s = part_leaves(leaves, size, r);

                push_run(&all, leaves, s.begin, s.end);
            }
            check_root(&all, leaves, &want);
        }
    }
}

/* Not only the runs of part_leaves: cut anywhere, at random and in every place. */
static void any_split_into_runs_gives_the_same_expression(void)
{
    static struct stack all;

    srand(1);
    for (int64_t leaves = 1; leaves <= LEAVES; leaves++) {
        struct sum want = evaluate(0, leaves);

        for (int trial = 0; trial < 40; trial++) {
            int64_t begin = 0;

            all.depth = 0;
            while (begin < leaves) {
                int64_t end =
                    trial == 0 ? begin + 1 : begin + 1 + rand() % (leaves - begin);

                push_run(&all, leaves, begin, end);
                begin = end;
            }
            check_root(&all, leaves, &want);
        }
    }
}

static void cover_is_what_pushing_leaves_on_the_stack(void)
{
    struct tree_node nodes[TREE_DEPTH], stack[TREE_DEPTH];

    for (int64_t leaves = 1; leaves <= 70; leaves++)
        for (int64_t begin = 0; begin < leaves; begin++)
            for (int64_t end = begin; end <= leaves; end++) {
                int n =
                    tree_cover(leaves, (struct tree_node){ begin, end - begin }, nodes);
                int depth = 0;

                for (int64_t i = begin; i < end; i++)
                    tree_push(stack, &depth, leaves, (struct tree_node){ i, 1 });
                CHECK_I64(n, ==, depth);
                CHECK(memcmp(nodes, stack, (size_t)depth * sizeof *stack) == 0);
            }
}

/* TREE_DEPTH and the bound in tree.h. */
static void covers_and_stacks_stay_small(void)
{
    struct tree_node nodes[TREE_DEPTH];
    int64_t leaves = INT64_C(1) << 30;

    CHECK_I64(tree_cover(leaves, (struct tree_node){ 1, leaves - 2 }, nodes), ==, 58);
    CHECK_I64(tree_cover(leaves - 1, (struct tree_node){ 1, leaves - 3 }, nodes), <=, 60);
    CHECK_I64(tree_cover(leaves, (struct tree_node){ 0, leaves }, nodes), ==, 1);
}

int main(void)
{
    RUN(six_leaves_are_as_the_header_says);
    RUN(order_matters_for_these_values);
    RUN(any_number_of_ranks_gives_the_same_expression);
    RUN(any_split_into_runs_gives_the_same_expression);
    RUN(cover_is_what_pushing_leaves_on_the_stack);
    RUN(covers_and_stacks_stay_small);
    return check_done();
}
