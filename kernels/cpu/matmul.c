/*
 * matmul.c - matrix products by the library, on our threads.
 *
 * The output is cut into blocks by its shape alone and each block is one call of the
 * library on one thread, so the bits do not depend on the number of threads (a library's
 * own threads cut by their number).  Blocks are as large as leaves enough of them to
 * share out evenly: the library packs its operands anew for each.
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

static void block(struct kern_mat c, struct kern_mat a, bool ta, struct kern_mat b,
                  bool tb, bool add, int64_t i, int64_t j, int64_t m, int64_t n)
{
    const real *left = ta ? row(a, 0) + i : row(a, i);
    const real *right = tb ? row(b, j) : row(b, 0) + j;

    CPU(gemm)
    (ta, tb, m, n, ta ? a.rows : a.cols, 1, left, a.ld, right, b.ld, add ? 1 : 0,
     row(c, i) + j, c.ld);
}

kr_status CPU(matmul)(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add)
{
    int64_t m = c.rows, n = c.cols, mb, nb, down, across;

    if (m == 0 || n == 0) return KR_OK;
    choose_block(m, n, &mb, &nb);
    down = pieces(m, mb);
    across = pieces(n, nb);
#pragma omp parallel for collapse(2) schedule(dynamic) \
    num_threads(down *across > 1 ? host_threads(stream) : 1)
    for (int64_t y = 0; y < down; y++)
        for (int64_t x = 0; x < across; x++)
            block(c, a, ta, b, tb, add, y * mb, x * nb, m - y * mb < mb ? m - y * mb : mb,
                  n - x * nb < nb ? n - x * nb : nb);
    return KR_OK;
}
