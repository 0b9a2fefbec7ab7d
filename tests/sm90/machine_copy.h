/* machine_copy.h - the machine of machine.h: the copy engine, and counters between CTAs. */
#ifndef TESTS_SM90_MACHINE_COPY_H
#define TESTS_SM90_MACHINE_COPY_H

#include "tests/sm90/machine_words.h"

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

#endif
