/*
 * machine.h - a Hopper in software, for kernels that speak only the words of
 * kernels/cuda/sm90_ptx.cuh.  Include this first: it takes the place of sm90_ptx.cuh.
 *
 * What is modelled: the threads of all CTAs that are at work (fibers, switched where hardware
 * could wait; a CTA or a warpgroup may fall behind others), shared memory (NaN when fresh),
 * mbarriers with arrivals, bytes and phases, named and cluster barriers, the copy engine with
 * boxes, bounds, swizzle and multicast, stores that are read before they are written, stmatrix,
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

#include "tests/sm90/machine_copy.h"

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
