/*
 * host.h - queues, events and copies of the back ends whose memory is host memory.
 *
 * A compute queue runs each call at once on the calling thread.  A background queue is a
 * thread and a list of closures; it carries copies and host calls.  A queue that failed
 * skips later work but still reaches its events, marked as failed, so nobody hangs.
 */
#ifndef KERN_HOST_H
#define KERN_HOST_H

#include "kernels/backend.h"

/* Gate of a back end, called around work that touches device memory; both or none. */
struct host_gate {
    void (*enter)(void *state);
    void (*leave)(void *state);
};

/* The first member of every host back end's state. */
struct host_state {
    struct host_gate gate;
    int threads;
};

kr_status host_memory(int local_rank, struct kern_memory *out);
kr_status host_alloc(void *state, void **at, size_t bytes, const char *what);
void host_free(void *state, void *at);
kr_status host_queue_open(void *state, void **stream, enum kern_queue_kind kind);
void host_queue_close(void *stream);
kr_status host_upload(void *stream, void *device, const void *host, size_t bytes);
kr_status host_call(void *stream, kern_host_fn fn, const void *arg, size_t bytes);
kr_status host_download(void *stream, void *host, const void *device, size_t bytes);
kr_status host_sync(void *stream);
void host_fail(void *stream, kr_status st);
double host_stalled(void *stream);
kr_status host_event_open(void *state, void **event);
void host_event_close(void *event);
kr_status host_event_record(void *event, void *stream);
bool host_event_reached(void *event);
kr_status host_event_wait(void *event, void *stream);

/* Threads that kernels on this stream may use. */
int host_threads(void *stream);

/* The part of a struct kern_backend that all of them share. */
#define HOST_PART                                                                      \
    .memory = host_memory, .queue_open = host_queue_open,                              \
    .queue_close = host_queue_close, .upload = host_upload, .download = host_download, \
    .call = host_call, .sync = host_sync, .fail = host_fail, .stalled = host_stalled,  \
    .event_open = host_event_open, .event_close = host_event_close,                    \
    .event_record = host_event_record, .event_reached = host_event_reached,            \
    .event_wait = host_event_wait

#endif
