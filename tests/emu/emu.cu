/*
 * emu.cu - a GPU in a process: threads of a block are contexts that run in turn.
 *
 * Streams are always empty: work runs when it is enqueued, on the calling thread.  Blocks
 * run one after the other.  A thread runs until it waits (for a barrier, for its warp) and
 * the next goes on; when none can, the kernel is wrong and the process ends with a line.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <map>
#include <vector>

#include "kernels/cuda/sm80.cuh"

/* tests/emu/README.md has what the environment may say. */
static long setting(const char *name, long usual)
{
    const char *text = getenv(name);

    return text ? atol(text) : usual;
}

/* ---- threads -------------------------------------------------------------------------- */

enum { STACK = 256 << 10, MOST_THREADS = 1024, SHARED_MOST = 227 << 10 };

struct copy {
    void *to;
    const void *from;
    int bytes;
};

struct emu_thread {
    jmp_buf here;
    ucontext_t first;
    bool started, over;
    unsigned index;
    uint64_t rounds;   /* exchanges of the warp it has taken part in */
    uint64_t barriers; /* barriers it has come to */
    std::vector<std::vector<copy>> groups; /* of copies; the last is open */
};

struct warp {
    emu_words words[2][EMU_WARP];
    int count;
    uint64_t rounds; /* that are complete */
};

emu_thread *emu_now;
dim3 emu_block, emu_block_dim, emu_grid;
alignas(1024) unsigned char shared_bytes[SHARED_MOST];

static emu_thread threads[MOST_THREADS];
static warp warps[MOST_THREADS / EMU_WARP];
static jmp_buf scheduler;
static const std::function<void()> *body;
static uint64_t block_barriers; /* that are complete */
static int waiting, alive;      /* at the next barrier; not over */
static bool moved;              /* did anything happen in this turn? */

[[noreturn]] void emu_fail(const char *why)
{
    fprintf(stderr, "emulated GPU: %s (block %u %u %u, thread %u)\n", why, emu_block.x,
            emu_block.y, emu_block.z, emu_now ? emu_now->index : 0);
    abort();
}

dim3 emu_thread_index() { return dim3(emu_now->index, 0, 0); }
int emu_lane() { return (int)(emu_now->index % EMU_WARP); }

static __attribute__((noinline)) void pause_thread()
{
    if (_setjmp(emu_now->here) == 0) _longjmp(scheduler, 1);
}

static void thread_main()
{
    for (;;) {
        (*body)();
        if (emu_now->groups.size() > 1 || !emu_now->groups.back().empty())
            emu_copy_wait(0);
        emu_now->over = true;
        alive--;
        moved = true;
        if (alive > 0 && waiting == alive) block_barriers++, waiting = 0;
        pause_thread();
    }
}

void __syncthreads()
{
    const uint64_t mine = emu_now->barriers++;

    moved = true;
    if (++waiting == alive) {
        waiting = 0;
        block_barriers++;
        return;
    }
    while (block_barriers <= mine)
        pause_thread();
}

const emu_words *emu_exchange(const emu_words *mine)
{
    warp *w = &warps[emu_now->index / EMU_WARP];
    const uint64_t round = emu_now->rounds++;

    w->words[round % 2][emu_lane()] = *mine;
    moved = true;
    if (++w->count == EMU_WARP) {
        w->count = 0;
        w->rounds++;
    }
    while (w->rounds <= round)
        pause_thread();
    return w->words[round % 2];
}

/* ---- asynchronous copies -------------------------------------------------------------- */

void emu_copy(void *shared, const void *from, int bytes)
{
    memset(shared, 0xff, 16); /* whoever reads it before it has arrived reads NaN */
    emu_now->groups.back().push_back(copy{ shared, from, bytes });
}

void emu_copy_commit() { emu_now->groups.emplace_back(); }

void emu_copy_wait(int pending)
{
    std::vector<std::vector<copy>> &g = emu_now->groups;

    while ((int)g.size() - 1 > pending) { /* the last is open and does not count */
        for (const copy &c : g.front()) {
            memset(c.to, 0, 16);
            memcpy(c.to, c.from, (size_t)c.bytes);
        }
        g.erase(g.begin());
    }
}

/* ---- launches ------------------------------------------------------------------------- */

static void start_thread(emu_thread *t)
{
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (stack == MAP_FAILED) emu_fail("no memory for a thread");
    getcontext(&t->first);
    t->first.uc_stack.ss_sp = stack;
    t->first.uc_stack.ss_size = STACK;
    t->first.uc_link = NULL;
    makecontext(&t->first, thread_main, 0);
    t->started = true;
    setcontext(&t->first);
}

static __attribute__((noinline)) void resume(emu_thread *t)
{
    emu_now = t;
    if (_setjmp(scheduler) == 0) {
        if (t->started) _longjmp(t->here, 1);
        start_thread(t);
    }
}

/* A warp runs ahead as far as it can before the next one gets a turn: what relies on
 * others keeping up goes wrong.  Its threads run in one order, the warps in another. */
static bool run_warp(int first, bool backwards)
{
    bool any = false;

    do {
        moved = false;
        for (int i = 0; i < EMU_WARP; i++) {
            emu_thread *t = &threads[first + (backwards ? EMU_WARP - 1 - i : i)];

            if (!t->over) resume(t);
        }
        any = any || moved;
    } while (moved);
    return any;
}

/* Which of `count` warps has turn n of a round. */
static int turn(long order, int n, int count, uint64_t round)
{
    if (order == 0) return n;
    if (order == 1) return count - 1 - n;
    return (int)(((uint64_t)n + (uint64_t)order * (round + 1)) % (uint64_t)count);
}

static void run_block(int count)
{
    static const long order = setting("EMU_ORDER", 0);
    const int all = count / EMU_WARP;

    memset(shared_bytes, 0xff, sizeof shared_bytes);
    alive = count;
    waiting = 0;
    block_barriers = 0;
    for (int i = 0; i < count; i++) {
        threads[i].index = (unsigned)i;
        threads[i].over = false;
        threads[i].rounds = threads[i].barriers = 0;
        threads[i].groups.assign(1, {});
        warps[i / EMU_WARP].count = 0;
        warps[i / EMU_WARP].rounds = 0;
    }
    for (uint64_t round = 0; alive > 0; round++) {
        bool any = false;

        for (int n = 0; n < all; n++)
            any |= run_warp(turn(order, n, all, round) * EMU_WARP, order % 2);
        if (!any && alive > 0) emu_fail("threads wait for others that never come");
    }
}

static std::map<const void *, size_t> allowed; /* dynamic shared memory of kernels */
static cudaError_t last_error;

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int value)
{
    if (value > SHARED_MOST) return last_error = cudaErrorInvalidValue;
    allowed[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t emu_launch(const cudaLaunchConfig_t *c, const void *kernel,
                       const std::function<void()> &f)
{
    const dim3 g = c->gridDim;
    const uint64_t blocks = (uint64_t)g.x * g.y * g.z;
    const size_t room = allowed.count(kernel) ? allowed[kernel] : 48 << 10;
    static const bool backwards = setting("EMU_ORDER", 0) % 2;

    if (blocks == 0 || g.y > 65535 || g.z > 65535 || g.x > INT32_MAX ||
        c->blockDim.x > MOST_THREADS || c->blockDim.x % EMU_WARP ||
        c->dynamicSmemBytes > room)
        return last_error = cudaErrorInvalidValue;
    body = &f;
    emu_grid = g;
    emu_block_dim = c->blockDim;
    for (uint64_t n = 0; n < blocks; n++) {
        const uint64_t b = backwards ? blocks - 1 - n : n;

        emu_block = dim3((unsigned)(b % g.x), (unsigned)(b / g.x % g.y),
                         (unsigned)(b / g.x / g.y));
        run_block((int)c->blockDim.x);
    }
    emu_now = NULL;
    return cudaSuccess;
}

/* ---- the run time --------------------------------------------------------------------- */

struct emu_event {
    double at;
};

static double now()
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

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
    *version = (int)setting("EMU_DRIVER", 13000);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (setting("EMU_DRIVER", 13000) < 13000)
        return last_error = cudaErrorInsufficientDriver;
    *count = (int)setting("EMU_GPUS", 1);
    return *count ? cudaSuccess : last_error = cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }

static size_t total_memory() { return (size_t)setting("EMU_MEMORY", 8192) << 20; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    const int capability = (int)setting("EMU_CAPABILITY", 90);

    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated");
    p->multiProcessorCount = 4;
    p->major = capability / 10;
    p->minor = capability % 10;
    p->totalGlobalMem = total_memory();
    return cudaSuccess;
}

/* Where each allocation's pages begin, and how many bytes they are. */
struct pages {
    char *at;
    size_t bytes;
};
static std::map<void *, pages> allocations, pinned;
static size_t used;

enum { PAGE = 4096, ALIGN = 256 };

/* Memory full of NaN that ends where nothing may be read. */
static cudaError_t take(std::map<void *, pages> &from, void **at, size_t bytes)
{
    const size_t room = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    const size_t whole = (room + PAGE - 1) / PAGE * PAGE;
    char *base = (char *)mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED) return last_error = cudaErrorMemoryAllocation;
    mprotect(base + whole, PAGE, PROT_NONE);
    memset(base, 0xff, whole);
    *at = base + whole - room;
    from[*at] = pages{ base, whole + PAGE };
    return cudaSuccess;
}

static cudaError_t give(std::map<void *, pages> &from, void *at)
{
    if (!at) return cudaSuccess;
    if (!from.count(at)) return last_error = cudaErrorInvalidValue;
    munmap(from[at].at, from[at].bytes);
    if (&from == &allocations) used -= from[at].bytes;
    from.erase(at);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **at, size_t bytes)
{
    if (bytes > total_memory() - used) return last_error = cudaErrorMemoryAllocation;
    if (take(allocations, at, bytes) != cudaSuccess) return last_error;
    used += allocations[*at].bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *at) { return give(allocations, at); }
cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned)
{
    return take(pinned, at, bytes);
}
cudaError_t cudaFreeHost(void *at) { return give(pinned, at); }

cudaError_t cudaMemGetInfo(size_t *spare, size_t *total)
{
    *total = total_memory();
    *spare = *total - used;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *at)
{
    a->type = pinned.count((void *)at) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t)
{
    memcpy(to, from, bytes);
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
    *s = (cudaStream_t)malloc(1);
    return *s ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) { return free(s), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t fn, void *arg)
{
    return fn(arg), cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new emu_event{ 0 };
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
    return e->at = now(), cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = (float)((to->at - from->at) * 1e3);
    return cudaSuccess;
}
