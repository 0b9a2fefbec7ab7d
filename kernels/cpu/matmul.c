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

/* Block sizes tried and chosen in docs/speed.md. */
enum { BLOCK_ROWS = 512, BLOCK_COLS = 768 };

/* Cut n into equal pieces of at most `most`, multiples of 64: the length of one. */
static int64_t cut(int64_t n, int64_t most)
{
    int64_t count = (n + most - 1) / most, each = (n + count - 1) / count;

    return (each + 63) / 64 * 64;
}

static void block(struct kern_mat c, struct kern_mat a, bool ta, struct kern_mat b, bool tb,
                  bool add, int64_t i, int64_t j, int64_t m, int64_t n)
{
    const real *left = ta ? row(a, 0) + i : row(a, i);
    const real *right = tb ? row(b, j) : row(b, 0) + j;

    CPU(gemm)(ta, tb, m, n, ta ? a.rows : a.cols, 1, left, a.ld, right, b.ld, add ? 1 : 0,
              row(c, i) + j, c.ld);
}

kr_status CPU(matmul)(void *stream, struct kern_mat c, struct kern_mat a, bool ta,
                      struct kern_mat b, bool tb, bool add)
{
    int64_t m = c.rows, n = c.cols, mb, nb, down, across;

    if (m == 0 || n == 0) return KR_OK;
    mb = cut(m, BLOCK_ROWS);
    nb = cut(n, BLOCK_COLS);
    down = (m + mb - 1) / mb;
    across = (n + nb - 1) / nb;
#pragma omp parallel for collapse(2) schedule(dynamic) \
    num_threads(down *across > 1 ? host_threads(stream) : 1)
    for (int64_t y = 0; y < down; y++)
        for (int64_t x = 0; x < across; x++)
            block(c, a, ta, b, tb, add, y * mb, x * nb, m - y * mb < mb ? m - y * mb : mb,
                  n - x * nb < nb ? n - x * nb : nb);
    return KR_OK;
}
