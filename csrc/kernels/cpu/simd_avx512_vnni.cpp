#include "simd.h"

#define ZSD_SIMD avx512_vnni
#define ZSD_WIDTH 16
#define ZSD_ROWS 12  // 32 vector registers: 24 hold a tile
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdAvx512Vnni = avx512_vnni::table("avx512_vnni");

}  // namespace zsd
