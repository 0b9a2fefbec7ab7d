/* flights.c - a ring of pairs of events. */
#include "comm/flights.h"

#include "base/clock.h"

kr_status flights_open(struct flights *f, struct kern_queue *q)
{
    *f = (struct flights){ .q = q };
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->room, NULL);
    for (int i = 0; i < FLIGHTS; i++) {
        TRY(kern_event_open(&f->ring[i].begun, kern_queue_device(q)));
        TRY(kern_event_open(&f->ring[i].over, kern_queue_device(q)));
    }
    return KR_OK;
}

void flights_close(struct flights *f)
{
    for (int i = 0; i < FLIGHTS; i++) {
        kern_event_close(f->ring[i].begun);
        kern_event_close(f->ring[i].over);
    }
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->room);
}

kr_status flights_depart(struct flights *f, uint64_t number, const char *name)
{
    struct flight *x = &f->ring[f->departed % FLIGHTS];
    bool full;

    pthread_mutex_lock(&f->lock);
    while ((full = f->departed - f->done == FLIGHTS) && !f->closed)
        pthread_cond_wait(&f->room, &f->lock);
    pthread_mutex_unlock(&f->lock);
    if (full) return KR_ERR_COMM;
    x->number = number;
    x->name = name;
    x->since = 0;
    TRY(kern_event_record(x->begun, f->q));
    pthread_mutex_lock(&f->lock);
    f->departed++;
    pthread_mutex_unlock(&f->lock);
    return KR_OK;
}

kr_status flights_land(struct flights *f)
{
    kr_status st = kern_event_record(f->ring[f->landed % FLIGHTS].over, f->q);

    pthread_mutex_lock(&f->lock);
    f->landed++;
    pthread_mutex_unlock(&f->lock);
    return st;
}

bool flights_take(struct flights *f, struct flight *out)
{
    struct flight *x;
    bool is_over;

    pthread_mutex_lock(&f->lock);
    x = &f->ring[f->done % FLIGHTS];
    is_over = f->done < f->landed && kern_event_reached(x->over);
    if (is_over) {
        *out = *x;
        f->done++;
        pthread_cond_signal(&f->room);
    }
    pthread_mutex_unlock(&f->lock);
    return is_over;
}

bool flights_oldest(struct flights *f, struct flight *out, double *seconds)
{
    struct flight *x;
    bool any;

    pthread_mutex_lock(&f->lock);
    x = &f->ring[f->done % FLIGHTS];
    any = f->done < f->departed;
    if (any && x->since == 0 && kern_event_reached(x->begun)) x->since = clock_now();
    if (any) {
        *out = *x;
        *seconds = x->since > 0 ? clock_now() - x->since : 0;
    }
    pthread_mutex_unlock(&f->lock);
    return any;
}

void flights_give_up(struct flights *f)
{
    pthread_mutex_lock(&f->lock);
    f->closed = true;
    pthread_cond_broadcast(&f->room);
    pthread_mutex_unlock(&f->lock);
}
