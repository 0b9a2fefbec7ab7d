/* machine_core.h - the machine of machine.h: its state, threads that wait for each other. */
#ifndef TESTS_SM90_MACHINE_CORE_H
#define TESTS_SM90_MACHINE_CORE_H
#define KERN_CUDA_SM90_PTX_CUH

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <ucontext.h>
#include <vector>

#include "kernels/cuda/sm90_layout.h"
#include "kernels/cuda/sm90_tensor_map.h"
#include "tests/emu/cuda_runtime.h" /* float2, float4 */

#define DEVICE          static inline
#define DEVICE_MEMBER   inline
#define KERNEL(threads) static inline void
#define TENSOR_MAP      const CUtensorMap

typedef uint16_t bf16;

/* A tensor map is the box that it was made of. */
struct alignas(128) CUtensorMap_st : tensor_box {
    CUtensorMap_st() : tensor_box() {}
    CUtensorMap_st(const tensor_box &b) : tensor_box(b) {}
};
typedef struct CUtensorMap_st CUtensorMap;

/* ---- the machine ---------------------------------------------------------------------- */

/* ROOM: CTAs at work at a time; fewer than a launch may have. */
enum { MACHINE_SHARED = 232448, MACHINE_STACK = 64 << 10, MACHINE_ROOM = 3 };

struct m_bar { /* mbarrier */
    int arrivals = 0, pending = 0;
    int64_t bytes = 0;
    uint32_t phase = 0;
};

struct m_gate { /* where several threads meet */
    int arrived = 0;
    uint64_t round = 0;
};

/* One product as a warp sees it: the same for all lanes but for the registers. */
struct m_product {
    int n, ta, tb, group;
    bool more, from_registers;
    uint64_t a, b;
    float *d[32];
    const uint32_t *regs[32];
};

struct m_warp {
    m_gate gate;
    uint32_t slot[32];
    std::vector<m_product> queue; /* not yet done; the first is number `done` */
    size_t done = 0;
    size_t issued[32] = {};
    int groups[32] = {};
};

struct m_cta {
    int id, rank, first; /* first: CTA of the cluster, index of machine.ctas */
    int ended = 0;       /* threads; all: nobody may reach in any more */
    std::vector<uint8_t> shared;
    std::map<uint32_t, m_bar> bars;
    m_gate named[16];
    std::vector<m_warp> warps;
};

/* A store under way: of a box, or of `count` numbers, which are kept once they were read. */
struct m_store {
    const CUtensorMap *map;
    uint32_t from;
    int32_t x, y, z;
    int group;
    float *to;
    bool adds, was_read;
    std::vector<float> numbers;
};

struct m_thread {
    ucontext_t context;
    m_cta *cta;
    int id;
    bool ended = false;
    const char *at = "start";
    bool (*ready)(const void *) =
        nullptr; /* what it waits for, so that nobody need ask it */
    const void *wish;
    std::vector<m_store> stores;
    int store_groups = 0;
};

inline struct machine_state {
    bool late_copies, late_products; /* how asynchronous work is done */
    int grid, cluster, threads;
    std::vector<m_cta> ctas; /* at work: whole clusters */
    std::vector<m_thread> all;
    std::vector<std::unique_ptr<char[]>> stacks; /* of all, kept from launch to launch */
    std::vector<std::function<void()>> copies;   /* under way */
    std::vector<m_gate> cluster_gates;           /* of the clusters at work */
    m_thread *self;
    ucontext_t home;
    std::function<void()> body;
    uint64_t moves, random; /* moves: grows when anything happens */
    bool failed;
} machine;

static inline uint64_t m_random()
{
    machine.random = machine.random * 6364136223846793005u + 1442695040888963407u;
    return machine.random >> 33;
}

static inline void m_yield() { swapcontext(&machine.self->context, &machine.home); }

/* Say it once; the thread that did it never goes on. */
static inline void m_fail(const char *what)
{
    if (!machine.failed)
        printf("# machine: cta %d thread %d: %s\n",
               machine.self ? machine.self->cta->id : -1,
               machine.self ? machine.self->id : -1, what);
    machine.failed = true;
    while (machine.self)
        m_yield();
}

/* Let others run until cond holds. */
template <class F> static inline void m_until(const char *where, F cond)
{
    machine.self->at = where;
    if (!cond()) {
        machine.self->wish = &cond;
        machine.self->ready = [](const void *c) { return (*(const F *)c)(); };
        m_yield();
        machine.self->ready = nullptr;
    }
    machine.moves++;
}

/* Arrive at a gate; true for the last of n, who opens it with m_open. */
static inline bool m_last(m_gate &g, int n) { return ++g.arrived == n; }
static inline void m_open(m_gate &g) { g.arrived = 0, g.round++, machine.moves++; }
static inline void m_pass(m_gate &g, int n, const char *where)
{
    uint64_t round = g.round;

    if (m_last(g, n))
        m_open(g);
    else
        m_until(where, [&] { return g.round != round; });
}

static inline m_cta &m_here() { return *machine.self->cta; }
static inline m_cta &m_peer(int rank)
{
    return machine.ctas[(size_t)(m_here().first + rank)];
}
static inline m_warp &m_warp_here() { return m_here().warps[machine.self->id / 32]; }

/* All lanes of the warp; the last one does `work` before any goes on. */
template <class F> static inline void m_meet(const char *where, F work)
{
    m_gate &g = m_warp_here().gate;
    uint64_t round = g.round;

    if (m_last(g, 32)) {
        work();
        m_open(g);
    } else {
        m_until(where, [&] { return g.round != round; });
    }
}

#endif
