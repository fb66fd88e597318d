#include "simd.h"

#define ZSD_SIMD avx512
#define ZSD_WIDTH 16
#define ZSD_ROWS 12  // 32 vector registers: 24 hold a tile
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdAvx512 = avx512::table("avx512");

}  // namespace zsd
