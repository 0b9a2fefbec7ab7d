/*
 * queue.c - streams and events of a GPU, and work of the host in their order.
 *
 * Background queues get the highest priority the GPU has: their kernels are few and
 * small, and somebody on another rank waits for them.
 *
 * Host calls run on a thread of the driver, which may not call CUDA; their failures are
 * known only later.  So a stream remembers whose events it has waited for, and whose those
 * had waited for, and a synchronisation returns the first failure of any of these.
 */
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/staging.h"

enum { PAUSES = 64 }; /* waits for events that are timed at a time */

/* One wait for an event: what the stream did just before and just after. */
struct pause {
    cudaEvent_t before, after;
};

struct cuda_stream {
    struct cuda_gpu *gpu;
    cudaStream_t handle;
    int slot;
    uint32_t waited; /* slots of the streams that it has waited for */
    const char *newest;
    void *scratch;
    size_t scratch_bytes;
    struct staging *staging;
    struct pause pauses[PAUSES];
    int first_pause, pause_count; /* a ring */
    double stalled;               /* seconds, of the pauses that are over */
};

struct event {
    struct cuda_gpu *gpu;
    cudaEvent_t handle;
    int slot;        /* of the stream that recorded it; -1: none yet */
    uint32_t waited; /* of that stream, at that time */
};

cudaStream_t cuda_handle(void *stream) { return ((struct cuda_stream *)stream)->handle; }

int cuda_sms(void *stream)
{
    int sms, capability;

    cuda_facts(((struct cuda_stream *)stream)->gpu, &sms, &capability);
    return sms;
}

int cuda_capability(void *stream)
{
    int sms, capability;

    cuda_facts(((struct cuda_stream *)stream)->gpu, &sms, &capability);
    return capability;
}

struct cuda_blas *cuda_blas_of(void *stream)
{
    return cuda_gpu_blas(((struct cuda_stream *)stream)->gpu);
}

bool cuda_hopper(void *stream)
{
    return cuda_gpu_hopper(((struct cuda_stream *)stream)->gpu);
}

/* ---- errors --------------------------------------------------------------------------- */

kr_status cuda_ready(void *stream)
{
    struct cuda_stream *s = stream;

    return cuda_slot_status(s->gpu, s->slot);
}

/* The first failure on a stream makes the line. */
static kr_status failed(struct cuda_stream *s, cudaError_t e, const char *operation,
                        const char *how)
{
    (void)cudaGetLastError();
    if (cuda_slot_fail(s->gpu, s->slot, KR_ERR_DEVICE))
        (void)KR_FAIL(KR_ERR_DEVICE, "GPU %d: %s%s: %s", cuda_device_of(s->gpu),
                      operation, how, cudaGetErrorString(e));
    return cuda_ready(s);
}

static kr_status done(struct cuda_stream *s, cudaError_t e, const char *operation)
{
    return e == cudaSuccess ? cuda_ready(s) : failed(s, e, operation, "");
}

kr_status cuda_ran(void *stream, const char *operation)
{
    struct cuda_stream *s = stream;
    cudaError_t e = cudaGetLastError();

    s->newest = operation;
    if (e == cudaSuccess && cuda_waits_always(s->gpu))
        e = cudaStreamSynchronize(s->handle);
    return done(s, e, operation);
}

/* ---- streams -------------------------------------------------------------------------- */

static cudaError_t make_stream(cudaStream_t *out, enum kern_queue_kind kind)
{
    int least = 0, greatest = 0;
    cudaError_t e = cudaDeviceGetStreamPriorityRange(&least, &greatest);

    if (e != cudaSuccess) return e;
    return cudaStreamCreateWithPriority(out, cudaStreamNonBlocking,
                                        kind == KERN_QUEUE_BACKGROUND ? greatest : least);
}

kr_status cuda_queue_open(void *state, void **stream, enum kern_queue_kind kind)
{
    struct cuda_stream *s = NULL;
    cudaError_t e;
    kr_status st = KR_OK;

    TRY(mem_alloc(&s, 1, sizeof *s, "queue"));
    s->gpu = state;
    s->newest = "nothing";
    s->slot = cuda_slot_take(s->gpu);
    if (s->slot < 0) {
        mem_free(s);
        return KR_FAIL(KR_ERR_ARG, "more than %d queues on one GPU", CUDA_STREAMS);
    }
    (void)cudaSetDevice(cuda_device_of(s->gpu));
    e = make_stream(&s->handle, kind);
    if (e == cudaSuccess) st = staging_open(&s->staging);
    if (e != cudaSuccess) st = failed(s, e, "queue", "");
    if (st == KR_OK)
        *stream = s;
    else
        cuda_queue_close(s);
    return st;
}

void cuda_queue_close(void *stream)
{
    struct cuda_stream *s = stream;

    (void)cudaSetDevice(cuda_device_of(s->gpu));
    if (s->handle) (void)cudaStreamSynchronize(s->handle);
    staging_close(s->staging);
    for (int i = 0; i < PAUSES; i++) {
        if (s->pauses[i].before) (void)cudaEventDestroy(s->pauses[i].before);
        if (s->pauses[i].after) (void)cudaEventDestroy(s->pauses[i].after);
    }
    if (s->scratch) (void)cudaFree(s->scratch);
    if (s->handle) (void)cudaStreamDestroy(s->handle);
    cuda_slot_give(s->gpu, s->slot);
    mem_free(s);
}

kr_status cuda_scratch(void *stream, void *out, size_t bytes)
{
    struct cuda_stream *s = stream;
    cudaError_t e;

    if (bytes > s->scratch_bytes) {
        e = cudaStreamSynchronize(s->handle);
        if (e == cudaSuccess && s->scratch) e = cudaFree(s->scratch);
        s->scratch = NULL;
        s->scratch_bytes = 0;
        if (e != cudaSuccess) return failed(s, e, s->newest, " or before");
        e = cudaMalloc(&s->scratch, bytes);
        if (e != cudaSuccess)
            return cuda_no_memory(s->gpu, e, bytes, "scratch of kernels");
        s->scratch_bytes = bytes;
    }
    memcpy(out, &s->scratch, sizeof s->scratch);
    return KR_OK;
}

/* ---- copies and host calls ------------------------------------------------------------ */

kr_status cuda_upload(void *stream, void *device, const void *host, size_t bytes)
{
    struct cuda_stream *s = stream;

    TRY(cuda_ready(s));
    (void)cudaSetDevice(cuda_device_of(s->gpu));
    s->newest = "upload";
    return done(s, staging_upload(s->staging, s->handle, device, host, bytes), "upload");
}

kr_status cuda_download(void *stream, void *host, const void *device, size_t bytes)
{
    struct cuda_stream *s = stream;

    TRY(cuda_ready(s));
    (void)cudaSetDevice(cuda_device_of(s->gpu));
    s->newest = "download";
    return done(s, staging_download(s->staging, s->handle, host, device, bytes),
                "download");
}

/* A host call with its copied argument behind it. */
struct task {
    kern_host_fn fn;
    struct cuda_gpu *gpu;
    int slot;
    max_align_t arg[];
};

/* The function has written its line. */
static void CUDART_CB run_task(void *arg)
{
    struct task *t = arg;
    kr_status st = cuda_slot_status(t->gpu, t->slot);

    if (st == KR_OK && (st = t->fn(t->arg)) != KR_OK)
        (void)cuda_slot_fail(t->gpu, t->slot, st);
    mem_free(t);
}

kr_status cuda_call(void *stream, kern_host_fn fn, const void *arg, size_t bytes)
{
    struct cuda_stream *s = stream;
    struct task *t = NULL;
    cudaError_t e;

    TRY(cuda_ready(s));
    (void)cudaSetDevice(cuda_device_of(s->gpu));
    TRY(mem_alloc(&t, 1, sizeof *t + bytes, "queued work"));
    t->fn = fn;
    t->gpu = s->gpu;
    t->slot = s->slot;
    if (bytes) memcpy(t->arg, arg, bytes);
    s->newest = "host call";
    e = cudaLaunchHostFunc(s->handle, run_task, t);
    if (e != cudaSuccess) mem_free(t);
    return done(s, e, "host call");
}

kr_status cuda_sync(void *stream)
{
    struct cuda_stream *s = stream;
    cudaError_t e;

    (void)cudaSetDevice(cuda_device_of(s->gpu));
    e = cudaStreamSynchronize(s->handle);
    if (e != cudaSuccess) return failed(s, e, s->newest, " or before");
    TRY(cuda_ready(s));
    for (int i = 0; i < CUDA_STREAMS; i++)
        if (s->waited >> i & 1) TRY(cuda_slot_status(s->gpu, i));
    return KR_OK;
}

void cuda_fail(void *stream, kr_status st)
{
    struct cuda_stream *s = stream;

    (void)cuda_slot_fail(s->gpu, s->slot, st);
}

void *cuda_native(void *stream, int *device)
{
    struct cuda_stream *s = stream;

    *device = cuda_device_of(s->gpu);
    return s->handle;
}

/* ---- events --------------------------------------------------------------------------- */

kr_status cuda_event_open(void *state, void **event)
{
    struct event *e = NULL;
    cudaError_t error;

    TRY(mem_alloc(&e, 1, sizeof *e, "event"));
    e->gpu = state;
    e->slot = -1;
    (void)cudaSetDevice(cuda_device_of(e->gpu));
    error = cudaEventCreateWithFlags(&e->handle, cudaEventDisableTiming);
    if (error != cudaSuccess) {
        mem_free(e);
        return KR_FAIL(KR_ERR_DEVICE, "event: %s", cudaGetErrorString(error));
    }
    *event = e;
    return KR_OK;
}

void cuda_event_close(void *event)
{
    struct event *e = event;

    (void)cudaEventDestroy(e->handle);
    mem_free(e);
}

kr_status cuda_event_record(void *event, void *stream)
{
    struct cuda_stream *s = stream;
    struct event *e = event;

    (void)cudaSetDevice(cuda_device_of(s->gpu));
    e->slot = s->slot;
    e->waited = s->waited;
    return done(s, cudaEventRecord(e->handle, s->handle), "event");
}

/* Add the oldest pauses to the sum as far as they are over. */
static void harvest(struct cuda_stream *s)
{
    for (; s->pause_count > 0; s->pause_count--) {
        struct pause *p = &s->pauses[s->first_pause];
        float ms;

        if (cudaEventQuery(p->after) != cudaSuccess) break;
        if (cudaEventElapsedTime(&ms, p->before, p->after) == cudaSuccess)
            s->stalled += (double)ms / 1e3;
        s->first_pause = (s->first_pause + 1) % PAUSES;
    }
    (void)cudaGetLastError(); /* "not ready" is no error */
}

/* Room for one more timed wait; NULL: too many are under way, this one goes uncounted. */
static struct pause *next_pause(struct cuda_stream *s)
{
    struct pause *p;

    if (s->pause_count == PAUSES) harvest(s);
    if (s->pause_count == PAUSES) return NULL;
    p = &s->pauses[(s->first_pause + s->pause_count) % PAUSES];
    if (!p->before && cudaEventCreate(&p->before) != cudaSuccess) return NULL;
    if (!p->after && cudaEventCreate(&p->after) != cudaSuccess) return NULL;
    return p;
}

/* An event that an error keeps from being reached counts: the error shows at the next
 * synchronisation. */
bool cuda_event_reached(void *event)
{
    struct event *e = event;
    cudaError_t error;

    (void)cudaSetDevice(
        cuda_device_of(e->gpu)); /* a new thread would use GPU 0 as well */
    error = cudaEventQuery(e->handle);
    (void)cudaGetLastError();
    return error != cudaErrorNotReady;
}

kr_status cuda_event_wait(void *event, void *stream)
{
    struct cuda_stream *s = stream;
    struct event *e = event;
    struct pause *p;
    cudaError_t error;

    if (e->slot < 0 || e->slot == s->slot) return cuda_ready(s);
    (void)cudaSetDevice(cuda_device_of(s->gpu));
    if (cuda_slot_status(s->gpu, e->slot) != KR_OK)
        (void)cuda_slot_fail(s->gpu, s->slot, cuda_slot_status(s->gpu, e->slot));
    TRY(cuda_ready(s));
    s->waited |= e->waited | UINT32_C(1) << e->slot;
    if (cudaEventQuery(e->handle) == cudaSuccess) return KR_OK; /* nothing to wait for */
    (void)cudaGetLastError(); /* "not ready" is no error */
    p = next_pause(s);
    error = p ? cudaEventRecord(p->before, s->handle) : cudaSuccess;
    if (error == cudaSuccess) error = cudaStreamWaitEvent(s->handle, e->handle, 0);
    if (error == cudaSuccess && p) error = cudaEventRecord(p->after, s->handle);
    if (p) s->pause_count++;
    return done(s, error, "wait for an event");
}

double cuda_stalled(void *stream)
{
    struct cuda_stream *s = stream;

    (void)cudaSetDevice(cuda_device_of(s->gpu));
    harvest(s);
    return s->stalled;
}
