/*
 * backend.h - what a back end provides.  For kernels/ itself; callers use device.h.
 *
 * A host back end (cpu, cpu64, cpu16, guard) shares queues, events and copies of host.c and
 * brings a table of operations and, if it wants, its own memory and a gate that opens
 * and closes it around every operation.  A GPU back end brings all of them.
 */
#ifndef KERN_BACKEND_H
#define KERN_BACKEND_H

#include "kernels/kernels.h"

struct kern_backend {
    const char *name;
    enum kern_dtype type, wide; /* device.h */
    bool is_host;
    const struct kern_ops *ops;
    kr_status (*open)(void **state, int local_rank, int threads); /* opt */
    void (*close)(void *state);                                   /* opt */
    const char *(*describe)(void *state);
    kr_status (*memory)(int local_rank, struct kern_memory *out); /* opt: not known */
    size_t staging;                                               /* kern_kind */
    size_t (*scratch)(enum kern_dtype type, const struct kern_whose *whose,
                      const struct kern_call *call); /* opt: operations need none */
    /* opt, all: whose kernels compute, see kern_device_matmul and below it */
    kr_status (*set_matmul)(void *state, enum kern_matmul whose);
    kr_status (*set_hopper)(void *state, enum kern_dtype type, enum kern_hopper when);
    const char *(*kernels)(void *state);
    kr_status (*alloc)(void *state, void **at, size_t bytes, const char *what);
    void (*free)(void *state, void *at);
    /* opt, both: ordinary memory */
    kr_status (*alloc_host)(void *state, void **at, size_t bytes, const char *what);
    void (*free_host)(void *state, void *at);
    /* opt: called around every operation, copy and host call; may nest and may come from
     * several threads */
    void (*enter)(void *state);
    void (*leave)(void *state);

    /* Queues and events. */
    kr_status (*queue_open)(void *state, void **stream, enum kern_queue_kind kind);
    void (*queue_close)(void *stream);
    kr_status (*upload)(void *stream, void *device, const void *host, size_t bytes);
    kr_status (*download)(void *stream, void *host, const void *device, size_t bytes);
    kr_status (*call)(void *stream, kern_host_fn fn, const void *arg, size_t bytes);
    kr_status (*sync)(void *stream);
    void (*fail)(void *stream, kr_status st);
    void *(*native)(void *stream, int *device); /* opt */
    double (*stalled)(void *stream);
    kr_status (*event_open)(void *state, void **event);
    void (*event_close)(void *event);
    kr_status (*event_record)(void *event, void *stream);
    bool (*event_reached)(void *event);
    kr_status (*event_wait)(void *event, void *stream);
};

extern const struct kern_backend kern_cpu_backend, kern_cpu64_backend, kern_cpu16_backend,
    kern_guard_backend, kern_cuda_backend, kern_cuda32_backend;

/* Those of this program, the default first, then NULL; the Makefile picks the file. */
extern const struct kern_backend *const kern_backends[];

#endif
