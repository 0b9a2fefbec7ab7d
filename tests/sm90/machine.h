/*
 * machine.h - a Hopper in software, for kernels that speak only the words of
 * kernels/cuda/sm90_ptx.cuh.  Include this first: it takes the place of sm90_ptx.cuh.
 *
 * What is modelled: the threads of all CTAs that are at work (fibers, switched where hardware
 * could wait; a CTA or a warpgroup may fall behind others),
 * shared memory (NaN when fresh), mbarriers with arrivals, bytes and phases, named and
 * cluster barriers, the copy engine with boxes, bounds, swizzle and multicast, stmatrix,
 * shuffles, and the tensor cores: descriptors are walked as the hardware walks them, by
 * address bits, knowing nothing of sm90_layout.h.
 *
 * What makes races show: asynchronous work is done as soon, or as late, as the rules allow
 * (machine.late_*).  A product reads its operands, also those in registers, when its wait
 * comes; a copy lands when nothing else can move.  A stage given back too early, a
 * register touched in flight, a buffer reused before it was read then give wrong numbers,
 * and a barrier miscounted stops the machine: it says so and who waits where.
 *
 * Not modelled: memory order between proxies, timing, registers.
 */
#ifndef TESTS_SM90_MACHINE_H
#define TESTS_SM90_MACHINE_H
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

/* ---- shared memory -------------------------------------------------------------------- */

static inline uint8_t *m_shared(m_cta &c, uint32_t at, uint32_t bytes)
{
    if (at + bytes > c.shared.size()) m_fail("outside shared memory"), at = 0;
    return &c.shared[at];
}

/* The 128-byte swizzle as the hardware does it: on address bits. */
static inline uint32_t m_swizzle(uint32_t a) { return a ^ (a >> 3 & 0x70); }

static inline float m_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;

    memcpy(&f, &bits, 4);
    return f;
}
static inline uint16_t m_round(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, 4);
    if (x != x) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---- tensor cores --------------------------------------------------------------------- */

/* Element (mn, k) of the matrix that a descriptor names. */
static inline float m_element(m_cta &c, uint64_t d, int transposed, int mn, int k)
{
    uint32_t start = (d & 0x3fff) << 4, lead = (d >> 16 & 0x3fff) << 4;
    uint32_t stride = (d >> 32 & 0x3fff) << 4, at;
    uint16_t x;

    if (d >> 62 != 1 || (d >> 49 & 7) != 0) m_fail("descriptor is not 128-byte swizzled");
    at = transposed ? start + mn / 64 * lead + mn % 64 * 2 + k / 8 * stride + k % 8 * 128
                    : start + mn / 8 * stride + mn % 8 * 128 + k * 2;
    memcpy(&x, m_shared(c, m_swizzle(at), 2), 2);
    return m_bf16(x);
}

/* The 16 x 16 block of a that belongs to this warp. */
static inline void m_operand_a(m_cta &c, const m_product &p, int warp, float (*a)[16])
{
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++) {
            if (!p.from_registers) {
                a[r][k] = m_element(c, p.a, p.ta, warp % 4 * 16 + r, k);
                continue;
            }
            uint32_t pair = p.regs[r % 8 * 4 + k % 8 / 2][r / 8 + k / 8 * 2];

            a[r][k] = m_bf16((uint16_t)(pair >> k % 2 * 16));
        }
}

static inline void m_multiply(m_cta &c, const m_product &p, int warp)
{
    static float a[16][16], b[16][256], sum[256];

    m_operand_a(c, p, warp, a);
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < p.n; n++)
            b[k][n] = m_element(c, p.b, p.tb, n, k);
    for (int r = 0; r < 16; r++) {
        for (int n = 0; n < p.n; n++) {
            float *d = &p.d[r % 8 * 4 + n % 8 / 2][n / 8 * 4 + r / 8 * 2 + n % 2];

            sum[n] = p.more ? *d : 0;
        }
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < p.n; n++)
                sum[n] += a[r][k] * b[k][n];
        for (int n = 0; n < p.n; n++)
            p.d[r % 8 * 4 + n % 8 / 2][n / 8 * 4 + r / 8 * 2 + n % 2] = sum[n];
    }
}

/* Do what is due: all groups of the warp but the last `keep`. */
static inline void m_products(m_warp &w, int warp, int keep)
{
    size_t n = 0;

    while (n < w.queue.size() && w.queue[n].group < w.groups[0] - keep)
        m_multiply(m_here(), w.queue[n++], warp);
    w.queue.erase(w.queue.begin(), w.queue.begin() + (long)n);
    w.done += n;
}

static inline void m_issue(m_product p, float *d, const uint32_t *regs)
{
    m_warp &w = m_warp_here();
    int lane = machine.self->id % 32, warp = machine.self->id / 32;
    size_t at = w.issued[lane]++ - w.done;

    p.group = w.groups[lane];
    if (at == w.queue.size()) w.queue.push_back(p);
    m_product &q = w.queue[at];
    if (q.n != p.n || q.a != p.a || q.b != p.b || q.more != p.more || q.group != p.group)
        m_fail("lanes of a warp disagree about a product");
    q.d[lane] = d;
    q.regs[lane] = regs;
    if (!machine.late_products)
        m_meet("product", [&] {
            m_multiply(m_here(), w.queue[0], warp);
            w.queue.erase(w.queue.begin());
            w.done++;
        });
}

template <int TA, int TB, int ACCS>
static inline void wgmma(float (&d)[ACCS], uint64_t a, uint64_t b, bool more)
{
    m_issue({ ACCS * 2, TA, TB, 0, more, false, a, b, {}, {} }, d, nullptr);
}
template <int TB, int ACCS>
static inline void wgmma(float (&d)[ACCS], const uint32_t *a, uint64_t b, bool more)
{
    m_issue({ ACCS * 2, 0, TB, 0, more, true, 0, b, {}, {} }, d, a);
}
static inline void wgmma_fence() {}
static inline void wgmma_commit() { m_warp_here().groups[machine.self->id % 32]++; }
template <int N> static inline void wgmma_wait()
{
    m_warp &w = m_warp_here();
    int warp = machine.self->id / 32;

    for (uint64_t i = m_random() % 4; machine.late_products && i > 0; i--) {
        machine.moves++;
        m_yield();
    }
    m_meet("wgmma_wait", [&] { m_products(w, warp, N); });
}
template <int N> static inline void pin(float (&)[N]) {}
template <int N> static inline void registers_less() {}
template <int N> static inline void registers_more() {}

/* ---- who am I, arithmetic, shared memory ---------------------------------------------- */

static inline int32_t thread_id() { return machine.self->id; }
static inline int32_t block_id() { return m_here().id; }
static inline int32_t block_count() { return machine.grid; }
static inline int32_t cluster_rank() { return m_here().rank; }

static inline uint32_t m_shuffle(uint32_t x, int from)
{
    m_warp &w = m_warp_here();
    uint32_t y;

    w.slot[machine.self->id % 32] = x;
    m_meet("shuffle", [] {});
    y = w.slot[from];
    m_meet("shuffle", [] {});
    return y;
}
static inline int32_t uniform(int32_t x) { return (int32_t)m_shuffle((uint32_t)x, 0); }
static inline float m_from(float x, int mask)
{
    uint32_t bits;

    memcpy(&bits, &x, 4);
    bits = m_shuffle(bits, (machine.self->id % 32) ^ mask);
    memcpy(&x, &bits, 4);
    return x;
}
static inline float quad_max(float x)
{
    x = fmaxf(x, m_from(x, 1));
    return fmaxf(x, m_from(x, 2));
}
static inline float quad_sum(float x)
{
    x += m_from(x, 1);
    return x + m_from(x, 2);
}
static inline float warp_sum(float x)
{
    for (int i = 16; i > 0; i /= 2)
        x += m_from(x, i);
    return x;
}

static inline float exp2_fast(float x) { return exp2f(x); }
static inline float log2_fast(float x) { return log2f(x); }
static inline float divide_fast(float a, float b) { return a / b; }
static inline uint32_t pack(float lo, float hi)
{
    return m_round(lo) | (uint32_t)m_round(hi) << 16;
}
static inline float unpack_lo(uint32_t pair) { return m_bf16((uint16_t)pair); }
static inline float unpack_hi(uint32_t pair) { return m_bf16((uint16_t)(pair >> 16)); }

static inline uint32_t shared_start() { return PANEL_ALIGN; }
static inline void store_shared(uint32_t at, float x)
{
    memcpy(m_shared(m_here(), at, 4), &x, 4);
}
static inline void store_shared2(uint32_t at, float x, float y)
{
    store_shared(at, x);
    store_shared(at + 4, y);
}
static inline void store_shared4(uint32_t at, float x, float y, float z, float w)
{
    if (at % 16) m_fail("store_shared4 is not aligned");
    store_shared2(at, x, y);
    store_shared2(at + 8, z, w);
}
static inline void store_shared_int(uint32_t at, int32_t x)
{
    memcpy(m_shared(m_here(), at, 4), &x, 4);
}
static inline int32_t load_shared_int(uint32_t at)
{
    int32_t x;

    memcpy(&x, m_shared(m_here(), at, 4), 4);
    return x;
}
static inline float2 load_shared2(uint32_t at)
{
    float2 x;

    if (at % 8) m_fail("load_shared2 is not aligned");
    memcpy(&x, m_shared(m_here(), at, 8), 8);
    return x;
}
static inline float4 load_peer4(uint32_t at, int32_t rank)
{
    float4 x;

    if (at % 16) m_fail("load_peer4 is not aligned");
    if (m_peer(rank).ended == machine.threads) m_fail("a peer has ended");
    memcpy(&x, m_shared(m_peer(rank), at, 16), 16);
    return x;
}
static inline void stmatrix(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    m_warp &w = m_warp_here();
    int lane = machine.self->id % 32;
    uint32_t regs[4] = { a, b, c, d };

    if (at % 16) m_fail("stmatrix is not aligned");
    w.slot[lane] = at;
    m_meet("stmatrix", [] {});
    for (int q = 0; q < 4; q++)
        memcpy(m_shared(m_here(), w.slot[q * 8 + lane / 4] + lane % 4 * 4, 4), &regs[q],
               4);
    m_meet("stmatrix", [] {});
}
static inline void fence_async() {}

/* ---- barriers ------------------------------------------------------------------------- */

static inline void bar_sync(int32_t id, int32_t n)
{
    m_pass(m_here().named[id], n, "bar_sync");
}
static inline void bar_arrive(int32_t id, int32_t n)
{
    if (m_last(m_here().named[id], n)) m_open(m_here().named[id]);
}
static inline void cta_sync() { m_pass(m_here().named[0], machine.threads, "cta_sync"); }
static inline void warp_sync()
{
    m_meet("warp_sync", [] {});
}
static inline void cluster_sync()
{
    m_pass(machine.cluster_gates[(size_t)(m_here().first / machine.cluster)],
           machine.threads * machine.cluster, "cluster_sync");
}

static inline void mbar_init(uint32_t bar, int32_t n)
{
    m_here().bars[bar] = { n, n, 0, 0 };
}
static inline void mbar_init_fence() {}
static inline m_bar &m_find(m_cta &c, uint32_t bar)
{
    if (c.ended == machine.threads) m_fail("an arrival at a CTA that has ended");
    if (!c.bars.count(bar)) m_fail("no mbarrier there");
    return c.bars[bar];
}
static inline void m_arrive(m_cta &c, uint32_t at, int arrivals, int64_t bytes)
{
    m_bar &b = m_find(c, at);

    machine.moves++;
    b.pending -= arrivals;
    b.bytes += bytes;
    if (b.pending < 0) m_fail("too many arrivals at an mbarrier");
    if (b.pending == 0 && b.bytes == 0) b.phase ^= 1, b.pending = b.arrivals;
}
static inline void mbar_arrive(uint32_t bar) { m_arrive(m_here(), bar, 1, 0); }
static inline void mbar_expect(uint32_t bar, int32_t bytes)
{
    m_arrive(m_here(), bar, 1, bytes);
}
static inline void mbar_arrive_at(uint32_t bar, int32_t rank)
{
    m_arrive(m_peer(rank), bar, 1, 0);
}
static inline void mbar_wait(uint32_t bar, uint32_t parity)
{
    m_bar &b = m_find(m_here(), bar);

    m_until("mbar_wait", [&] { return b.phase != parity; });
}

/* ---- copies --------------------------------------------------------------------------- */

static inline void map_prefetch(const CUtensorMap *) {}

/* Byte of the matrix at (x, y, z), or NULL beyond it. */
static inline uint8_t *m_place(const CUtensorMap *map, int64_t x, int64_t y, int64_t z)
{
    if (x < 0 || y < 0 || z < 0 || x >= (int64_t)map->cols || y >= (int64_t)map->rows ||
        z >= (int64_t)map->depth)
        return nullptr;
    return (uint8_t *)map->at + x * 2 + y * (int64_t)map->row_bytes +
           z * (int64_t)map->depth_bytes;
}

/* Between a box of the matrix and shared memory; into: to shared memory. */
static inline void m_box(m_cta &c, uint32_t at, const CUtensorMap *map, int32_t x,
                         int32_t y, int32_t z, bool into)
{
    for (uint32_t r = 0; r < map->box_rows; r++)
        for (uint32_t i = 0; i < 64; i++) {
            uint8_t *here = m_shared(c, m_swizzle(at + r * 128 + i * 2), 2);
            uint8_t *there = m_place(map, x + (int32_t)i, y + (int32_t)r, z);

            if (into && there) memcpy(here, there, 2);
            if (into && !there) memset(here, 0, 2);
            if (!into && there) memcpy(there, here, 2);
        }
}

static inline void m_load(uint32_t to, const CUtensorMap *map, uint32_t bar,
                          uint32_t mask, int32_t x, int32_t y, int32_t z)
{
    if (to % PANEL_ALIGN) m_fail("a copy to an address that is no multiple of 1024");
    for (int rank = 0; rank < machine.cluster; rank++) {
        if (!(mask >> rank & 1)) continue;
        m_cta *cta = &m_peer(rank);
        auto work = [=] {
            m_box(*cta, to, map, x, y, z, true);
            m_arrive(*cta, bar, 0, -(int64_t)map->box_rows * 128);
        };
        if (machine.late_copies)
            machine.copies.push_back(work);
        else
            work();
    }
}
static inline void tma_load(uint32_t to, const CUtensorMap *map, uint32_t bar, int32_t x,
                            int32_t y, int32_t z = 0)
{
    m_load(to, map, bar, 1u << m_here().rank, x, y, z);
}
static inline void tma_load_multicast(uint32_t to, const CUtensorMap *map, uint32_t bar,
                                      uint16_t mask, int32_t x, int32_t y)
{
    m_load(to, map, bar, mask, x, y, 0);
}

/* A store reads its source, and writes it. */
static inline void m_read(m_store &t)
{
    if (!t.was_read && t.to)
        memcpy(t.numbers.data(),
               m_shared(m_here(), t.from, (uint32_t)t.numbers.size() * 4),
               t.numbers.size() * 4);
    if (!t.was_read && !t.to) m_box(m_here(), t.from, t.map, t.x, t.y, t.z, false);
    t.was_read = true;
}
static inline void m_write(const m_store &t)
{
    for (size_t i = 0; i < t.numbers.size(); i++)
        t.to[i] = t.adds ? t.to[i] + t.numbers[i] : t.numbers[i];
}

/* Stores of this thread up to all but `keep` groups: until they are read, or written. */
static inline void m_stores(int keep, bool written)
{
    m_thread &t = *machine.self;
    size_t n = 0;

    for (m_store &x : t.stores)
        if (x.group < t.store_groups - keep) m_read(x);
    while (n < t.stores.size() && t.stores[n].group < t.store_groups - keep &&
           (written || !t.stores[n].to))
        m_write(t.stores[n++]);
    t.stores.erase(t.stores.begin(), t.stores.begin() + (long)n);
}
static inline void tma_store(const CUtensorMap *map, uint32_t from, int32_t x, int32_t y,
                             int32_t z = 0)
{
    machine.self->stores.push_back(
        { map, from, x, y, z, machine.self->store_groups, nullptr, false, false, {} });
}
static inline void m_bulk(float *to, uint32_t from, int32_t bytes, bool adds)
{
    if (from % 16 || (uintptr_t)to % 16 || bytes % 16)
        m_fail("a copy that is not aligned");
    machine.self->stores.push_back({ nullptr, from, 0, 0, 0, machine.self->store_groups,
                                     to, adds, false,
                                     std::vector<float>((size_t)bytes / 4) });
}
static inline void bulk_store(float *to, uint32_t from, int32_t bytes)
{
    m_bulk(to, from, bytes, false);
}
static inline void bulk_add(float *to, uint32_t from, int32_t bytes)
{
    m_bulk(to, from, bytes, true);
}
static inline void tma_commit()
{
    machine.self->store_groups++;
    if (!machine.late_copies) m_stores(0, true);
}
template <int N> static inline void tma_wait_read() { m_stores(N, false); }
static inline void tma_wait_all()
{
    /* others may look before it is written */
    for (uint64_t i = m_random() % 4; machine.late_copies && i > 0; i--) {
        machine.moves++;
        m_yield();
    }
    m_stores(0, true);
}

/* ---- between CTAs --------------------------------------------------------------------- */

static inline int32_t claim(int32_t *count)
{
    machine.moves++;
    return (*count)++;
}
static inline void count_up(int32_t *count)
{
    machine.moves++;
    ++*count;
}
static inline void await_count(const int32_t *count, int32_t value)
{
    m_until("await_count", [=] { return *count == value; });
}

/* ---- running -------------------------------------------------------------------------- */

static inline void m_entry()
{
    machine.body();
    machine.self->ended = true;
    machine.self->cta->ended++;
    machine.self->at = "end";
    machine.moves++;
    if (!machine.self->stores.empty()) m_fail("ended before a store had read its source");
    m_yield();
}

static inline void m_make_thread(m_thread &t, char *stack, m_cta *cta, int id)
{
    t.cta = cta;
    t.id = id;
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = stack;
    t.context.uc_stack.ss_size = MACHINE_STACK;
    makecontext(&t.context, m_entry, 0);
}

/* CTAs first .. first + count - 1, whole clusters. */
static inline void m_make_ctas(int first, int count)
{
    machine.ctas.assign((size_t)count, m_cta());
    machine.all.clear();
    machine.all.resize((size_t)(count * machine.threads));
    while (machine.stacks.size() < machine.all.size())
        machine.stacks.emplace_back(new char[MACHINE_STACK]);
    machine.cluster_gates.assign((size_t)(count / machine.cluster), m_gate());
    for (int c = 0; c < count; c++) {
        m_cta &cta = machine.ctas[c];

        cta.id = first + c, cta.rank = c % machine.cluster;
        cta.first = c - cta.rank;
        cta.shared.assign(MACHINE_SHARED, 0xff);
        cta.warps.resize((size_t)machine.threads / 32);
        for (int t = 0; t < machine.threads; t++)
            m_make_thread(machine.all[c * machine.threads + t],
                          machine.stacks[c * machine.threads + t].get(), &cta, t);
    }
}

/* Who falls behind for a while: a CTA, or a warpgroup of it; none where cta is -1. */
struct m_late {
    int cta, group; /* group -1: all of the CTA */
};

static inline bool m_is(struct m_late l, const m_thread &t)
{
    return l.cta >= 0 && t.cta == &machine.ctas[(size_t)l.cta] &&
           (l.group < 0 || l.group == t.id / 128);
}

static inline struct m_late m_behind()
{
    static struct m_late late;
    static int rounds;

    if (rounds-- > 0 && late.cta < (int)machine.ctas.size()) return late;
    rounds = (int)(m_random() % 40);
    late.cta = (int)(m_random() % (machine.ctas.size() + 1)) - 1;
    late.group = (int)(m_random() % 4) - 1;
    return late;
}

/* Once around all threads but those that are behind, from a random one on; false when all
 * have ended. */
static inline bool m_round(struct m_late behind)
{
    size_t n = machine.all.size(), from = m_random() % n;
    bool alive = false;

    for (size_t i = 0; i < n; i++) {
        m_thread &t = machine.all[(from + i) % n];

        if (t.ended) continue;
        alive = true;
        if (m_is(behind, t) || (t.ready && !t.ready(t.wish))) continue;
        machine.self = &t;
        swapcontext(&machine.home, &t.context);
    }
    machine.self = nullptr;
    return alive;
}

/* One copy that is under way lands. */
static inline bool m_land()
{
    if (machine.copies.empty()) return false;
    size_t i = m_random() % machine.copies.size();
    auto work = machine.copies[i];

    machine.copies.erase(machine.copies.begin() + (long)i);
    work();
    return true;
}

static inline void m_say_stuck()
{
    printf("# machine: nothing moves\n");
    for (const m_thread &t : machine.all)
        if (t.id % 32 == 0)
            printf("#   cta %d warp %d: %s\n", t.cta->id, t.id / 32, t.at);
    machine.failed = true;
}

static inline void m_check_end()
{
    for (m_cta &c : machine.ctas)
        for (m_warp &w : c.warps)
            if (!w.queue.empty()) m_fail("ended before a product was waited for");
    if (!machine.copies.empty()) m_fail("ended before a copy had landed");
}

/* Until the CTAs at work have ended, or cannot. */
static inline void m_work()
{
    for (uint64_t before = machine.moves; !machine.failed; before = machine.moves) {
        if (!m_round(m_behind())) return;
        if (machine.moves != before) continue;
        m_round({ -1, -1 });
        if (machine.moves == before && !m_land()) m_say_stuck();
    }
}

/* Run `body` as a kernel, as many CTAs at a time as there is room for; false when the rules
 * were broken. */
static inline bool machine_run(int grid, int cluster, int threads, uint32_t shared,
                               std::function<void()> body)
{
    const int room = (MACHINE_ROOM + cluster - 1) / cluster * cluster;

    machine.grid = grid, machine.cluster = cluster, machine.threads = threads;
    machine.body = body, machine.failed = false, machine.random = 1;
    machine.copies.clear();
    if (shared > MACHINE_SHARED || grid % cluster) return false;
    for (int first = 0; first < grid && !machine.failed; first += room) {
        m_make_ctas(first, grid - first < room ? grid - first : room);
        m_work();
        if (!machine.failed) m_check_end();
    }
    return !machine.failed;
}

#endif
