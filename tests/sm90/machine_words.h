/* machine_words.h - the machine of machine.h: who am I, arithmetic, shared memory,
 * barriers. */
#ifndef TESTS_SM90_MACHINE_WORDS_H
#define TESTS_SM90_MACHINE_WORDS_H

#include "tests/sm90/machine_mma.h"

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

#endif
