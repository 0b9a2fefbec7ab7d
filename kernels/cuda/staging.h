/*
 * staging.h - copies between a GPU and ordinary host memory, through a few pinned pages.
 *
 * The GPU copies only pinned memory without holding up the thread that asks.  Each queue
 * has a ring of pinned pieces; a copy takes as many as it needs, one after the other, and
 * the caller waits only when all are under way.  Memory that is pinned already is copied
 * directly.  Not for several threads on one queue.
 */
#ifndef KERN_CUDA_STAGING_H
#define KERN_CUDA_STAGING_H

#include <cuda_runtime_api.h>

#include "base/status.h"

struct staging; /* opaque */

enum { STAGING_PIECES = 4, STAGING_PIECE = 4 << 20, STAGING_BYTES = 16 << 20 };

kr_status staging_open(struct staging **out); /* takes no memory before the first copy */
void staging_close(struct staging *s); /* after the stream is empty; NULL is fine */

cudaError_t staging_upload(struct staging *s, cudaStream_t stream, void *device,
                           const void *host, size_t bytes);
cudaError_t staging_download(struct staging *s, cudaStream_t stream, void *host,
                             const void *device, size_t bytes);

#endif
