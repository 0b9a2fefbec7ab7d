/*
 * comm_host.c - collectives on host memory: small blocking ones, texts, queued messages.
 *
 * They run on the thread behind comm->talk, or before comm_bind on the caller's.
 */
#include <string.h>

#include "base/mem.h"
#include "comm/comm_parts.h"
#include "comm/patience.h"

/* One host collective, with the operands of all of them. */
struct host_call {
    struct comm *c;
    uint64_t number;
    const char *name;
    kr_status (*run)(struct comm_link *l, struct host_call *h);
    kr_status status; /* out */
    int32_t worst;    /* in and out */
    const void *mine;
    void *all;
    size_t bytes;
};

/* A group that agreed on a failure lives on; one that lost its peers does not. */
static void host_run(struct host_call *h)
{
    struct comm *c = h->c;

    h->status = comm_enter(c, c->link, h->number, h->name);
    if (h->status == KR_OK) {
        comm_tell_enter(c, c->link);
        h->status = h->run(c->link, h);
    }
    if (h->status == KR_ERR_COMM)
        c->dead = true;
    else
        comm_tell_leave(c, h->number, h->name);
}

static kr_status host_run_queued(void *arg)
{
    struct host_call *h = *(struct host_call **)arg;

    host_run(h);
    return h->status == KR_ERR_COMM ? KR_ERR_COMM : KR_OK;
}

static kr_status host_collective(struct host_call *h)
{
    struct comm *c = h->c;

    h->number = ++c->number;
    if (c->talk) {
        TRY(kern_queue_call(c->talk, host_run_queued, &h, sizeof h));
        TRY(kern_queue_sync(c->talk));
    } else {
        host_run(h);
    }
    return h->status;
}

static kr_status too_big(const char *name, size_t bytes)
{
    return KR_FAIL(KR_ERR_ARG, "%s: %zu bytes, more than 1 GiB", name, bytes);
}

static kr_status run_agree(struct comm_link *l, struct host_call *h)
{
    return l->ops->agree(l, &h->worst);
}

kr_status comm_agree(struct comm *c, kr_status mine)
{
    struct host_call h = { .c = c, .name = "agree", .run = run_agree, .worst = mine };

    TRY(host_collective(&h));
    return (kr_status)h.worst;
}

static kr_status run_share(struct comm_link *l, struct host_call *h)
{
    return l->ops->broadcast(l, h->all, (int64_t)h->bytes, 0);
}

kr_status comm_share(struct comm *c, void *at, size_t bytes)
{
    struct host_call h = {
        .c = c, .name = "share", .run = run_share, .all = at, .bytes = bytes
    };

    if (bytes > HOST_MAX) return too_big(h.name, bytes);
    return bytes ? host_collective(&h) : KR_OK;
}

static kr_status run_all_gather_bytes(struct comm_link *l, struct host_call *h)
{
    return l->ops->all_gather(l, h->mine, h->all, (int64_t)h->bytes);
}

kr_status comm_all_gather_bytes(struct comm *c, const void *mine, size_t bytes, void *all)
{
    struct host_call h = { .c = c,
                           .name = "all_gather_bytes",
                           .run = run_all_gather_bytes,
                           .mine = mine,
                           .all = all,
                           .bytes = bytes };

    if (bytes > HOST_MAX) return too_big(h.name, bytes);
    return bytes ? host_collective(&h) : KR_OK;
}

/* ---- texts ---------------------------------------------------------------------------- */

/* Inside a collective: does everyone have what the next message needs? */
static kr_status all_ready(struct comm_link *l, kr_status mine)
{
    int32_t worst = mine;

    TRY(l->ops->agree(l, &worst));
    return (kr_status)worst;
}

static kr_status run_share_text(struct comm_link *l, struct host_call *h)
{
    char **text = h->all, *copy = NULL;
    int64_t bytes = l->rank == 0 ? (int64_t)strlen(*text) + 1 : 0;
    kr_status st = KR_OK;

    TRY(l->ops->broadcast(l, &bytes, sizeof bytes, 0));
    if (bytes > HOST_MAX)
        return l->rank == 0 ? too_big(h->name, (size_t)bytes) : KR_ERR_ARG;
    if (l->rank != 0) st = mem_alloc(&copy, (size_t)bytes, 1, "text of rank 0");
    TRY_OR(st, all_ready(l, st), done);
    TRY_OR(st, l->ops->broadcast(l, l->rank == 0 ? *text : copy, bytes, 0), done);
    if (l->rank != 0) *text = copy;
done:
    if (st != KR_OK) mem_free(copy);
    return st;
}

kr_status comm_share_text(struct comm *c, char **text)
{
    struct host_call h = {
        .c = c, .name = "share_text", .run = run_share_text, .all = text
    };

    return host_collective(&h);
}

/* What gathering texts needs, on every rank; messages and block on rank 0. */
struct texts {
    int64_t *bytes; /* (size), with the NUL */
    struct comm_message *messages;
    char *block;
};

static kr_status texts_sizes(struct comm_link *l, struct texts *t, const char *mine,
                             int64_t *total)
{
    kr_status st =
        mem_alloc(&t->bytes, (size_t)l->size, sizeof *t->bytes, "sizes of texts");
    int64_t bytes = (int64_t)strlen(mine) + 1;

    TRY(all_ready(l, st));
    TRY(l->ops->all_gather(l, &bytes, t->bytes, sizeof bytes));
    *total = 0;
    for (int32_t r = 0; r < l->size && *total <= HOST_MAX; r++)
        *total += t->bytes[r];
    return KR_OK;
}

static kr_status texts_room(struct comm_link *l, struct texts *t, int64_t total)
{
    kr_status st = KR_OK;

    if (l->rank == 0) {
        st = mem_alloc(&t->messages, (size_t)l->size, sizeof *t->messages,
                       "texts of ranks");
        if (st == KR_OK) st = mem_alloc(&t->block, (size_t)total, 1, "texts of ranks");
    }
    return all_ready(l, st);
}

static kr_status texts_move(struct comm_link *l, struct texts *t, const char *mine)
{
    struct comm_message out = { .at = (void *)(uintptr_t)mine,
                                .bytes = t->bytes[l->rank],
                                .peer = 0,
                                .is_out = true };
    char *at = t->block;

    if (l->rank != 0) {
        TRY(l->ops->start(l, &out));
        return l->ops->wait(l, &out, 1);
    }
    memcpy(at, mine, (size_t)t->bytes[0]);
    for (int32_t r = 1; r < l->size; r++) {
        at += t->bytes[r - 1];
        t->messages[r] =
            (struct comm_message){ .at = at, .bytes = t->bytes[r], .peer = r };
        TRY(l->ops->start(l, &t->messages[r]));
    }
    return l->size > 1 ? l->ops->wait(l, t->messages + 1, l->size - 1) : KR_OK;
}

static kr_status run_gather_texts(struct comm_link *l, struct host_call *h)
{
    struct texts t = { 0 };
    char **all = h->all;
    int64_t total;
    kr_status st;

    TRY_OR(st, texts_sizes(l, &t, h->mine, &total), done);
    if (total > HOST_MAX) {
        st = l->rank == 0 ? too_big(h->name, (size_t)total) : KR_ERR_ARG;
        goto done;
    }
    TRY_OR(st, texts_room(l, &t, total), done);
    TRY_OR(st, texts_move(l, &t, h->mine), done);
    *all = t.block;
    t.block = NULL;
done:
    mem_free(t.bytes);
    mem_free(t.messages);
    mem_free(t.block);
    return st;
}

kr_status comm_gather_texts(struct comm *c, const char *mine, char **all)
{
    struct host_call h = {
        .c = c, .name = "gather_texts", .run = run_gather_texts, .mine = mine, .all = all
    };

    return host_collective(&h);
}

/* ---- messages ------------------------------------------------------------------------- */

static kr_status move_packets(struct comm_link *l, struct comm_message *m,
                              const struct comm_packet *list, int64_t count)
{
    int64_t used = 0;

    for (int64_t i = 0; i < count; i++) {
        const struct comm_packet *p = &list[i];

        if (p->bytes == 0) continue;
        m[used] = (struct comm_message){
            .at = p->at, .bytes = p->bytes, .peer = p->peer, .is_out = p->is_out
        };
        TRY(l->ops->start(l, &m[used++]));
    }
    return used ? l->ops->wait(l, m, used) : KR_OK;
}

/* A swap on its way through the queue. */
struct swap {
    struct comm *c;
    uint64_t number;
    const struct comm_packet *list;
    int64_t count;
};

static kr_status swap(const struct swap *s)
{
    struct comm *c = s->c;
    struct comm_message *m = NULL;
    double sent = c->link->sent;
    kr_status st;

    TRY(comm_enter(c, c->link, s->number, "swap"));
    TRY(comm_fault_before(&c->fault, c->link));
    comm_tell_enter(c, c->link);
    TRY(mem_alloc(&m, (size_t)s->count, sizeof *m, "messages"));
    st = move_packets(c->link, m, s->list, s->count);
    mem_free(m);
    if (st != KR_OK) return st;
    comm_tell_leave(c, s->number, "swap");
    comm_fault_after(&c->fault, c->link->sent - sent);
    c->bytes += (uint64_t)(c->link->sent - sent);
    return KR_OK;
}

/* Any failure ends the group, out of memory too: this rank is out of step. */
static kr_status run_swap(void *arg)
{
    const struct swap *s = arg;
    kr_status st = swap(s);

    if (st != KR_OK) s->c->dead = true;
    return st;
}

kr_status comm_swap(struct comm *c, const struct comm_packet *list, int64_t count)
{
    struct swap s = { .c = c, .list = list, .count = count };

    for (int64_t i = 0; i < count; i++)
        if (list[i].bytes < 0 || list[i].bytes > COMM_PACKET_MAX || list[i].peer < 0 ||
            list[i].peer >= comm_size(c) || list[i].peer == comm_rank(c))
            return KR_FAIL(KR_ERR_ARG, "swap: message of %lld bytes, peer %d of %d",
                           (long long)list[i].bytes, list[i].peer, comm_size(c));
    if (comm_size(c) == 1) return KR_OK;
    if (!c->talk) return KR_FAIL(KR_ERR_ARG, "swap: this group is not bound to a device");
    if (c->dead) return KR_ERR_COMM;
    s.number = ++c->number;
    return kern_queue_call(c->talk, run_swap, &s, sizeof s);
}

/* An event of a GPU, for a queue that is none of its streams. */
struct await {
    struct comm *c;
    struct kern_event *e;
};

static kr_status await(void *arg)
{
    const struct await *a = arg;
    struct patience p = patience();

    while (!a->c->dead && !kern_event_reached(a->e))
        if (!linger(&p, a->c->link->limit)) {
            a->c->dead = true;
            return KR_FAIL(KR_ERR_COMM,
                           "swap: a copy from the device took more than %g s",
                           a->c->link->limit);
        }
    return KR_OK;
}

kr_status comm_swap_after(struct comm *c, struct kern_event *e)
{
    struct await a = { c, e };

    if (!c->talk) return KR_OK; /* no swaps either */
    if (c->talk == c->queue) return kern_event_wait(e, c->queue);
    return kern_queue_call(c->talk, await, &a, sizeof a);
}

kr_status comm_swap_wait(struct comm *c)
{
    return c->talk ? kern_queue_sync(c->talk) : KR_OK;
}
