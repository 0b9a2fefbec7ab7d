/*
 * guard.c - the device "guard": the CPU table over memory that only kernels may touch.
 *
 * Its memory is unreadable outside an operation and full of NaN when fresh, so a trainer
 * that reads device memory, or reads it before it was written, fails on any laptop.  All
 * allocations of a device lie in one reserved region that is opened and closed as a whole
 * when the first operation enters and the last one leaves (a background queue may be in
 * one at the same time).  Freed memory is not reused: a late use hits NaN or a fault.
 */
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/table.h"
#include "kernels/host.h"

enum { GUARD_ALIGN = 4096 };
static const size_t reserve = (size_t)64 << 30; /* bytes of address space */

struct guard {
    struct host_state host;
    pthread_mutex_t lock;
    char *base;
    size_t used;
    int inside; /* operations that have entered */
};

static void enter(void *state)
{
    struct guard *g = state;

    pthread_mutex_lock(&g->lock);
    if (g->inside++ == 0 && g->used) mprotect(g->base, g->used, PROT_READ | PROT_WRITE);
    pthread_mutex_unlock(&g->lock);
}

static void leave(void *state)
{
    struct guard *g = state;

    pthread_mutex_lock(&g->lock);
    if (--g->inside == 0 && g->used) mprotect(g->base, g->used, PROT_NONE);
    pthread_mutex_unlock(&g->lock);
}

static void close_guard(void *state)
{
    struct guard *g = state;

    munmap(g->base, reserve);
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

static kr_status open_guard(void **state, int local_rank, int threads)
{
    struct guard *g = NULL;

    (void)local_rank;
    TRY(blas_open());
    TRY(mem_alloc(&g, 1, sizeof *g, "device"));
    g->host = (struct host_state){ { enter, leave }, threads };
    g->base = mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (g->base == MAP_FAILED) {
        mem_free(g);
        return KR_FAIL(KR_ERR_MEM, "guard: cannot reserve address space");
    }
    pthread_mutex_init(&g->lock, NULL);
    *state = g;
    return KR_OK;
}

static kr_status alloc_guard(void *state, void **at, size_t bytes, const char *what)
{
    struct guard *g = state;
    size_t room = (bytes + GUARD_ALIGN - 1) / GUARD_ALIGN * GUARD_ALIGN;
    char *mine;

    pthread_mutex_lock(&g->lock);
    mine = g->base + g->used;
    if (room > reserve - g->used || mprotect(mine, room, PROT_READ | PROT_WRITE) != 0) {
        pthread_mutex_unlock(&g->lock);
        return KR_FAIL(KR_ERR_MEM, "guard: %s: no memory for %zu bytes", what, bytes);
    }
    g->used += room;
    memset(mine, 0xff, room); /* NaN in every floating point type */
    if (g->inside == 0) mprotect(mine, room, PROT_NONE);
    pthread_mutex_unlock(&g->lock);
    *at = mine;
    return KR_OK;
}

static void free_guard(void *state, void *at)
{
    (void)state;
    (void)at; /* the whole region goes at close */
}

static const char *describe(void *state)
{
    (void)state;
    return "cpu kernels over guarded memory (for tests)";
}

const struct kern_backend kern_guard_backend = {
    .name = "guard",
    .type = KERN_F32,
    .wide = KERN_F32,
    .is_host = true,
    .ops = &cpu_table,
    .open = open_guard,
    .close = close_guard,
    .describe = describe,
    .alloc = alloc_guard,
    .free = free_guard,
    .enter = enter,
    .leave = leave,
    HOST_PART,
};
