/*
 * shard_pages.c - weights of a unit, whole, for as long as the model computes with them.
 *
 * Stages 0 to 2 keep them.  Stage 3 gathers them into a page, and the next unit of the
 * pass into another, on the communication queue; a page is overwritten only after the
 * compute queue has passed its release.  A page that nobody holds still has its unit, so
 * the backward finds the last block where the forward left it.
 */
#include "trainer/run/shard_parts.h"

static struct page *find_page(struct shard *s, int unit)
{
    for (int i = 0; i < s->pages; i++)
        if (s->page[i].unit == unit) return &s->page[i];
    return NULL;
}

/* The page that nobody holds and that was gathered first; NULL if all are held. */
static struct page *oldest_page(struct shard *s)
{
    struct page *best = NULL;

    for (int i = 0; i < s->pages; i++) {
        struct page *p = &s->page[i];

        if (p->holds == 0 && (!best || p->number < best->number)) best = p;
    }
    return best;
}

static kr_status gather_into(struct shard *s, struct page *p, int unit)
{
    struct unit *u = &s->units[unit];
    struct kern_queue *queue = comm_queue(s->comm);

    p->unit = unit;
    p->number = ++s->numbers;
    TRY(kern_event_wait(p->used, queue));
    TRY(kern_event_wait(u->updated, queue));
    TRY(comm_all_gather(s->comm, u->w, p->at, u->chunk, s->type));
    return kern_event_record(p->gathered, queue);
}

/* Where the unit is or will be. */
static kr_status get_page(struct shard *s, int unit, struct page **out)
{
    struct page *p = find_page(s, unit);

    if (!p) {
        p = oldest_page(s);
        if (!p)
            return KR_FAIL(KR_ERR_ARG, "unit %d: more than %d units held at a time", unit,
                           s->pages);
        TRY(gather_into(s, p, unit));
    }
    *out = p;
    return KR_OK;
}

/* Note that the pass acquires `unit`; the one that came next last time, at the end the one
 * that the next pass will begin with, -1 if that is not known. */
static int follow(struct shard *s, int unit)
{
    struct trace *t = s->trace;

    if (t->at < t->len && t->unit[t->at] != unit) {
        t->len = t->at;
        t->whole = false;
    }
    if (t->at == SHARD_TRACE * s->count) return -1;
    t->unit[t->at++] = unit;
    if (t->at > t->len) t->len = t->at;
    if (t->at < t->len) return t->unit[t->at];
    return t->whole && s->passes > 0 ? t->unit[0] : -1;
}

static kr_status prefetch(struct shard *s, int unit)
{
    struct page *p = oldest_page(s);

    if (unit < 0 || find_page(s, unit) || !p) return KR_OK;
    return gather_into(s, p, unit);
}

kr_status shard_acquire(void *self, int unit, void **out)
{
    struct shard *s = self;
    struct page *p = NULL;

    if (!s->units[unit].paged) {
        TRY(kern_event_wait(s->units[unit].published, s->q));
        *out = s->units[unit].w;
        return KR_OK;
    }
    TRY(get_page(s, unit, &p));
    p->holds++;
    TRY(prefetch(s, follow(s, unit)));
    TRY(kern_event_wait(p->gathered, s->q));
    *out = p->at;
    return KR_OK;
}

void shard_release(void *self, int unit)
{
    struct shard *s = self;
    struct page *p = find_page(s, unit);

    /* a queue that failed is told by whatever it does next */
    if (p && --p->holds == 0) (void)kern_event_record(p->used, s->q);
}

kr_status shard_forget_pages(struct shard *s)
{
    for (int i = 0; i < s->pages; i++) {
        TRY(kern_event_wait(s->page[i].gathered, s->q));
        s->page[i].unit = -1;
    }
    return KR_OK;
}
