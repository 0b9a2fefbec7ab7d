/* adamw.c - one pass over four arrays. */
#include "kernels/cpu/ops.h"

enum { PIECE = 16384 };

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

kr_status CPU(adamw)(void *stream, struct kern_mat w, struct kern_mat m,
                     struct kern_mat v, struct kern_mat g, const struct kern_adamw *p)
{
    struct factors f = factors(p);

#pragma omp parallel for num_threads(team(stream, w.cols))
    for (int64_t i = 0; i < w.cols; i += PIECE)
        update(row(w, 0) + i, row(m, 0) + i, row(v, 0) + i, row(g, 0) + i, f,
               w.cols - i < PIECE ? w.cols - i : PIECE);
    return KR_OK;
}
