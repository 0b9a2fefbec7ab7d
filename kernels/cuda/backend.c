/*
 * backend.c - the devices "cuda" (bf16) and "cuda32" (fp32): one GPU per process.
 *
 * The CUDA run time is linked into the program and opens the driver itself, so the
 * program starts on machines without one and says what is missing.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sm90_tensor_map.h"
#include "kernels/cuda/staging.h"

enum {
    OLDEST = 80, /* compute capability 8.0: mma.sync on bf16, cp.async */
    HOPPER = 90  /* that, and no other, runs code for sm_90a */
};

struct cuda_gpu {
    int device, sms, capability;
    bool waits_always;
    struct cuda_blas *library; /* NULL: not opened */
    struct cuda_blas *blas;    /* NULL: our own kernels multiply */
    bool hopper;               /* kernels for it are in use */
    char about[256], kernels[128];
    _Atomic uint32_t taken; /* slots in use */
    _Atomic int status[CUDA_STREAMS];
};

int cuda_device_of(const struct cuda_gpu *g) { return g->device; }
bool cuda_waits_always(const struct cuda_gpu *g) { return g->waits_always; }
struct cuda_blas *cuda_gpu_blas(const struct cuda_gpu *g) { return g->blas; }
bool cuda_gpu_hopper(const struct cuda_gpu *g) { return g->hopper; }

void cuda_facts(const struct cuda_gpu *g, int *sms, int *capability)
{
    *sms = g->sms;
    *capability = g->capability;
}

/* ---- slots ---------------------------------------------------------------------------- */

int cuda_slot_take(struct cuda_gpu *g)
{
    for (int i = 0; i < CUDA_STREAMS; i++) {
        uint32_t bit = UINT32_C(1) << i;

        if (atomic_fetch_or(&g->taken, bit) & bit) continue;
        atomic_store(&g->status[i], KR_OK);
        return i;
    }
    return -1;
}

void cuda_slot_give(struct cuda_gpu *g, int slot)
{
    atomic_fetch_and(&g->taken, ~(UINT32_C(1) << slot));
}

kr_status cuda_slot_status(struct cuda_gpu *g, int slot)
{
    return (kr_status)atomic_load(&g->status[slot]);
}

bool cuda_slot_fail(struct cuda_gpu *g, int slot, kr_status st)
{
    int ok = KR_OK;

    return atomic_compare_exchange_strong(&g->status[slot], &ok, (int)st);
}

/* ---- opening -------------------------------------------------------------------------- */

/* Why there is no GPU to count. */
static kr_status no_gpu(cudaError_t e)
{
    int driver = 0;

    (void)cudaGetLastError();
    if (e == cudaErrorInsufficientDriver &&
        cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
        return KR_FAIL(KR_ERR_DEVICE,
                       "the NVIDIA driver is too old: it is made for CUDA %d.%d, this "
                       "program for %d.%d; update the driver, or set run.device = cpu",
                       driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                       CUDART_VERSION % 1000 / 10);
    if (e == cudaErrorInsufficientDriver)
        return KR_FAIL(KR_ERR_DEVICE, "no NVIDIA driver on this machine, so no GPU; set "
                                      "run.device = cpu");
    if (e == cudaErrorNoDevice || e == cudaSuccess)
        return KR_FAIL(KR_ERR_DEVICE, "the NVIDIA driver shows no GPU (is "
                                      "CUDA_VISIBLE_DEVICES empty?)");
    return KR_FAIL(KR_ERR_DEVICE, "no GPU: %s", cudaGetErrorString(e));
}

/* The GPU of a rank: that of its local number.  KILORANK_SHARE_GPU=1 lets ranks share. */
static kr_status choose(int *device, int local_rank)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    const char *share = getenv("KILORANK_SHARE_GPU");

    if (e != cudaSuccess || count < 1) return no_gpu(e);
    if (local_rank >= count && !(share && strcmp(share, "1") == 0))
        return KR_FAIL(KR_ERR_DEVICE,
                       "rank %d of this node has no GPU: it sees %d; start no more ranks "
                       "than GPUs (KILORANK_SHARE_GPU=1 lets them share, for tests)",
                       local_rank, count);
    *device = local_rank % count;
    return KR_OK;
}

static kr_status look(struct cuda_gpu *g)
{
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, g->device);
    int driver = 0;

    if (e != cudaSuccess) return no_gpu(e);
    g->sms = p.multiProcessorCount;
    g->capability = p.major * 10 + p.minor;
    if (g->capability < OLDEST)
        return KR_FAIL(KR_ERR_DEVICE,
                       "GPU %d (%s) has compute capability %d.%d; want %d.%d or newer",
                       g->device, p.name, p.major, p.minor, OLDEST / 10, OLDEST % 10);
    (void)cudaDriverGetVersion(&driver);
    snprintf(g->about, sizeof g->about, "GPU %d, %.100s, %.1f GiB, driver for CUDA %d.%d",
             g->device, p.name, (double)p.totalGlobalMem / (1 << 30), driver / 1000,
             driver % 1000 / 10);
    return KR_OK;
}

static kr_status start(struct cuda_gpu *g)
{
    const char *sync = getenv("KILORANK_CUDA_SYNC");
    cudaError_t e;

    TRY(look(g));
    g->waits_always = sync && strcmp(sync, "1") == 0;
    e = cudaSetDevice(g->device);
    if (e == cudaSuccess) e = cudaFree(NULL); /* makes the context now, not later */
    if (e != cudaSuccess)
        return KR_FAIL(KR_ERR_DEVICE, "GPU %d does not start: %s", g->device,
                       cudaGetErrorString(e));
    return KR_OK;
}

static kr_status open_gpu(void **state, int local_rank, int threads)
{
    struct cuda_gpu *g = NULL;
    kr_status st;

    (void)threads;
    TRY(mem_alloc(&g, 1, sizeof *g, "device"));
    TRY_OR(st, choose(&g->device, local_rank), done);
    TRY_OR(st, start(g), done);
    *state = g;
done:
    if (st != KR_OK) mem_free(g);
    return st;
}

static void close_gpu(void *state)
{
    struct cuda_gpu *g = state;

    cuda_blas_close(g->library);
    mem_free(g);
}

static kr_status memory(int local_rank, struct kern_memory *out)
{
    int device = 0;
    size_t spare = 0, total = 0;
    cudaError_t e;

    TRY(choose(&device, local_rank));
    e = cudaSetDevice(device);
    if (e == cudaSuccess) e = cudaMemGetInfo(&spare, &total);
    if (e != cudaSuccess) return no_gpu(e);
    *out = (struct kern_memory){ .total = total, .available = spare };
    return KR_OK;
}

static const char *describe(void *state) { return ((struct cuda_gpu *)state)->about; }

static void enter(void *state)
{
    (void)cudaSetDevice(((struct cuda_gpu *)state)->device);
}

static void leave(void *state) { (void)state; }

static kr_status set_matmul(void *state, enum kern_matmul whose)
{
    struct cuda_gpu *g = state;

    if (whose == KERN_MATMUL_CUBLAS && !g->library) TRY(cuda_blas_open(&g->library));
    g->blas = whose == KERN_MATMUL_CUBLAS ? g->library : NULL;
    return KR_OK;
}

static kr_status set_hopper(void *state, enum kern_dtype type, enum kern_hopper when)
{
    struct cuda_gpu *g = state;

    g->hopper = false;
    if (when == KERN_HOPPER_OFF) return KR_OK;
    if (when == KERN_HOPPER_AUTO && (g->capability != HOPPER || type != KERN_BF16))
        return KR_OK;
    if (g->capability != HOPPER)
        return KR_FAIL(KR_ERR_DEVICE,
                       "kernels.hopper = on: GPU %d has compute capability %d.%d, these "
                       "kernels are for %d.%d; set kernels.hopper = off",
                       g->device, g->capability / 10, g->capability % 10, HOPPER / 10,
                       HOPPER % 10);
    if (type != KERN_BF16)
        return KR_FAIL(KR_ERR_DEVICE,
                       "kernels.hopper = on: these kernels compute in bf16; "
                       "set kernels.hopper = off, or run.precision = bf16");
    TRY(tensor_map_start());
    g->hopper = true;
    return KR_OK;
}

static const char *kernels(void *state)
{
    struct cuda_gpu *g = state;
    const char *ours = g->hopper ? "our Hopper kernels" : "our kernels";

    snprintf(g->kernels, sizeof g->kernels, "products by %s, attention by %s",
             g->blas ? cuda_blas_describe(g->blas) : ours, ours);
    return g->kernels;
}

/* ---- memory --------------------------------------------------------------------------- */

kr_status cuda_no_memory(const struct cuda_gpu *g, cudaError_t e, size_t bytes,
                         const char *what)
{
    size_t spare = 0, total = 0;

    (void)cudaGetLastError();
    if (e != cudaErrorMemoryAllocation)
        return KR_FAIL(KR_ERR_DEVICE, "GPU %d: %s: no memory for %zu bytes: %s",
                       g->device, what, bytes, cudaGetErrorString(e));
    (void)cudaMemGetInfo(&spare, &total);
    return KR_FAIL(KR_ERR_MEM,
                   "GPU %d: %s: %.2f GiB do not fit, %.2f of %.2f GiB are free",
                   g->device, what, (double)bytes / (1 << 30), (double)spare / (1 << 30),
                   (double)total / (1 << 30));
}

static kr_status alloc_gpu(void *state, void **at, size_t bytes, const char *what)
{
    struct cuda_gpu *g = state;
    void *got = NULL;
    cudaError_t e;

    enter(g);
    e = cudaMalloc(&got, bytes);
    if (e != cudaSuccess) return cuda_no_memory(g, e, bytes, what);
    *at = got;
    return KR_OK;
}

static void free_gpu(void *state, void *at)
{
    enter(state);
    (void)cudaFree(at);
}

static kr_status alloc_host(void *state, void **at, size_t bytes, const char *what)
{
    struct cuda_gpu *g = state;
    void *got = NULL;
    cudaError_t e;

    enter(g);
    e = cudaHostAlloc(&got, bytes, cudaHostAllocDefault);
    (void)cudaGetLastError();
    if (e != cudaSuccess)
        return KR_FAIL(KR_ERR_MEM, "%s: no pinned host memory for %zu bytes: %s", what,
                       bytes, cudaGetErrorString(e));
    memset(got, 0, bytes);
    *at = got;
    return KR_OK;
}

static void free_host(void *state, void *at)
{
    enter(state);
    (void)cudaFreeHost(at);
}

/* clang-format off */
#define CUDA_BACKEND(label, narrow)                                               \
    { .name = label, .type = narrow, .wide = KERN_F32, .ops = &cuda_table,        \
      .open = open_gpu, .close = close_gpu, .describe = describe,                 \
      .memory = memory, .staging = STAGING_BYTES, .scratch = cuda_scratch_of,     \
      .set_matmul = set_matmul, .set_hopper = set_hopper, .kernels = kernels,     \
      .alloc = alloc_gpu, .free = free_gpu,                                       \
      .alloc_host = alloc_host, .free_host = free_host, .enter = enter, .leave = leave,       \
      .queue_open = cuda_queue_open, .queue_close = cuda_queue_close,             \
      .upload = cuda_upload, .download = cuda_download, .call = cuda_call,        \
      .sync = cuda_sync, .fail = cuda_fail, .native = cuda_native,                \
      .stalled = cuda_stalled,                                                    \
      .event_open = cuda_event_open, .event_close = cuda_event_close,             \
      .event_record = cuda_event_record, .event_reached = cuda_event_reached,     \
      .event_wait = cuda_event_wait }
/* clang-format on */

const struct kern_backend kern_cuda_backend = CUDA_BACKEND("cuda", KERN_BF16);
const struct kern_backend kern_cuda32_backend = CUDA_BACKEND("cuda32", KERN_F32);
