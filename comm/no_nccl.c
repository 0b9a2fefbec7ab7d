/* no_nccl.c - takes the place of comm_nccl.c where the program is built without nccl.h. */
#include "comm/backend.h"

kr_status comm_nccl_open(struct comm_link **out, struct comm_link *host,
                         struct kern_queue *q, const struct comm_listener *listener)
{
    (void)out, (void)q, (void)listener;
    if (host->rank != 0) return KR_ERR_DEVICE; /* rank 0 says it */
    return KR_FAIL(KR_ERR_DEVICE, "this program was built without NCCL (no nccl.h, see "
                                  "`make info`), so GPUs meet through host memory only: "
                                  "set dist.comm = mpi");
}
