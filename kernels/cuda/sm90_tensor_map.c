/*
 * sm90_tensor_map.c - boxes to tensor maps.  The driver makes them; its function is found
 * through the CUDA run time, so the program links no driver and starts without one.
 *
 * A map is made anew for each launch: it is arithmetic on the host, and so nothing has to be
 * kept, looked up, bounded or freed.
 */
#include "kernels/cuda/sm90_tensor_map.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <string.h>

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                              const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                              const cuuint32_t *, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion,
                              CUtensorMapFloatOOBfill);

static encode_fn encode; /* of the driver, the same for all GPUs */

kr_status tensor_map_start(void)
{
    enum cudaDriverEntryPointQueryResult found;
    void *at = NULL;

    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &at, 12000,
                                         cudaEnableDefault, &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess || !at)
        return KR_FAIL(KR_ERR_DEVICE,
                       "kernels.hopper: this NVIDIA driver makes no tensor "
                       "maps; update it, or set kernels.hopper = off");
    memcpy(&encode, &at, sizeof at); /* POSIX gives functions as object pointers */
    return KR_OK;
}

kr_status tensor_map_encode(struct CUtensorMap_st *out, struct tensor_box b)
{
    const cuuint64_t dims[] = { b.cols, b.rows, b.depth };
    const cuuint64_t strides[] = { b.row_bytes, b.depth_bytes };
    const cuuint32_t box[] = { PANEL_COLS, b.box_rows, 1 }, each[] = { 1, 1, 1 };
    CUresult e = encode(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)b.rank, b.at,
                        dims, strides, box, each, CU_TENSOR_MAP_INTERLEAVE_NONE,
                        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);

    if (e != CUDA_SUCCESS)
        return KR_FAIL(KR_ERR_DEVICE,
                       "the driver makes no tensor map of %llu x %llu x %llu elements, "
                       "rows %llu bytes apart, boxes of %u rows: error %d",
                       (unsigned long long)b.depth, (unsigned long long)b.rows,
                       (unsigned long long)b.cols, (unsigned long long)b.row_bytes,
                       b.box_rows, (int)e);
    return KR_OK;
}
