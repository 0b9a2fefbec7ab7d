/* parallel.c - a counter that threads draw items from. */
#include "trainer/data/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/mem.h"

struct job {
    kr_status (*fn)(void *arg, int worker, int64_t item);
    void *arg;
    int64_t items;
    _Atomic int64_t next;
    pthread_mutex_t lock; /* of the two below */
    int64_t failed_item;
    kr_status status;
};

struct hand {
    struct job *job;
    int worker;
    pthread_t thread;
    bool started;
};

int parallel_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return CPU_COUNT(&set);
}

static void note_failure(struct job *j, int64_t item, kr_status st)
{
    pthread_mutex_lock(&j->lock);
    if (j->status == KR_OK || item < j->failed_item) {
        j->failed_item = item;
        j->status = st;
    }
    pthread_mutex_unlock(&j->lock);
    atomic_store(&j->next, j->items);
}

static void *work(void *arg)
{
    struct hand *h = arg;
    struct job *j = h->job;
    int64_t item;

    while ((item = atomic_fetch_add(&j->next, 1)) < j->items) {
        kr_status st = j->fn(j->arg, h->worker, item);

        if (st != KR_OK) note_failure(j, item, st);
    }
    return NULL;
}

kr_status parallel_run(int threads, int64_t items, kr_status (*fn)(void *, int, int64_t),
                       void *arg)
{
    struct job j = { .fn = fn, .arg = arg, .items = items };
    struct hand *hands = NULL;

    if (threads > items) threads = items > 1 ? (int)items : 1;
    TRY(mem_alloc(&hands, (size_t)threads, sizeof *hands, "threads"));
    pthread_mutex_init(&j.lock, NULL);
    for (int i = 0; i < threads; i++) {
        hands[i] = (struct hand){ .job = &j, .worker = i };
        /* fewer threads than asked for do the same work */
        if (i > 0)
            hands[i].started =
                pthread_create(&hands[i].thread, NULL, work, &hands[i]) == 0;
    }
    (void)work(&hands[0]);
    for (int i = 1; i < threads; i++)
        if (hands[i].started) pthread_join(hands[i].thread, NULL);
    pthread_mutex_destroy(&j.lock);
    mem_free(hands);
    return j.status;
}
