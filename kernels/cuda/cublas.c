/* cublas.c - open cuBLAS and call it; its matrices are column by column. */
#include "kernels/cuda/cublas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* cuBLAS's numbers, from its published interface */
enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, ALGO_DEFAULT = -1 };

typedef int (*create_fn)(void **);
typedef int (*destroy_fn)(void *);
typedef int (*version_fn)(void *, int *);
typedef int (*set_stream_fn)(void *, cudaStream_t);
typedef int (*gemm_fn)(void *, int, int, int64_t, int64_t, int64_t, const void *,
                       const void *, int, int64_t, const void *, int, int64_t,
                       const void *, void *, int, int64_t, int, int);

struct cuda_blas {
    void *library, *handle;
    destroy_fn destroy;
    set_stream_fn set_stream;
    gemm_fn gemm;
    char about[64];
};

static void *open_library(void)
{
    static const char *const names[] = { "libcublas.so.13", "libcublas.so.12",
                                         "libcublas.so" };
    void *at = NULL;

    for (size_t i = 0; i < sizeof names / sizeof *names && !at; i++)
        at = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return at;
}

/* A function of the library; POSIX gives it as an object pointer. */
static bool symbol(struct cuda_blas *b, const char *name, void *out)
{
    void *at = dlsym(b->library, name);

    memcpy(out, &at, sizeof at);
    return at != NULL;
}

static kr_status start(struct cuda_blas *b)
{
    create_fn create;
    version_fn version;
    int number = 0;

    if (!(b->library = open_library()))
        return KR_FAIL(KR_ERR_DEVICE,
                       "kernels.matmul = cublas: no libcublas.so: install cuBLAS, or set "
                       "kernels.matmul = own");
    if (!symbol(b, "cublasCreate_v2", &create) ||
        !symbol(b, "cublasDestroy_v2", &b->destroy) ||
        !symbol(b, "cublasGetVersion_v2", &version) ||
        !symbol(b, "cublasSetStream_v2", &b->set_stream) ||
        !symbol(b, "cublasGemmEx_64", &b->gemm))
        return KR_FAIL(KR_ERR_DEVICE,
                       "kernels.matmul = cublas: this cuBLAS is older than "
                       "12.0");
    if (create(&b->handle) != 0)
        return KR_FAIL(KR_ERR_DEVICE, "kernels.matmul = cublas: cuBLAS does not start");
    (void)version(b->handle, &number);
    snprintf(b->about, sizeof b->about, "cuBLAS %d.%d", number / 10000,
             number / 100 % 100);
    return KR_OK;
}

kr_status cuda_blas_open(struct cuda_blas **out)
{
    struct cuda_blas *b = NULL;
    kr_status st;

    TRY(mem_alloc(&b, 1, sizeof *b, "cuBLAS"));
    st = start(b);
    if (st == KR_OK)
        *out = b;
    else
        cuda_blas_close(b);
    return st;
}

void cuda_blas_close(struct cuda_blas *b)
{
    if (!b) return;
    if (b->handle) (void)b->destroy(b->handle);
    if (b->library) (void)dlclose(b->library);
    mem_free(b);
}

const char *cuda_blas_describe(const struct cuda_blas *b) { return b->about; }

static int type_of(struct kern_mat m) { return m.type == KERN_BF16 ? R_16BF : R_32F; }

/* What is row by row to us is the transposed matrix to the library, so it computes
 * c^T = op(b)^T op(a)^T. */
kr_status cuda_blas_matmul(struct cuda_blas *b, cudaStream_t stream, struct kern_mat c,
                           struct kern_mat left, bool ta, struct kern_mat right, bool tb,
                           bool add)
{
    const float one = 1, keep = add ? 1 : 0;
    const int64_t inner = ta ? left.rows : left.cols;
    int error = b->set_stream(b->handle, stream);

    if (error == 0)
        error =
            b->gemm(b->handle, tb ? OP_T : OP_N, ta ? OP_T : OP_N, c.cols, c.rows, inner,
                    &one, right.at, type_of(right), right.ld, left.at, type_of(left),
                    left.ld, &keep, c.at, type_of(c), c.ld, COMPUTE_32F, ALGO_DEFAULT);
    if (error != 0)
        return KR_FAIL(KR_ERR_DEVICE, "matmul: cuBLAS returned error %d", error);
    return KR_OK;
}
