#include "simd.h"

#define ZSD_SIMD neon_dot
#define ZSD_WIDTH 4
#define ZSD_ROWS 12  // 32 vector registers: 24 hold a tile
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdNeonDot = neon_dot::table("neon_dot");

}  // namespace zsd
