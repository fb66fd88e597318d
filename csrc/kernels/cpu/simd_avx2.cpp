#include "simd.h"

#define ZSD_SIMD avx2
#define ZSD_WIDTH 8
#define ZSD_ROWS 6  // 16 vector registers: 12 hold a tile
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdAvx2 = avx2::table("avx2");

}  // namespace zsd
