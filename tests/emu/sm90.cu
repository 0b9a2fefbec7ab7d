/*
 * sm90.cu - the emulated GPU as a Hopper: kernels launched in clusters run on the machine of
 * tests/sm90, and the driver makes tensor maps, if they are such as the real one makes.
 */
#include "tests/emu/cuda.h"
#include "tests/emu/parts.h"
#include "tests/sm90/machine.h"

/* ---- launches ------------------------------------------------------------------------- */

void emu_run_clusters(int grid, int cluster, int threads, int shared,
                      const std::function<void()> &body)
{
    const long early = emu_setting("EMU_ORDER", 0);

    machine.late_copies = !(early & 1);
    machine.late_products = !(early & 2);
    if (!machine_run(grid, cluster, threads, (uint32_t)shared, body))
        emu_fail("a kernel of Hopper's broke the rules");
}

/* ---- the driver ----------------------------------------------------------------------- */

/* What the driver demands of a map of bf16, 128-byte swizzled (CUDA driver API reference,
 * cuTensorMapEncodeTiled). */
static bool is_legal(cuuint32_t rank, const void *at, const cuuint64_t *dims,
                     const cuuint64_t *strides, const cuuint32_t *box,
                     const cuuint32_t *each)
{
    cuuint64_t below = dims[0] * 2;

    if (rank < 2 || rank > 3 || (uintptr_t)at % 16 || box[0] * 2 > 128) return false;
    for (cuuint32_t i = 0; i < rank; i++) {
        if (dims[i] < 1 || dims[i] > (cuuint64_t)1 << 32) return false;
        if (box[i] < 1 || box[i] > 256 || each[i] != 1) return false;
        if (i == 0) continue;
        if (strides[i - 1] % 16 || strides[i - 1] >= (cuuint64_t)1 << 40 ||
            strides[i - 1] < below)
            return false;
        if (i > 1 && strides[i - 1] % strides[i - 2]) return false;
        below = strides[i - 1] * dims[i];
    }
    return box[0] * 2 % 16 == 0;
}

static CUresult encode(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank,
                       void *at, const cuuint64_t *dims, const cuuint64_t *strides,
                       const cuuint32_t *box, const cuuint32_t *each,
                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
    struct tensor_box b = {};

    if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || (uintptr_t)out % 64 ||
        interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        swizzle != CU_TENSOR_MAP_SWIZZLE_128B ||
        fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || box[0] != PANEL_COLS ||
        !is_legal(rank, at, dims, strides, box, each))
        return CUDA_ERROR_INVALID_VALUE;
    b.at = at;
    b.rank = (int32_t)rank;
    b.cols = dims[0];
    b.rows = dims[1];
    b.depth = rank > 2 ? dims[2] : 1;
    b.row_bytes = strides[0];
    b.depth_bytes = rank > 2 ? strides[1] : 0;
    b.box_rows = box[1];
    *out = b;
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **at, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult *found)
{
    const bool known = strcmp(symbol, "cuTensorMapEncodeTiled") == 0;

    *at = known ? (void *)encode : NULL;
    *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
