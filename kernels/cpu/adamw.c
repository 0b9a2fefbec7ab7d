/* adamw.c - one pass over four arrays, in pieces that stay in the cache. */
#include "kernels/cpu/narrow.h"
#include "kernels/cpu/ops.h"

enum { PIECE = 4096 };

struct factors {
    real beta1, beta2, rest1, rest2, grad, step, root, eps, keep;
};

/* The element is w -= lr (m / c1 / (sqrt(v / c2) + eps) + wd w), with lr / c1 and
 * 1 / sqrt(c2) taken out of the loop. */
static struct factors factors(const struct kern_adamw *p)
{
    return (struct factors){
        .beta1 = (real)p->beta1,
        .beta2 = (real)p->beta2,
        .rest1 = (real)(1 - p->beta1),
        .rest2 = (real)(1 - p->beta2),
        .grad = (real)p->grad_scale,
        .step = (real)(p->lr / p->correct1),
        .root = (real)(1 / sqrt(p->correct2)),
        .eps = (real)p->eps,
        .keep = (real)(1 - p->lr * p->weight_decay),
    };
}

static void update(real *restrict w, real *restrict m, real *restrict v,
                   const real *restrict g, struct factors f, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real grad = g[i] * f.grad;

        m[i] = f.beta1 * m[i] + f.rest1 * grad;
        v[i] = f.beta2 * v[i] + f.rest2 * grad * grad;
#ifdef KERN_REAL_IS_DOUBLE
        w[i] = f.keep * w[i] - f.step * m[i] / (sqrt(v[i]) * f.root + f.eps);
#else
        w[i] = f.keep * w[i] - f.step * m[i] / (sqrtf(v[i]) * f.root + f.eps);
#endif
    }
}

/* Elements begin .. begin + n.  What is stored as bf16 is widened, updated, and rounded. */
static void update_piece(struct kern_mat w, struct kern_mat m, struct kern_mat v,
                         struct kern_mat g, struct factors f, const struct kern_round *r,
                         int64_t begin, int64_t n)
{
    struct kern_round second = { r->key, r->sub + 1, r->first };
    real m_room[PIECE], v_room[PIECE], g_room[PIECE];
    real *first_moment = CPU(load)(m, begin, n, m_room);
    real *second_moment = CPU(load)(v, begin, n, v_room);

    update(row(w, 0) + begin, first_moment, second_moment, CPU(load)(g, begin, n, g_room),
           f, n);
    CPU(store)(m, begin, n, first_moment, r);
    CPU(store)(v, begin, n, second_moment, &second);
}

kr_status CPU(adamw)(void *stream, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, struct kern_mat copy,
                     const struct kern_adamw *p)
{
    struct factors f = factors(p);

#pragma omp parallel for num_threads(team(stream, w.cols))
    for (int64_t i = 0; i < w.cols; i += PIECE)
        update_piece(w, m, v, g, f, &p->round, i,
                     w.cols - i < PIECE ? w.cols - i : PIECE);
    return copy.at ? CPU(copy)(stream, copy, w) : KR_OK;
}
