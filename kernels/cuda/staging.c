/* staging.c - a ring of pinned pieces. */
#include "kernels/cuda/staging.h"

#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

_Static_assert(STAGING_PIECES *STAGING_PIECE == STAGING_BYTES, "what a queue takes");

struct piece {
    void *at;            /* pinned, STAGING_PIECE */
    cudaEvent_t is_free; /* reached when the copy that used it last is over */
    void *to;            /* of the download under way */
    size_t bytes;
};

struct staging {
    struct piece pieces[STAGING_PIECES];
    int next;
};

kr_status staging_open(struct staging **out)
{
    return mem_alloc(out, 1, sizeof **out, "staging");
}

void staging_close(struct staging *s)
{
    for (int i = 0; s && i < STAGING_PIECES; i++) {
        if (s->pieces[i].is_free) (void)cudaEventDestroy(s->pieces[i].is_free);
        if (s->pieces[i].at) (void)cudaFreeHost(s->pieces[i].at);
    }
    mem_free(s);
}

/* The next piece, once its last copy is over. */
static cudaError_t take(struct staging *s, struct piece **out)
{
    struct piece *p = &s->pieces[s->next];
    cudaError_t e = cudaSuccess;

    if (!p->is_free) e = cudaEventCreateWithFlags(&p->is_free, cudaEventDisableTiming);
    if (e == cudaSuccess && !p->at)
        e = cudaHostAlloc(&p->at, STAGING_PIECE, cudaHostAllocDefault);
    if (e == cudaSuccess) e = cudaEventSynchronize(p->is_free);
    if (e != cudaSuccess) return e;
    s->next = (s->next + 1) % STAGING_PIECES;
    *out = p;
    return cudaSuccess;
}

static bool is_pinned(const void *host)
{
    struct cudaPointerAttributes a;
    bool pinned =
        cudaPointerGetAttributes(&a, host) == cudaSuccess && a.type == cudaMemoryTypeHost;

    (void)cudaGetLastError();
    return pinned;
}

static cudaError_t upload_piece(struct staging *s, cudaStream_t stream, void *device,
                                const void *host, size_t bytes)
{
    struct piece *p;
    cudaError_t e = take(s, &p);

    if (e != cudaSuccess) return e;
    memcpy(p->at, host, bytes);
    e = cudaMemcpyAsync(device, p->at, bytes, cudaMemcpyHostToDevice, stream);
    return e == cudaSuccess ? cudaEventRecord(p->is_free, stream) : e;
}

static void CUDART_CB copy_out(void *arg)
{
    struct piece *p = arg;

    memcpy(p->to, p->at, p->bytes);
}

static cudaError_t download_piece(struct staging *s, cudaStream_t stream, void *host,
                                  const void *device, size_t bytes)
{
    struct piece *p;
    cudaError_t e = take(s, &p);

    if (e != cudaSuccess) return e;
    p->to = host;
    p->bytes = bytes;
    e = cudaMemcpyAsync(p->at, device, bytes, cudaMemcpyDeviceToHost, stream);
    if (e == cudaSuccess) e = cudaLaunchHostFunc(stream, copy_out, p);
    return e == cudaSuccess ? cudaEventRecord(p->is_free, stream) : e;
}

cudaError_t staging_upload(struct staging *s, cudaStream_t stream, void *device,
                           const void *host, size_t bytes)
{
    cudaError_t e = cudaSuccess;

    if (is_pinned(host))
        return cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream);
    for (size_t at = 0; at < bytes && e == cudaSuccess; at += STAGING_PIECE)
        e = upload_piece(s, stream, (char *)device + at, (const char *)host + at,
                         bytes - at < STAGING_PIECE ? bytes - at : STAGING_PIECE);
    return e;
}

cudaError_t staging_download(struct staging *s, cudaStream_t stream, void *host,
                             const void *device, size_t bytes)
{
    cudaError_t e = cudaSuccess;

    if (is_pinned(host))
        return cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream);
    for (size_t at = 0; at < bytes && e == cudaSuccess; at += STAGING_PIECE)
        e = download_piece(s, stream, (char *)host + at, (const char *)device + at,
                           bytes - at < STAGING_PIECE ? bytes - at : STAGING_PIECE);
    return e;
}
