/*
 * nccl_lib.h - NCCL, opened at run time: a program starts without it, and one GPU never
 * asks for it.  With nccl_lib.c the only file that knows nccl.h.
 */
#ifndef COMM_NCCL_LIB_H
#define COMM_NCCL_LIB_H

#include <nccl.h>

#include "base/status.h"

/* Every call that is used. */
/* clang-format off */
#define NCCL_CALLS(X)                                                              \
    X(GetVersion) X(GetUniqueId) X(GetErrorString) X(GetLastError)                 \
    X(CommInitRankConfig) X(CommGetAsyncError) X(CommFinalize) X(CommDestroy)      \
    X(CommAbort) X(CommRegister) X(CommDeregister) X(GroupStart) X(GroupEnd)       \
    X(Send) X(Recv) X(AllReduce) X(ReduceScatter) X(AllGather) X(Broadcast)
/* clang-format on */

struct nccl {
#define NCCL_POINTER(name) __typeof__(nccl##name) *name;
    NCCL_CALLS(NCCL_POINTER)
#undef NCCL_POINTER
    char version[32]; /* "2.28.9" */
};

/* [local] libnccl.so.2, for as long as the process lives.  KR_ERR_DEVICE: it is missing or
 * too old. */
kr_status nccl_open(struct nccl *out);

#endif
