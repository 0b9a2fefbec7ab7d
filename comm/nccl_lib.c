/* nccl_lib.c - a table of the library's functions. */
#include "comm/nccl_lib.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char way_out[] = "install it, name its folder in LD_LIBRARY_PATH, or set "
                              "dist.comm = mpi (slower, through host memory)";

/* Non-blocking groups and registered buffers are of 2.19. */
enum { OLDEST = 21900 };

static kr_status find(void *library, const char *name, void *pointer)
{
    void *at = dlsym(library, name);

    if (!at) return KR_FAIL(KR_ERR_DEVICE, "libnccl.so.2 has no %s: %s", name, way_out);
    memcpy(pointer, &at, sizeof at);
    return KR_OK;
}

static kr_status check_version(struct nccl *n)
{
    int v = 0;

    if (n->GetVersion(&v) != ncclSuccess) v = 0;
    snprintf(n->version, sizeof n->version, "%d.%d.%d", v / 10000, v / 100 % 100,
             v % 100);
    if (v >= OLDEST) return KR_OK;
    return KR_FAIL(KR_ERR_DEVICE,
                   "NCCL %s is too old, several GPUs need 2.19 or newer: %s", n->version,
                   way_out);
}

kr_status nccl_open(struct nccl *out)
{
    struct nccl n = { 0 };
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return KR_FAIL(KR_ERR_DEVICE, "several GPUs need NCCL: %s; %s", dlerror(),
                       way_out);
#define NCCL_FIND(name) TRY(find(library, "nccl" #name, &n.name));
    NCCL_CALLS(NCCL_FIND)
#undef NCCL_FIND
    TRY(check_version(&n));
    *out = n;
    return KR_OK;
}
