/*
 * cuda.h - shared by the files of the CUDA back end; C and CUDA C++ include it.
 *
 * One process drives one GPU.  A stream (the `void *stream` of a table's entries) is a
 * struct cuda_stream: a CUDA stream with scratch, pinned staging and a status.
 *
 * Errors.  Whatever fails on a stream is one line with the operation's name; the first
 * failure sticks to the stream, later work on it is not launched.  A kernel that dies
 * while it runs is noticed at the next synchronisation, which names the newest operation
 * that was launched: the culprit is that one or one before.  KILORANK_CUDA_SYNC=1 waits
 * after every operation, so that the line names the culprit itself.
 */
#ifndef KERN_CUDA_H
#define KERN_CUDA_H

#include <cuda_runtime_api.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_STREAMS = 32 }; /* of one device; bits of a mask */

struct cuda_gpu;    /* state of a device */
struct cuda_stream; /* state of a queue */
struct cuda_blas;   /* cublas.h */

/* The CUDA stream, for launches. */
cudaStream_t cuda_handle(void *stream);

/* Multiprocessors and compute capability (major * 10 + minor) of the stream's GPU. */
int cuda_sms(void *stream);
int cuda_capability(void *stream);

/* The vendor's library if kernels.matmul = cublas, else NULL. */
struct cuda_blas *cuda_blas_of(void *stream);

/* Are kernels for Hopper in use?  (kernels.hopper) */
bool cuda_hopper(void *stream);

/* Is the stream fit for work?  Its sticky status, without a line. */
kr_status cuda_ready(void *stream);

/* Call after launching: turns what went wrong into the stream's status. */
kr_status cuda_ran(void *stream, const char *operation);

/* Device memory that lives until the next call on this stream; grows, never shrinks.
 * Growing waits for the stream, so it happens in the first step only.  Whoever asks says
 * how much in a function of ops.h as well, which the memory plan reads. */
kr_status cuda_scratch(void *stream, void *out, size_t bytes);

/* For measuring what order costs: Hopper's backward of attention adds dQ up as tiles come,
 * with other bits every time. */
extern bool cuda_attention_any_order;

/* ---- between backend.c, queue.c and staging.c ---------------------------------------- */

/* Slots hold the status of streams and outlive them, so an event may refer to one. */
int cuda_slot_take(struct cuda_gpu *g); /* -1: all taken */
void cuda_slot_give(struct cuda_gpu *g, int slot);
kr_status cuda_slot_status(struct cuda_gpu *g, int slot);
/* Keep st if nothing failed there before; true if it was the first. */
bool cuda_slot_fail(struct cuda_gpu *g, int slot, kr_status st);

int cuda_device_of(const struct cuda_gpu *g);
bool cuda_waits_always(const struct cuda_gpu *g); /* KILORANK_CUDA_SYNC=1 */
void cuda_facts(const struct cuda_gpu *g, int *sms, int *capability);
struct cuda_blas *cuda_gpu_blas(const struct cuda_gpu *g);
bool cuda_gpu_hopper(const struct cuda_gpu *g);

/* KR_ERR_MEM with what was asked for and what is free, or the device's error. */
kr_status cuda_no_memory(const struct cuda_gpu *g, cudaError_t e, size_t bytes,
                         const char *what);

kr_status cuda_queue_open(void *state, void **stream, enum kern_queue_kind kind);
void cuda_queue_close(void *stream);
kr_status cuda_upload(void *stream, void *device, const void *host, size_t bytes);
kr_status cuda_download(void *stream, void *host, const void *device, size_t bytes);
kr_status cuda_call(void *stream, kern_host_fn fn, const void *arg, size_t bytes);
kr_status cuda_sync(void *stream);
void cuda_fail(void *stream, kr_status st);
void *cuda_native(void *stream, int *device);
double cuda_stalled(void *stream);
kr_status cuda_event_open(void *state, void **event);
void cuda_event_close(void *event);
kr_status cuda_event_record(void *event, void *stream);
bool cuda_event_reached(void *event);
kr_status cuda_event_wait(void *event, void *stream);

#ifdef __cplusplus
}
#endif
#endif
