/* host.c - a queue is either "now" or a thread. */
#include "kernels/host.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/meminfo.h"

struct event {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t recorded, reached; /* how often; equal: reached */
    kr_status status;           /* of the queue when it was reached */
};

/* Work of a background queue, with its copied argument behind it. */
struct task {
    struct task *next;
    kern_host_fn fn; /* or an event: */
    struct event *event;
    bool wait;      /* event: wait for it, else reach it */
    uint64_t count; /* event: which recording */
    max_align_t arg[];
};

struct queue {
    struct host_state *state;
    bool background, closing;
    kr_status status; /* first error */
    double stalled;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct task *head, **tail;
    int64_t pending; /* tasks not finished */
};

/* ---- memory --------------------------------------------------------------------------- */

kr_status host_memory(int local_rank, struct kern_memory *out)
{
    (void)local_rank;
    meminfo_read("", &out->total, &out->available);
    out->is_shared = true;
    return KR_OK;
}

kr_status host_alloc(void *state, void **at, size_t bytes, const char *what)
{
    (void)state;
    return mem_alloc(at, bytes, 1, what);
}

void host_free(void *state, void *at)
{
    (void)state;
    mem_free(at);
}

static void enter(const struct queue *q)
{
    if (q->state->gate.enter) q->state->gate.enter(q->state);
}

static void leave(const struct queue *q)
{
    if (q->state->gate.leave) q->state->gate.leave(q->state);
}

int host_threads(void *stream) { return ((struct queue *)stream)->state->threads; }

/* ---- events --------------------------------------------------------------------------- */

kr_status host_event_open(void *state, void **out)
{
    struct event *e = NULL;

    (void)state;
    TRY(mem_alloc(&e, 1, sizeof *e, "event"));
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    *out = e;
    return KR_OK;
}

void host_event_close(void *event)
{
    struct event *e = event;

    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
}

static uint64_t event_announce(struct event *e)
{
    uint64_t count;

    pthread_mutex_lock(&e->lock);
    count = ++e->recorded;
    pthread_mutex_unlock(&e->lock);
    return count;
}

static void event_reach(struct event *e, uint64_t count, kr_status status)
{
    pthread_mutex_lock(&e->lock);
    if (count > e->reached) {
        e->reached = count;
        e->status = status;
    }
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

/* Block until recording `count` is reached; returns the status it came with. */
static kr_status event_block(struct event *e, uint64_t count)
{
    kr_status status;

    pthread_mutex_lock(&e->lock);
    while (e->reached < count)
        pthread_cond_wait(&e->changed, &e->lock);
    status = e->status;
    pthread_mutex_unlock(&e->lock);
    return status;
}

static uint64_t event_newest(struct event *e)
{
    uint64_t count;

    pthread_mutex_lock(&e->lock);
    count = e->recorded;
    pthread_mutex_unlock(&e->lock);
    return count;
}

/* ---- the background thread ------------------------------------------------------------ */

static kr_status run_task(struct queue *q, struct task *t)
{
    kr_status status = q->status;

    if (t->event && t->wait) {
        kr_status other = event_block(t->event, t->count);

        return status == KR_OK ? other : status;
    }
    if (t->event) {
        event_reach(t->event, t->count, status);
        return status;
    }
    if (status != KR_OK) return status;
    enter(q);
    status = t->fn(t->arg);
    leave(q);
    return status;
}

static struct task *next_task(struct queue *q)
{
    struct task *t;

    pthread_mutex_lock(&q->lock);
    while (!q->head && !q->closing)
        pthread_cond_wait(&q->changed, &q->lock);
    t = q->head;
    if (t && !(q->head = t->next)) q->tail = &q->head;
    pthread_mutex_unlock(&q->lock);
    return t;
}

static void *work(void *arg)
{
    struct queue *q = arg;

    for (struct task *t; (t = next_task(q));) {
        kr_status status = run_task(q, t);

        pthread_mutex_lock(&q->lock);
        if (q->status == KR_OK) q->status = status;
        q->pending--;
        pthread_cond_broadcast(&q->changed);
        pthread_mutex_unlock(&q->lock);
        mem_free(t);
    }
    return NULL;
}

static kr_status append(struct queue *q, const struct task *head, const void *arg,
                        size_t bytes)
{
    struct task *t = NULL;

    TRY(mem_alloc(&t, 1, sizeof *t + bytes, "queued work"));
    *t = *head;
    if (bytes) memcpy(t->arg, arg, bytes);
    pthread_mutex_lock(&q->lock);
    *q->tail = t;
    q->tail = &t->next;
    q->pending++;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    return KR_OK;
}

/* ---- queues --------------------------------------------------------------------------- */

/* Signals are for the main thread. */
static kr_status start_thread(struct queue *q)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&q->thread, NULL, work, q);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return KR_FAIL(KR_ERR_DEVICE, "cannot start a thread: %s", strerror(error));
    return KR_OK;
}

kr_status host_queue_open(void *state, void **stream, enum kern_queue_kind kind)
{
    struct queue *q = NULL;
    kr_status st = KR_OK;

    TRY(mem_alloc(&q, 1, sizeof *q, "queue"));
    q->state = state;
    q->tail = &q->head;
    q->background = kind == KERN_QUEUE_BACKGROUND;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    if (q->background) st = start_thread(q);
    if (st == KR_OK)
        *stream = q;
    else
        mem_free(q);
    return st;
}

void host_queue_close(void *stream)
{
    struct queue *q = stream;

    if (q->background) {
        pthread_mutex_lock(&q->lock);
        q->closing = true;
        pthread_cond_broadcast(&q->changed);
        pthread_mutex_unlock(&q->lock);
        pthread_join(q->thread, NULL);
    }
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    mem_free(q);
}

kr_status host_call(void *stream, kern_host_fn fn, const void *arg, size_t bytes)
{
    struct queue *q = stream;
    struct task head = { .fn = fn };

    if (q->background) return append(q, &head, arg, bytes);
    if (q->status != KR_OK) return q->status;
    enter(q);
    q->status = fn((void *)(uintptr_t)arg);
    leave(q);
    return q->status;
}

struct copy {
    void *to;
    const void *from;
    size_t bytes;
};

static kr_status do_copy(void *arg)
{
    const struct copy *c = arg;

    memcpy(c->to, c->from, c->bytes);
    return KR_OK;
}

kr_status host_upload(void *stream, void *device, const void *host, size_t bytes)
{
    struct copy c = { device, host, bytes };

    return host_call(stream, do_copy, &c, sizeof c);
}

kr_status host_download(void *stream, void *host, const void *device, size_t bytes)
{
    return host_upload(stream, host, device, bytes);
}

kr_status host_sync(void *stream)
{
    struct queue *q = stream;
    kr_status status;

    pthread_mutex_lock(&q->lock);
    while (q->pending > 0)
        pthread_cond_wait(&q->changed, &q->lock);
    status = q->status;
    pthread_mutex_unlock(&q->lock);
    return status;
}

void host_fail(void *stream, kr_status st)
{
    struct queue *q = stream;

    pthread_mutex_lock(&q->lock);
    if (q->status == KR_OK) q->status = st;
    pthread_mutex_unlock(&q->lock);
}

double host_stalled(void *stream) { return ((struct queue *)stream)->stalled; }

kr_status host_event_record(void *event, void *stream)
{
    struct queue *q = stream;
    struct task head = { .event = event, .count = event_announce(event) };

    if (q->background) return append(q, &head, NULL, 0);
    event_reach(event, head.count, q->status);
    return KR_OK;
}

bool host_event_reached(void *event)
{
    struct event *e = event;
    bool reached;

    pthread_mutex_lock(&e->lock);
    reached = e->reached == e->recorded;
    pthread_mutex_unlock(&e->lock);
    return reached;
}

kr_status host_event_wait(void *event, void *stream)
{
    struct queue *q = stream;
    struct task head = { .event = event, .wait = true, .count = event_newest(event) };
    double start = clock_now();
    kr_status status;

    if (q->background) return append(q, &head, NULL, 0);
    status = event_block(event, head.count);
    q->stalled += clock_now() - start;
    if (q->status == KR_OK) q->status = status;
    return q->status;
}
