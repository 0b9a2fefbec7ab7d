/* lt.c - cuBLASLt, opened at run time; numbers are those of its published interface. */
#include "tests/device/speed/lt.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/handles.h"

enum { COMPUTE_32F = 68, R_32F = 0, R_16BF = 14, OP_N = 0, OP_T = 1 };
enum { DESC_TRANSA = 3, DESC_TRANSB = 4, PREF_WORKSPACE = 1 };
enum { ASK = 16, WORKSPACE = 64 << 20 };

/* cublasLtMatmulHeuristicResult_t */
struct found {
    uint64_t algo[8];
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

static struct {
    void *library, *handle, *workspace;
    char about[64];
    int (*create)(void **);
    int (*destroy)(void *);
    size_t (*version)(void);
    int (*desc_create)(void **, int, int);
    int (*desc_destroy)(void *);
    int (*desc_set)(void *, int, const void *, size_t);
    int (*layout_create)(void **, int, uint64_t, uint64_t, int64_t);
    int (*layout_destroy)(void *);
    int (*pref_create)(void **);
    int (*pref_destroy)(void *);
    int (*pref_set)(void *, int, const void *, size_t);
    int (*heuristic)(void *, void *, void *, void *, void *, void *, void *, int,
                     struct found *, int *);
    int (*matmul)(void *, void *, const void *, const void *, void *, const void *,
                  void *, const void *, const void *, void *, void *, void *,
                  const void *, void *, size_t, cudaStream_t);
} lt;

struct lt_product {
    void *desc, *layout[3]; /* of left, right and c, column by column */
    float keep;
    struct found best;
};

static bool load(void)
{
    const struct {
        const char *name;
        void *at;
    } list[] = {
        { "cublasLtCreate", &lt.create },
        { "cublasLtDestroy", &lt.destroy },
        { "cublasLtGetVersion", &lt.version },
        { "cublasLtMatmulDescCreate", &lt.desc_create },
        { "cublasLtMatmulDescDestroy", &lt.desc_destroy },
        { "cublasLtMatmulDescSetAttribute", &lt.desc_set },
        { "cublasLtMatrixLayoutCreate", &lt.layout_create },
        { "cublasLtMatrixLayoutDestroy", &lt.layout_destroy },
        { "cublasLtMatmulPreferenceCreate", &lt.pref_create },
        { "cublasLtMatmulPreferenceDestroy", &lt.pref_destroy },
        { "cublasLtMatmulPreferenceSetAttribute", &lt.pref_set },
        { "cublasLtMatmulAlgoGetHeuristic", &lt.heuristic },
        { "cublasLtMatmul", &lt.matmul },
    };

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        void *at = dlsym(lt.library, list[i].name);

        if (!at) return false;
        memcpy(list[i].at, &at, sizeof at);
    }
    return true;
}

const char *lt_open(void)
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12",
                                         "libcublasLt.so" };
    size_t version;

    for (size_t i = 0; i < sizeof names / sizeof *names && !lt.library; i++)
        lt.library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!lt.library || !load() || lt.create(&lt.handle) != 0) return NULL;
    must(kern_alloc(speed.device, &lt.workspace, WORKSPACE, "workspace of cuBLASLt"));
    version = lt.version();
    snprintf(lt.about, sizeof lt.about, "cuBLASLt %zu.%zu.%zu", version / 10000,
             version / 100 % 100, version % 100);
    return lt.about;
}

void lt_close(void)
{
    if (lt.handle) (void)lt.destroy(lt.handle);
    kern_free(speed.device, lt.workspace);
    lt.handle = lt.workspace = NULL;
}

static int type_of(struct kern_mat m) { return m.type == KERN_BF16 ? R_16BF : R_32F; }

/* A matrix of ours is its transposed one to the library. */
static int layout(void **out, struct kern_mat m)
{
    return lt.layout_create(out, type_of(m), (uint64_t)m.cols, (uint64_t)m.rows, m.ld);
}

static int multiply(const struct lt_product *p, const struct found *how, void *c,
                    const void *a, const void *b)
{
    const float one = 1;

    return lt.matmul(lt.handle, p->desc, &one, b, p->layout[0], a, p->layout[1], &p->keep,
                     c, p->layout[2], c, p->layout[2], how->algo, lt.workspace, WORKSPACE,
                     cuda_handle(speed.q->stream));
}

kr_status lt_run(const struct lt_product *p, void *c, const void *a, const void *b)
{
    int error = multiply(p, &p->best, c, a, b);

    return error ? KR_FAIL(KR_ERR_DEVICE, "cuBLASLt: error %d", error) : KR_OK;
}

void lt_drop(struct lt_product *p)
{
    if (!p) return;
    if (p->desc) (void)lt.desc_destroy(p->desc);
    for (int i = 0; i < 3; i++)
        if (p->layout[i]) (void)lt.layout_destroy(p->layout[i]);
    free(p);
}

static bool describe(struct lt_product *p, struct kern_mat c, struct kern_mat a, bool ta,
                     struct kern_mat b, bool tb)
{
    const int left = tb ? OP_T : OP_N, right = ta ? OP_T : OP_N;

    return lt.desc_create(&p->desc, COMPUTE_32F, R_32F) == 0 &&
           lt.desc_set(p->desc, DESC_TRANSA, &left, sizeof left) == 0 &&
           lt.desc_set(p->desc, DESC_TRANSB, &right, sizeof right) == 0 &&
           layout(&p->layout[0], b) == 0 && layout(&p->layout[1], a) == 0 &&
           layout(&p->layout[2], c) == 0;
}

static int propose(const struct lt_product *p, struct found out[ASK])
{
    const size_t room = WORKSPACE;
    void *pref = NULL;
    int count = 0;

    if (lt.pref_create(&pref) != 0) return 0;
    if (lt.pref_set(pref, PREF_WORKSPACE, &room, sizeof room) != 0 ||
        lt.heuristic(lt.handle, p->desc, p->layout[0], p->layout[1], p->layout[2],
                     p->layout[2], pref, ASK, out, &count) != 0)
        count = 0;
    (void)lt.pref_destroy(pref);
    return count;
}

static kr_status run_job(const struct job *j)
{
    return lt_run(j->other, j->m[0].at, j->m[1].at, j->m[2].at);
}

struct lt_product *lt_best(struct kern_mat c, struct kern_mat a, bool ta,
                           struct kern_mat b, bool tb, bool add, int64_t sets, int *tried)
{
    struct lt_product *p = calloc(1, sizeof *p);
    struct found list[ASK], best;
    double least = 0;
    int count;

    *tried = 0;
    if (!p) return NULL;
    p->keep = add ? 1 : 0;
    count = describe(p, c, a, ta, b, tb) ? propose(p, list) : 0;
    for (int i = 0; i < count; i++) {
        const struct job j = {
            .run = run_job, .m = { c, a, b }, .sets = sets, .other = p
        };
        double here;

        if (list[i].status != 0 || multiply(p, &list[i], c.at, a.at, b.at) != 0) continue;
        p->best = list[i];
        here = seconds(&j, calls_of(&j));
        if (least == 0 || here < least) least = here, best = list[i];
        ++*tried;
    }
    if (least == 0) {
        lt_drop(p);
        return NULL;
    }
    p->best = best;
    return p;
}
