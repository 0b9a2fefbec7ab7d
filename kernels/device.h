/*
 * device.h - where arithmetic happens: memory, queues, events.
 *
 * Devices, by name:
 *   "cpu"    the everyday CPU back end, fp32
 *   "cpu64"  the same source text in double precision, for tests of gradients
 *   "guard"  cpu, but its memory is unreadable outside a kernel and filled with NaN when
 *            fresh: a trainer that peeks at device memory crashes on any laptop
 *   "cpu16"  cpu over bf16 storage: slow, and exact; the reference of mixed precision
 *   "cuda"   the GPU numbered by the local rank, bf16
 *   "cuda32" the same, fp32
 *
 * Types.  A device has two.  `type` is that of weights, activations, logits and their
 * gradients; `wide` is that of what must not lose digits: gradients of weights, master
 * weights, moments, statistics of norms, log sums of attention, losses, rope table.
 * fp32/fp32 for cpu, guard and cuda32, fp64/fp64 for cpu64, bf16/fp32 for cpu16 and cuda.
 *
 * Work is enqueued on queues and runs in order within one; events order queues among
 * each other.  The compute queue of a CPU device runs each call at once, on the calling
 * thread; a background queue is a thread, so that communication overlaps computation
 * there as it does on a GPU.  Background queues of CPU devices carry copies and host
 * calls, no kernels.
 *
 * Marks: [queued] runs in the order of the queue: its operands must stay as they are
 * until the queue has passed it.  [local] at once.
 *
 * Errors of queued work stick to the queue: the first one is returned by every later
 * kern_queue_sync of that queue and by waits for its events.
 */
#ifndef KERN_DEVICE_H
#define KERN_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum kern_dtype { KERN_F32, KERN_F64, KERN_BF16 };

static inline size_t kern_dtype_bytes(enum kern_dtype t)
{
    return t == KERN_F64 ? 8 : t == KERN_F32 ? 4 : 2;
}

struct kern_device; /* opaque */
struct kern_queue;  /* opaque; belongs to a device */
struct kern_event;  /* opaque; belongs to a device */
struct kern_ops;    /* kernels.h */

enum kern_queue_kind { KERN_QUEUE_COMPUTE, KERN_QUEUE_BACKGROUND };

/* [local] The kind that run.device = auto means in this program. */
const char *kern_device_default(void);

/* [local] Is there such a kind of device in this program?  KR_ERR_ARG with one line. */
kr_status kern_device_check(const char *name);

/* What is known of a kind of device before one is opened.  staging: bytes of pinned host
 * memory that a queue takes at most for copies of other host memory. */
struct kern_kind {
    enum kern_dtype type, wide;
    bool is_host;
    size_t staging;
};
kr_status kern_device_kind(const char *name, struct kern_kind *out);

/* [local] Bytes that may still be taken from the memory of the device that local_rank gets;
 * 0: not known.  is_shared: by all ranks of the node. */
struct kern_memory {
    uint64_t total, available;
    bool is_shared;
};
kr_status kern_device_memory(const char *name, int local_rank, struct kern_memory *out);

/* [local] Open a device.  local_rank chooses among several of a kind; threads (>= 1) is
 * how many CPU threads kernels may use.  KR_ERR_ARG: no such kind in this program;
 * KR_ERR_DEVICE: there is none, or it is too old (the line says which). */
kr_status kern_device_open(struct kern_device **out, const char *name, int local_rank,
                           int threads);
void kern_device_close(struct kern_device *d); /* after all its queues; NULL is fine */

const char *kern_device_name(const struct kern_device *d); /* "cpu" */
const char *
kern_device_describe(const struct kern_device *d); /* processor, matmul library */
enum kern_dtype kern_device_type(const struct kern_device *d); /* weights, activations */
enum kern_dtype
kern_device_wide(const struct kern_device *d);         /* gradients of weights, moments */
bool kern_device_is_host(const struct kern_device *d); /* memory that MPI can read */

/* Whose kernels multiply matrices; the choices of a setting in the order of the enum. */
enum kern_matmul { KERN_MATMUL_OWN, KERN_MATMUL_CUBLAS };
#define KERN_MATMUL_CHOICES "own|cublas"

/* [local] From here on.  Devices with one choice only take either.  KR_ERR_DEVICE: the
 * library is missing. */
kr_status kern_device_matmul(struct kern_device *d, enum kern_matmul whose);

/* Kernels that only a Hopper GPU runs, for matrix products and attention: never, where the
 * device is one and computes in bf16, or refuse a device that is not. */
enum kern_hopper { KERN_HOPPER_OFF, KERN_HOPPER_AUTO, KERN_HOPPER_ON };
#define KERN_HOPPER_CHOICES "off|auto|on"

/* [local] From here on; off at first.  Devices that are no GPU take any.  KR_ERR_DEVICE:
 * another GPU, or its driver is too old. */
kr_status kern_device_hopper(struct kern_device *d, enum kern_hopper when);

/* The two choices above, before there is a device. */
struct kern_whose {
    enum kern_matmul matmul;
    enum kern_hopper hopper;
};

/* An operation of kernels.h and the shape that decides what it asks of its queue beside
 * its operands. */
enum kern_operation {
    KERN_CALL_MATMUL,        /* (rows, cols), over `inner`; its operands of the type */
    KERN_CALL_SUM_ROWS,      /* of (rows, cols): the gradient of a bias */
    KERN_CALL_NORM_BWD,      /* of (rows, cols), with dw */
    KERN_CALL_EMBED_BWD,     /* of (rows, cols) */
    KERN_CALL_ATTENTION_BWD, /* of `rows` tokens in sequences of `seq` */
    KERN_CALL_SUM,           /* of (1, cols) */
    KERN_CALL_CHECKSUM       /* of `cols` words of 8 bytes */
};
struct kern_call {
    enum kern_operation operation;
    int64_t rows, cols, inner;
    int64_t heads, head_dim, seq; /* attention: query heads */
};

/* [local] Bytes of device memory that a queue keeps for such calls: the largest of them.
 * What a kernel for Hopper asks for counts unless it is off: which GPU there will be is not
 * known.  KR_ERR_ARG: no such kind in this program. */
kr_status kern_device_scratch(const char *name, const struct kern_whose *whose,
                              const struct kern_call *call, size_t *out);

/* [local] "products by cuBLAS 13.1, attention by our kernels"; NULL: there is one choice,
 * and kern_device_describe says it. */
const char *kern_device_kernels(const struct kern_device *d);

/* [local] Device memory, aligned to at least 256 bytes.  The contents are unspecified
 * (guard: NaN).  bytes == 0 gives NULL. */
kr_status kern_alloc(struct kern_device *d, void *out, size_t bytes, const char *what);
void kern_free(struct kern_device *d, void *at);

/* [local] */
kr_status kern_queue_open(struct kern_queue **out, struct kern_device *d,
                          enum kern_queue_kind kind);
void kern_queue_close(struct kern_queue *q); /* drains it first; NULL is fine */
struct kern_device *kern_queue_device(const struct kern_queue *q);

/* [local] Host memory that copies reach without a detour (pinned, where there is a GPU). */
kr_status kern_alloc_host(struct kern_device *d, void *out, size_t bytes,
                          const char *what);
void kern_free_host(struct kern_device *d, void *at); /* NULL is fine */

/* [queued] Copies between host and device.  Host memory may be reused after a sync; what a
 * compute queue uploads, unless it is of kern_alloc_host, when kern_upload returns. */
kr_status kern_upload(struct kern_queue *q, void *device, const void *host, size_t bytes);
kr_status kern_download(struct kern_queue *q, void *host, const void *device,
                        size_t bytes);

/* [queued] Run a host function in the order of the queue.  `arg` bytes are copied.  While
 * it runs, host devices have their memory open, so it may read and write device memory
 * (this is how MPI reaches it).  A failure sticks to the queue. */
typedef kr_status (*kern_host_fn)(void *arg);
kr_status kern_queue_call(struct kern_queue *q, kern_host_fn fn, const void *arg,
                          size_t arg_bytes);

/* [local] Wait until the queue is empty; returns its first error. */
kr_status kern_queue_sync(struct kern_queue *q);

/* [local] Any thread: st is an error of work that q has (its line is written); the first
 * one sticks. */
void kern_queue_fail(struct kern_queue *q, kr_status st);

/* [local] For libraries that enqueue work themselves: the stream and the number of its
 * device (cudaStream_t, of the process).  NULL on a host device. */
void *kern_queue_native(struct kern_queue *q, int *device);

/* [local] Seconds this queue has stood still in kern_event_wait since it was opened. */
double kern_queue_stalled(struct kern_queue *q);

/* [local] An event that counts as already reached until first recorded. */
kr_status kern_event_open(struct kern_event **out, struct kern_device *d);
void kern_event_close(struct kern_event *e);
/* [queued] Reached when all work enqueued on q before has run; re-records. */
kr_status kern_event_record(struct kern_event *e, struct kern_queue *q);
/* [local] Any thread: has its newest recording been reached? */
bool kern_event_reached(struct kern_event *e);
/* [queued] q goes on only when e is reached.  Fails if the recording queue has failed. */
kr_status kern_event_wait(struct kern_event *e, struct kern_queue *q);

#ifdef __cplusplus
}
#endif
#endif
