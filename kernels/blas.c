/* blas.c - open OpenBLAS or oneDNN, and call them alike. */
#include "kernels/cpu/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* CBLAS's numbers, from its published interface */
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void (*sgemm_fn)(int, int, int, int, int, int, float, const float *, int,
                         const float *, int, float, float *, int);
typedef void (*dgemm_fn)(int, int, int, int, int, int, double, const double *, int,
                         const double *, int, double, double *, int);
typedef int (*dnnl_sgemm_fn)(char, char, int64_t, int64_t, int64_t, float, const float *,
                             int64_t, const float *, int64_t, float, float *, int64_t);

static struct {
    pthread_once_t once;
    kr_status status;
    char about[128];
    sgemm_fn sgemm;
    dgemm_fn dgemm;
    dnnl_sgemm_fn dnnl;
    void (*set_threads)(int);
} blas = { .once = PTHREAD_ONCE_INIT };

static bool amd_with_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

/* A function of a library; POSIX gives it as an object pointer. */
static void symbol(void *lib, const char *name, void *out)
{
    void *at = lib ? dlsym(lib, name) : NULL;

    memcpy(out, &at, sizeof at);
}

static void describe_openblas(void *lib)
{
    char *(*config)(void), *(*core)(void);
    char version[64] = "OpenBLAS";

    symbol(lib, "openblas_get_config", &config);
    symbol(lib, "openblas_get_corename", &core);
    if (config) sscanf(config(), "%8[^ ] %50s", version, version + 9);
    if (config) version[8] = ' ';
    snprintf(blas.about, sizeof blas.about, "%s %s", version, core ? core() : "");
}

static kr_status open_openblas(void)
{
    void *lib;

    if (amd_with_avx512()) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
    lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    symbol(lib, "cblas_sgemm", &blas.sgemm);
    symbol(lib, "cblas_dgemm", &blas.dgemm);
    symbol(lib, "openblas_set_num_threads", &blas.set_threads);
    if (!blas.sgemm || !blas.dgemm || !blas.set_threads)
        return KR_FAIL(KR_ERR_DEVICE,
                       "no OpenBLAS (libopenblas.so.0): install libopenblas0-pthread");
    blas.set_threads(1);
    describe_openblas(lib);
    return KR_OK;
}

static kr_status open_dnnl(void)
{
    void *lib = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);

    symbol(lib, "dnnl_sgemm", &blas.dnnl);
    if (!blas.dnnl)
        return KR_FAIL(KR_ERR_DEVICE, "no oneDNN (libdnnl.so.2): install libdnnl2");
    snprintf(blas.about, sizeof blas.about, "oneDNN");
    return KR_OK;
}

static void open_library(void)
{
    const char *want = getenv("KILORANK_BLAS");

    blas.status = open_openblas(); /* also for dnnl: it has no double precision */
    if (blas.status != KR_OK || !want || strcmp(want, "openblas") == 0) return;
    if (strcmp(want, "dnnl") == 0)
        blas.status = open_dnnl();
    else
        blas.status =
            KR_FAIL(KR_ERR_ARG, "KILORANK_BLAS=%s: want openblas or dnnl", want);
}

kr_status blas_open(void)
{
    pthread_once(&blas.once, open_library);
    return blas.status;
}

const char *blas_describe(void) { return blas.about; }
void blas_set_threads(int threads) { blas.set_threads(threads); }

void cpu_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
              const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
              float *c, int64_t ldc)
{
    if (blas.dnnl)
        blas.dnnl(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c,
                  ldc);
    else
        blas.sgemm(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, (int)m,
                   (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void cpu64_gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha,
                const double *a, int64_t lda, const double *b, int64_t ldb, double beta,
                double *c, int64_t ldc)
{
    blas.dgemm(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, (int)m, (int)n,
               (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}
