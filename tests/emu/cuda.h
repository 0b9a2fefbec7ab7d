/* cuda.h - what the back end uses of the driver, for the emulated GPU: tensor maps. */
#ifndef EMU_CUDA_H
#define EMU_CUDA_H

#include <stdint.h>

#ifdef __cplusplus
struct CUtensorMap_st; /* tests/sm90/machine.h has it */
#else
struct CUtensorMap_st {
    _Alignas(128) uint64_t opaque[16];
};
#endif
typedef struct CUtensorMap_st CUtensorMap;
typedef uint32_t cuuint32_t;
typedef uint64_t cuuint64_t;

typedef enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1 } CUresult;
typedef enum { CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9 } CUtensorMapDataType;
typedef enum { CU_TENSOR_MAP_INTERLEAVE_NONE = 0 } CUtensorMapInterleave;
typedef enum { CU_TENSOR_MAP_SWIZZLE_128B = 3 } CUtensorMapSwizzle;
typedef enum { CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3 } CUtensorMapL2promotion;
typedef enum { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0 } CUtensorMapFloatOOBfill;

#endif
