#include "simd.h"

// What every CPU of the architecture has: SSE2 on x86-64, NEON on AArch64.
#define ZSD_SIMD base
#define ZSD_WIDTH 4
#if defined(__aarch64__)
#define ZSD_ROWS 12  // 32 vector registers: 24 hold a tile
constexpr char kName[] = "neon";
#elif defined(__x86_64__)
#define ZSD_ROWS 4
constexpr char kName[] = "sse2";
#else
#define ZSD_ROWS 4
constexpr char kName[] = "portable";
#endif
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdBase = base::table(kName);

}  // namespace zsd
