/* machine_mma.h - the machine of machine.h: shared memory and tensor cores. */
#ifndef TESTS_SM90_MACHINE_MMA_H
#define TESTS_SM90_MACHINE_MMA_H

#include "tests/sm90/machine_core.h"

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

#endif
