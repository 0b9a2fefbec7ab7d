/*
 * runtime.cu - streams, events and memory of the emulated GPU.
 *
 * Work waits in its stream until somebody needs it: a synchronisation of the stream or of
 * an event runs what comes before, and what other streams must have done first by the
 * events waited for, and nothing else.  So everything is as late as the rules allow, and
 * whoever forgets to wait finds old data.  EMU_LATE=0 runs work at once.
 *
 * EMU_STREAMS=1: each stream is a thread, so that streams go on while nobody asks.  Several
 * ranks need that, for they wait for each other's streams.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "tests/emu/emu.h"
#include "tests/emu/parts.h"

long emu_setting(const char *name, long usual)
{
    const char *text = getenv(name);

    return text ? atol(text) : usual;
}

static std::atomic<int64_t> counts[EMU_CALLS];
/* A function of the host runs in the order of a stream. */
static thread_local bool in_host_call;
static thread_local cudaError_t last_error;

int64_t emu_count(enum emu_call call) { return counts[call]; }

static struct emu_bytes device_bytes, pinned_bytes;
struct emu_bytes emu_device_bytes() { return device_bytes; }
struct emu_bytes emu_pinned_bytes() { return pinned_bytes; }

static std::atomic<int64_t> downloaded;
int64_t emu_downloaded() { return downloaded; }

/* At the end, to those who ask. */
static const struct teller {
    ~teller()
    {
        if (emu_setting("EMU_TELL", 0))
            fprintf(
                stderr,
                "emulated GPU: %lld launches of kernels for Hopper\n"
                "emulated GPU: %.1f MiB of memory, %.1f MiB pinned, %.1f MiB copied to "
                "the host\n",
                (long long)counts[EMU_HOPPER], (double)device_bytes.most / 0x1p20,
                (double)pinned_bytes.most / 0x1p20, (double)downloaded / 0x1p20);
    }
} teller;

static void count(enum emu_call call)
{
    if (in_host_call) emu_fail("a host function in a stream called CUDA");
    counts[call]++;
}

static cudaError_t error(cudaError_t e) { return last_error = e; }

/* ---- streams -------------------------------------------------------------------------- */

typedef std::function<void()> work;

struct emu_stream {
    std::deque<work> rest;
    bool runs = false, closing = false;
    std::thread thread;
};

/* What is known of an event outlives it: streams may still wait for it. */
struct reached {
    uint64_t recorded, reached; /* how often */
    cudaStream_t by;            /* who recorded it last */
    double at;
};
struct emu_event {
    std::shared_ptr<reached> state;
};

static std::map<cudaStream_t, bool> streams; /* all there are */

/* Of streams that are threads: everything here, and that something has come about. */
static std::recursive_mutex lock;
static std::condition_variable_any changed;
typedef std::unique_lock<std::recursive_mutex> locked;

static bool has_threads()
{
    static const bool yes = emu_setting("EMU_STREAMS", 0) == 1;

    return yes;
}

static double now()
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_one(cudaStream_t s)
{
    work first = std::move(s->rest.front());

    if (s->runs) emu_fail("streams wait for each other");
    s->rest.pop_front();
    s->runs = true;
    first();
    s->runs = false;
}

static void run_all(cudaStream_t s)
{
    if (has_threads()) {
        locked held(lock);
        changed.wait(held, [=] { return s->rest.empty() && !s->runs; });
        return;
    }
    while (!s->rest.empty())
        run_one(s);
}

static void run_device()
{
    for (auto &s : streams)
        run_all(s.first);
}

static void stream_main(cudaStream_t s)
{
    locked held(lock);

    for (;;) {
        changed.wait(held, [=] { return s->closing || !s->rest.empty(); });
        if (s->rest.empty()) return;
        work first = std::move(s->rest.front());

        s->rest.pop_front();
        s->runs = true;
        held.unlock();
        first();
        held.lock();
        s->runs = false;
        changed.notify_all();
    }
}

/* Until the event has been reached for the n-th time. */
static void run_until(const std::shared_ptr<reached> &e, cudaStream_t by, uint64_t n)
{
    if (has_threads()) {
        locked held(lock);
        changed.wait(held, [&] { return e->reached >= n; });
        return;
    }
    while (e->reached < n)
        run_one(by);
}

static cudaError_t enqueue(cudaStream_t s, work w)
{
    static const bool late = emu_setting("EMU_LATE", 1);
    locked held(lock);

    if (!streams.count(s)) return error(cudaErrorInvalidValue);
    s->rest.push_back(std::move(w));
    changed.notify_all();
    if (!late && !has_threads()) run_all(s);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned, int)
{
    sigset_t all, old;
    locked held(lock);

    *s = new emu_stream{};
    streams[*s] = true;
    if (!has_threads()) return cudaSuccess;
    sigfillset(&all); /* signals are for the main thread */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    (*s)->thread = std::thread(stream_main, *s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    run_all(s);
    {
        locked held(lock);
        streams.erase(s);
        s->closing = true;
        changed.notify_all();
    }
    if (s->thread.joinable()) s->thread.join();
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    count(EMU_SYNC);
    run_all(s);
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *arg)
{
    count(EMU_HOST_CALL);
    return enqueue(s, [=] {
        in_host_call = true;
        fn(arg);
        in_host_call = false;
    });
}

/* ---- events --------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new emu_event{ std::make_shared<reached>() };
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    const std::shared_ptr<reached> state = e->state;
    locked held(lock);
    const uint64_t n = ++state->recorded;

    count(EMU_RECORD);
    state->by = s;
    return enqueue(s, [=] {
        locked mine(lock);

        if (state->reached < n) state->reached = n;
        state->at = now();
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    const std::shared_ptr<reached> state = e->state;
    locked held(lock);
    const uint64_t n = state->recorded;
    const cudaStream_t by = state->by;

    count(EMU_WAIT);
    return enqueue(s, [=] { run_until(state, by, n); });
}

/* Not reached yet, whoever asks first; but asking brings the stream on, so that who asks
 * again and again comes to an end. */
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    reached *r = e->state.get();

    locked held(lock);

    if (in_host_call) emu_fail("a host function in a stream called CUDA");
    if (r->reached == r->recorded) return cudaSuccess;
    if (!has_threads()) run_one(r->by);
    return error(cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    const std::shared_ptr<reached> state = e->state;
    uint64_t n;

    {
        locked held(lock);
        n = state->recorded;
        if (state->reached == n) return cudaSuccess;
    }
    count(EMU_SYNC);
    run_until(state, state->by, n);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = (float)((to->state->at - from->state->at) * 1e3);
    return cudaSuccess;
}

/* ---- launches ------------------------------------------------------------------------- */

static std::map<const void *, size_t> allowed; /* dynamic shared memory of kernels */

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int value)
{
    locked held(lock);

    if (value > EMU_SHARED_MOST) return error(cudaErrorInvalidValue);
    allowed[kernel] = (size_t)value;
    return cudaSuccess;
}

/* One row of whole clusters, where there are any. */
static bool is_cluster(const cudaLaunchConfig_t *c)
{
    if (c->numAttrs == 0) return true;
    return c->numAttrs == 1 && c->attrs->id == cudaLaunchAttributeClusterDimension &&
           c->attrs->val.clusterDim.x >= 1 && c->attrs->val.clusterDim.x <= 8 &&
           c->gridDim.x % c->attrs->val.clusterDim.x == 0 &&
           c->attrs->val.clusterDim.y * c->attrs->val.clusterDim.z == 1 &&
           c->gridDim.y * c->gridDim.z == 1;
}

cudaError_t emu_launch(const cudaLaunchConfig_t *c, const void *kernel,
                       const std::function<void()> &body)
{
    locked held(lock);
    const dim3 grid = c->gridDim, block = c->blockDim;
    const size_t room = allowed.count(kernel) ? allowed[kernel] : 48 << 10;

    const unsigned cluster = c->numAttrs == 1 ? c->attrs->val.clusterDim.x : 0;
    const int shared = (int)c->dynamicSmemBytes;

    count(EMU_LAUNCH);
    if (c->numAttrs) count(EMU_HOPPER);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
        grid.x > INT32_MAX || block.x > EMU_MOST_THREADS || block.x % EMU_WARP ||
        c->dynamicSmemBytes > room || !is_cluster(c))
        return error(cudaErrorInvalidValue);
    if (cluster)
        return enqueue(c->stream, [=] {
            emu_run_clusters((int)grid.x, (int)cluster, (int)block.x, shared, body);
        });
    return enqueue(c->stream, [=] { emu_run(grid, block, body); });
}

/* ---- errors, the machine -------------------------------------------------------------- */

cudaError_t cudaGetLastError()
{
    const cudaError_t e = last_error;

    last_error = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorNotReady: return "device not ready";
    default: return "unspecified launch failure";
    }
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = (int)emu_setting("EMU_DRIVER", 13000);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (emu_setting("EMU_DRIVER", 13000) < 13000)
        return error(cudaErrorInsufficientDriver);
    *count = (int)emu_setting("EMU_GPUS", 1);
    return *count ? cudaSuccess : error(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int)
{
    if (in_host_call) emu_fail("a host function in a stream called CUDA");
    return cudaSuccess;
}

static size_t total_memory() { return (size_t)emu_setting("EMU_MEMORY", 8192) << 20; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    const int capability = (int)emu_setting("EMU_CAPABILITY", 90);

    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated");
    p->multiProcessorCount = (int)emu_setting("EMU_SMS", 4);
    p->major = capability / 10;
    p->minor = capability % 10;
    p->totalGlobalMem = total_memory();
    return cudaSuccess;
}

/* ---- memory --------------------------------------------------------------------------- */

/* Where each allocation's pages begin, and how many bytes they are. */
struct pages {
    char *at;
    size_t bytes, asked;
};
static std::map<const void *, pages> allocations, pinned;
static size_t used;

enum { PAGE = 4096, ALIGN = 256 };

static void book(const std::map<const void *, pages> &kind, int64_t bytes)
{
    struct emu_bytes *b = &kind == &pinned ? &pinned_bytes : &device_bytes;

    b->now += bytes;
    if (b->now > b->most) b->most = b->now;
}

/* Memory full of NaN that ends where nothing may be read. */
static cudaError_t take(std::map<const void *, pages> &from, void **at, size_t bytes)
{
    const size_t room = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    const size_t whole = (room + PAGE - 1) / PAGE * PAGE;
    char *base = (char *)mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED) return error(cudaErrorMemoryAllocation);
    mprotect(base + whole, PAGE, PROT_NONE);
    memset(base, 0xff, whole);
    *at = base + whole - room;
    from[*at] = pages{ base, whole + PAGE, bytes };
    book(from, (int64_t)bytes);
    return cudaSuccess;
}

/* As the real ones, after everything that is under way. */
static cudaError_t give(std::map<const void *, pages> &from, void *at)
{
    if (!at) return cudaSuccess;
    count(EMU_MEMORY);
    run_device();
    locked held(lock);
    if (!from.count(at)) return error(cudaErrorInvalidValue);
    munmap(from[at].at, from[at].bytes);
    if (&from == &allocations) used -= from[at].bytes;
    book(from, -(int64_t)from[at].asked);
    from.erase(at);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **at, size_t bytes)
{
    locked held(lock);

    count(EMU_MEMORY);
    if (bytes > total_memory() - used) return error(cudaErrorMemoryAllocation);
    if (take(allocations, at, bytes) != cudaSuccess) return last_error;
    used += allocations[*at].bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *at) { return give(allocations, at); }
cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned)
{
    locked held(lock);

    count(EMU_MEMORY);
    return take(pinned, at, bytes);
}
cudaError_t cudaFreeHost(void *at) { return give(pinned, at); }

cudaError_t cudaMemGetInfo(size_t *spare, size_t *total)
{
    *total = total_memory();
    *spare = *total - used;
    return cudaSuccess;
}

/* Does one of the allocations hold all these bytes? */
static bool is_in(const std::map<const void *, pages> &all, const void *at, size_t bytes)
{
    auto next = all.upper_bound(at);

    if (next == all.begin()) return false;
    --next;
    return (const char *)at + bytes <= next->second.at + next->second.bytes - PAGE;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *at)
{
    locked held(lock);

    a->type = is_in(pinned, at, 1)        ? cudaMemoryTypeHost
              : is_in(allocations, at, 1) ? cudaMemoryTypeDevice
                                          : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *at, int byte, size_t bytes, cudaStream_t s)
{
    locked held(lock);

    if (!is_in(allocations, at, bytes)) emu_fail("memory is set past the end");
    return enqueue(s, [=] { memset(at, byte, bytes); });
}

/* A real one takes ordinary memory too, and then holds up whoever asks: not here. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t s)
{
    const bool up = kind == cudaMemcpyHostToDevice;
    locked held(lock);

    count(EMU_COPY);
    if (!up) downloaded += (int64_t)bytes;
    if (!is_in(pinned, up ? from : to, bytes)) emu_fail("a copy of memory not pinned");
    if (!is_in(allocations, up ? to : from, bytes)) emu_fail("a copy past the end");
    return enqueue(s, [=] { memcpy(to, from, bytes); });
}
