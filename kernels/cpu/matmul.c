/*
 * matmul.c - matrix products by the library, on our threads.
 *
 * The output is cut into blocks by its shape alone and each block is one call of the
 * library on one thread, so the bits do not depend on the number of threads (a library's
 * own threads cut by their number).  Blocks are as large as leaves enough of them to
 * share out evenly: the library packs its operands anew for each.  What a product is added
 * to, and the bias, go with each block, while it is in the cache.
 */
#include "kernels/cpu/blas.h"
#include "kernels/cpu/ops.h"

/* Start from blocks this large and halve their longer side until there are ENOUGH, or they
 * are as small as pays; docs/speed.md has what was tried. */
enum {
    MOST_ROWS = 512,
    MOST_COLS = 768,
    LEAST_ROWS = 128,
    LEAST_COLS = 192,
    ENOUGH = 16
};

/* Cut n into equal pieces of at most `most`, multiples of 64: the length of one. */
static int64_t cut(int64_t n, int64_t most)
{
    int64_t count = (n + most - 1) / most, each = (n + count - 1) / count;

    return (each + 63) / 64 * 64;
}

static int64_t pieces(int64_t n, int64_t each) { return (n + each - 1) / each; }

/* Rows and columns of a block of an (m, n) output. */
static void choose_block(int64_t m, int64_t n, int64_t *mb, int64_t *nb)
{
    int64_t rows = MOST_ROWS, cols = MOST_COLS;

    for (;;) {
        *mb = cut(m, rows);
        *nb = cut(n, cols);
        if (pieces(m, *mb) * pieces(n, *nb) >= ENOUGH) return;
        if (*nb > *mb && cols > LEAST_COLS)
            cols /= 2;
        else if (rows > LEAST_ROWS)
            rows /= 2;
        else if (cols > LEAST_COLS)
            cols /= 2;
        else
            return;
    }
}

/* c = onto + op(a) op(b) + bias; onto and bias may be none, onto may be c. */
struct product {
    struct kern_mat c, a, b, onto, bias;
    bool ta, tb;
};

/* One row of a block, before the library adds to it, and after. */
static void begin_row(const struct product *p, int64_t i, int64_t j, int64_t n)
{
    memcpy(row(p->c, i) + j, row(p->onto, i) + j, (size_t)n * sizeof(real));
}
static void end_row(const struct product *p, int64_t i, int64_t j, int64_t n)
{
    real *y = row(p->c, i) + j;
    const real *bias = row(p->bias, 0) + j;

    for (int64_t k = 0; k < n; k++)
        y[k] += bias[k];
}

static void block(const struct product *p, int64_t i, int64_t j, int64_t m, int64_t n)
{
    const real *left = p->ta ? row(p->a, 0) + i : row(p->a, i);
    const real *right = p->tb ? row(p->b, j) : row(p->b, 0) + j;

    for (int64_t k = 0; k < m && p->onto.at && p->onto.at != p->c.at; k++)
        begin_row(p, i + k, j, n);
    CPU(gemm)
    (p->ta, p->tb, m, n, p->ta ? p->a.rows : p->a.cols, 1, left, p->a.ld, right, p->b.ld,
     p->onto.at ? 1 : 0, row(p->c, i) + j, p->c.ld);
    for (int64_t k = 0; k < m && p->bias.at; k++)
        end_row(p, i + k, j, n);
}

static kr_status run(void *stream, const struct product *p)
{
    int64_t m = p->c.rows, n = p->c.cols, mb, nb, down, across;

    if (m == 0 || n == 0) return KR_OK;
    choose_block(m, n, &mb, &nb);
    down = pieces(m, mb);
    across = pieces(n, nb);
#pragma omp parallel for collapse(2) schedule(dynamic) \
    num_threads(down *across > 1 ? host_threads(stream) : 1)
    for (int64_t y = 0; y < down; y++)
        for (int64_t x = 0; x < across; x++)
            block(p, y * mb, x * nb, m - y * mb < mb ? m - y * mb : mb,
                  n - x * nb < nb ? n - x * nb : nb);
    return KR_OK;
}

kr_status CPU(matmul)(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add)
{
    struct product p = { c, a, b, add ? c : kern_none, kern_none, ta, tb };

    return run(stream, &p);
}

kr_status CPU(linear_fwd)(void *stream, struct kern_mat y, struct kern_mat x,
                          struct kern_mat w, struct kern_mat b, struct kern_mat onto)
{
    struct product p = { y, x, w, onto, b, false, true };

    return run(stream, &p);
}
