/* device.c - front of device.h: a table of back ends. */
#include "kernels/device.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/backend.h"
#include "kernels/handles.h"

static const struct kern_backend *find(const char *name)
{
    for (int i = 0; kern_backends[i]; i++)
        if (strcmp(kern_backends[i]->name, name) == 0) return kern_backends[i];
    return NULL;
}

const char *kern_device_default(void) { return kern_backends[0]->name; }

/* "cpu, cpu64 and guard" */
static void list(char *out, size_t size)
{
    size_t len = 0;

    for (int i = 0; kern_backends[i] && len < size; i++)
        len += (size_t)snprintf(out + len, size - len, "%s%s",
                                i == 0                 ? ""
                                : kern_backends[i + 1] ? ", "
                                                       : " and ",
                                kern_backends[i]->name);
}

kr_status kern_device_check(const char *name)
{
    char names[128] = "";

    if (find(name)) return KR_OK;
    list(names, sizeof names);
    return KR_FAIL(KR_ERR_ARG, "run.device = %s: this program has %s", name, names);
}

kr_status kern_device_kind(const char *name, struct kern_kind *out)
{
    const struct kern_backend *back = find(name);

    if (!back) return kern_device_check(name);
    *out = (struct kern_kind){ back->type, back->wide, back->is_host, back->staging };
    return KR_OK;
}

kr_status kern_device_scratch(const char *name, const struct kern_whose *whose,
                              const struct kern_call *call, size_t *out)
{
    const struct kern_backend *back = find(name);

    if (!back) return kern_device_check(name);
    *out = back->scratch ? back->scratch(back->type, whose, call) : 0;
    return KR_OK;
}

kr_status kern_device_memory(const char *name, int local_rank, struct kern_memory *out)
{
    const struct kern_backend *back = find(name);

    if (!back) return kern_device_check(name);
    if (back->memory) return back->memory(local_rank, out);
    *out = (struct kern_memory){ 0 };
    return KR_OK;
}

kr_status kern_device_open(struct kern_device **out, const char *name, int local_rank,
                           int threads)
{
    const struct kern_backend *back = find(name);
    struct kern_device *d = NULL;
    kr_status st = KR_OK;

    if (!back) return kern_device_check(name);
    TRY(mem_alloc(&d, 1, sizeof *d, "device"));
    d->back = back;
    if (back->open) st = back->open(&d->state, local_rank, threads);
    if (st == KR_OK)
        *out = d;
    else
        mem_free(d);
    return st;
}

void kern_device_close(struct kern_device *d)
{
    if (!d) return;
    if (d->back->close) d->back->close(d->state);
    mem_free(d);
}

const char *kern_device_name(const struct kern_device *d) { return d->back->name; }
enum kern_dtype kern_device_type(const struct kern_device *d) { return d->back->type; }
enum kern_dtype kern_device_wide(const struct kern_device *d) { return d->back->wide; }
bool kern_device_is_host(const struct kern_device *d) { return d->back->is_host; }
const char *kern_device_describe(const struct kern_device *d)
{
    return d->back->describe(d->state);
}

kr_status kern_device_matmul(struct kern_device *d, enum kern_matmul whose)
{
    return d->back->set_matmul ? d->back->set_matmul(d->state, whose) : KR_OK;
}

kr_status kern_device_hopper(struct kern_device *d, enum kern_hopper when)
{
    return d->back->set_hopper ? d->back->set_hopper(d->state, d->back->type, when)
                               : KR_OK;
}

const char *kern_device_kernels(const struct kern_device *d)
{
    return d->back->kernels ? d->back->kernels(d->state) : NULL;
}

kr_status kern_alloc(struct kern_device *d, void *out, size_t bytes, const char *what)
{
    void *at = NULL;

    if (bytes) TRY(d->back->alloc(d->state, &at, bytes, what));
    memcpy(out, &at, sizeof at);
    return KR_OK;
}

void kern_free(struct kern_device *d, void *at)
{
    if (at) d->back->free(d->state, at);
}

kr_status kern_alloc_host(struct kern_device *d, void *out, size_t bytes,
                          const char *what)
{
    void *at = NULL;

    if (!d->back->alloc_host) return mem_alloc(out, bytes, 1, what);
    if (bytes) TRY(d->back->alloc_host(d->state, &at, bytes, what));
    memcpy(out, &at, sizeof at);
    return KR_OK;
}

void kern_free_host(struct kern_device *d, void *at)
{
    if (!at) return;
    if (d->back->free_host)
        d->back->free_host(d->state, at);
    else
        mem_free(at);
}

kr_status kern_queue_open(struct kern_queue **out, struct kern_device *d,
                          enum kern_queue_kind kind)
{
    struct kern_queue *q = NULL;
    kr_status st;

    TRY(mem_alloc(&q, 1, sizeof *q, "queue"));
    q->device = d;
    st = d->back->queue_open(d->state, &q->stream, kind);
    if (st == KR_OK)
        *out = q;
    else
        mem_free(q);
    return st;
}

void kern_queue_close(struct kern_queue *q)
{
    if (!q) return;
    q->device->back->queue_close(q->stream);
    mem_free(q);
}

struct kern_device *kern_queue_device(const struct kern_queue *q) { return q->device; }

kr_status kern_upload(struct kern_queue *q, void *device, const void *host, size_t bytes)
{
    return bytes ? q->device->back->upload(q->stream, device, host, bytes) : KR_OK;
}

kr_status kern_download(struct kern_queue *q, void *host, const void *device,
                        size_t bytes)
{
    return bytes ? q->device->back->download(q->stream, host, device, bytes) : KR_OK;
}

kr_status kern_queue_call(struct kern_queue *q, kern_host_fn fn, const void *arg,
                          size_t arg_bytes)
{
    return q->device->back->call(q->stream, fn, arg, arg_bytes);
}

kr_status kern_queue_sync(struct kern_queue *q)
{
    return q->device->back->sync(q->stream);
}

void kern_queue_fail(struct kern_queue *q, kr_status st)
{
    q->device->back->fail(q->stream, st);
}

void *kern_queue_native(struct kern_queue *q, int *device)
{
    return q->device->back->native ? q->device->back->native(q->stream, device) : NULL;
}

double kern_queue_stalled(struct kern_queue *q)
{
    return q->device->back->stalled(q->stream);
}

kr_status kern_event_open(struct kern_event **out, struct kern_device *d)
{
    struct kern_event *e = NULL;
    kr_status st;

    TRY(mem_alloc(&e, 1, sizeof *e, "event"));
    e->device = d;
    st = d->back->event_open(d->state, &e->event);
    if (st == KR_OK)
        *out = e;
    else
        mem_free(e);
    return st;
}

void kern_event_close(struct kern_event *e)
{
    if (!e) return;
    e->device->back->event_close(e->event);
    mem_free(e);
}

kr_status kern_event_record(struct kern_event *e, struct kern_queue *q)
{
    return e->device->back->event_record(e->event, q->stream);
}

bool kern_event_reached(struct kern_event *e)
{
    return e->device->back->event_reached(e->event);
}

kr_status kern_event_wait(struct kern_event *e, struct kern_queue *q)
{
    return e->device->back->event_wait(e->event, q->stream);
}
