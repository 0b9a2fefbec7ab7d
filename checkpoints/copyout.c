/* copyout.c - a side queue, and a flag that a host call in its order sets. */
#include "checkpoints/copyout.h"

#include <stdint.h>

#include "base/mem.h"
#include "kernels/device.h"

kr_status copyout_open(struct copyout *c, struct kern_queue *q)
{
    if (c->device) return KR_OK;
    c->device = kern_queue_device(q);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    if (kern_device_is_host(c->device)) return KR_OK;
    TRY(kern_event_open(&c->ready, c->device));
    TRY(kern_event_open(&c->out, c->device));
    return kern_queue_open(&c->side, c->device, KERN_QUEUE_BACKGROUND);
}

static void free_memory(struct copyout *c)
{
    if (c->side)
        kern_free_host(c->device, c->to);
    else
        mem_free(c->to);
    c->to = NULL;
    c->bytes = 0;
}

void copyout_close(struct copyout *c)
{
    (void)copyout_settle(c);
    free_memory(c);
    if (!c->device) return;
    kern_queue_close(c->side);
    kern_event_close(c->ready);
    kern_event_close(c->out);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    *c = (struct copyout){ 0 };
}

void copyout_drop(struct copyout *c)
{
    if (!c->side) free_memory(c);
}

kr_status copyout_reserve(struct copyout *c, size_t bytes)
{
    if (c->to && c->bytes == bytes) return KR_OK;
    free_memory(c);
    TRY(c->side ? kern_alloc_host(c->device, &c->to, bytes + 1, "a copy of the state")
                : mem_alloc(&c->to, bytes + 1, 1, "a copy of the state"));
    c->bytes = bytes;
    return KR_OK;
}

/* It is over, well or not. */
static void tell(struct copyout *c, kr_status st)
{
    pthread_mutex_lock(&c->lock);
    if (c->under_way) c->status = st;
    c->under_way = false;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static kr_status is_out(void *arg)
{
    tell(*(struct copyout **)arg, KR_OK);
    return KR_OK;
}

static kr_status enqueue(struct copyout *c, struct kern_queue *q,
                         const struct ckpt_state *s)
{
    char *to = c->to;

    TRY(kern_event_record(c->ready, q));
    TRY(kern_event_wait(c->ready, c->side));
    for (int32_t i = 0; i < s->piece_count; i++) {
        TRY(kern_download(c->side, to, s->pieces[i].at, piece_bytes(s, i)));
        to += piece_bytes(s, i);
    }
    /* first the event: who holds on to it need not wait for a thread of the driver too */
    TRY(kern_event_record(c->out, c->side));
    return kern_queue_call(c->side, is_out, &c, sizeof(void *));
}

kr_status copyout_start(struct copyout *c, struct kern_queue *q,
                        const struct ckpt_state *s)
{
    kr_status st;

    TRY(copyout_settle(c));
    TRY(copyout_reserve(c, pieces_bytes(s)));
    if (!c->side) return pieces_download(s, q, c->to);
    c->under_way = true;
    st = enqueue(c, q, s);
    if (st != KR_OK) tell(c, st);
    return st;
}

kr_status copyout_hold(struct copyout *c, struct kern_queue *q)
{
    return c->side ? kern_event_wait(c->out, q) : KR_OK;
}

static bool is_under_way(struct copyout *c)
{
    bool yes;

    pthread_mutex_lock(&c->lock);
    yes = c->under_way;
    pthread_mutex_unlock(&c->lock);
    return yes;
}

/* The host call does not come on a queue that has failed. */
kr_status copyout_settle(struct copyout *c)
{
    if (!c->side) return KR_OK;
    if (is_under_way(c)) tell(c, kern_queue_sync(c->side));
    return c->status;
}

kr_status copyout_wait(struct copyout *c)
{
    kr_status st;

    if (!c->side) return KR_OK;
    pthread_mutex_lock(&c->lock);
    while (c->under_way)
        pthread_cond_wait(&c->changed, &c->lock);
    st = c->status;
    pthread_mutex_unlock(&c->lock);
    return st;
}
