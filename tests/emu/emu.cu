/*
 * emu.cu - a GPU in a process: threads of a block are contexts that run in turn.
 *
 * Blocks run one after the other.  A thread runs until it waits (for a barrier, for its
 * warp) and the next goes on; when none can, the kernel is wrong and the process ends with
 * a line.  When kernels run is up to runtime.cu.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <mutex>
#include <vector>

#include "kernels/cuda/sm80.cuh"
#include "tests/emu/parts.h"

/* ---- threads -------------------------------------------------------------------------- */

enum { STACK = 256 << 10 };

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
alignas(1024) unsigned char shared_bytes[EMU_SHARED_MOST];

static emu_thread threads[EMU_MOST_THREADS];
static warp warps[EMU_MOST_THREADS / EMU_WARP];
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
    static const long order = emu_setting("EMU_ORDER", 0);
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

void emu_run(dim3 grid, dim3 block, const std::function<void()> &f)
{
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    static std::mutex device; /* one kernel at a time, whichever stream it is on */
    std::lock_guard<std::mutex> held(device);
    static const bool backwards = emu_setting("EMU_ORDER", 0) % 2;

    body = &f;
    emu_grid = grid;
    emu_block_dim = block;
    for (uint64_t n = 0; n < blocks; n++) {
        const uint64_t b = backwards ? blocks - 1 - n : n;

        emu_block = dim3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                         (unsigned)(b / grid.x / grid.y));
        run_block((int)block.x);
    }
    emu_now = NULL;
}
