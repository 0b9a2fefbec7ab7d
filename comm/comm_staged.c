/*
 * comm_staged.c - collectives of GPUs over a link that knows host memory only.
 *
 * All of it is in the order of the stream: copies out, a host call, copies back.  So one
 * pinned block serves all collectives one after the other.
 */
#include "base/mem.h"
#include "comm/comm_parts.h"

struct comm_stage {
    struct kern_queue *q;
    struct kern_device *device;
    void *room; /* pinned */
    int64_t bytes;
};

kr_status comm_stage_open(struct comm_stage **out, struct kern_queue *q)
{
    TRY(mem_alloc(out, 1, sizeof **out, "host copies"));
    (*out)->q = q;
    (*out)->device = kern_queue_device(q);
    return KR_OK;
}

void comm_stage_close(struct comm_stage *s)
{
    if (s) kern_free_host(s->device, s->room);
    mem_free(s);
}

static kr_status make_room(struct comm_stage *s, int64_t bytes)
{
    if (bytes <= s->bytes) return KR_OK;
    TRY(kern_queue_sync(s->q)); /* it is in use */
    kern_free_host(s->device, s->room);
    s->room = NULL;
    s->bytes = 0;
    TRY(kern_alloc_host(s->device, &s->room, (size_t)bytes,
                        "host copies of a collective"));
    s->bytes = bytes;
    return KR_OK;
}

/* Each operand in a place of its own, so that those that overlap do not matter. */
static int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

kr_status comm_stage_work(struct comm_stage *s, struct work *w, size_t bytes,
                          const struct comm_operand *o, int count)
{
    void *device[COMM_OPERANDS];
    int64_t room = 0, used = 0;

    for (int i = 0; i < count; i++)
        room += padded(o[i].bytes);
    TRY(make_room(s, room));
    for (int i = 0; i < count; i++) {
        device[i] = *o[i].at;
        *o[i].at = (char *)s->room + used;
        used += padded(o[i].bytes);
        if (o[i].is_in) TRY(kern_download(s->q, *o[i].at, device[i], (size_t)o[i].bytes));
    }
    TRY(kern_queue_call(s->q, comm_work_run, w, bytes));
    for (int i = 0; i < count; i++)
        if (o[i].is_out) TRY(kern_upload(s->q, device[i], *o[i].at, (size_t)o[i].bytes));
    return KR_OK;
}
