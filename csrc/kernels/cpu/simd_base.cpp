#include "simd.h"

// What every CPU of the architecture has: SSE2 on x86-64, NEON on AArch64.
#define ZSD_SIMD base
#define ZSD_WIDTH 4
#if defined(__aarch64__)
#define ZSD_ROWS 12  // 32 vector registers: 24 hold a tile
#else
#define ZSD_ROWS 4
#endif
#include "simd.inl"

namespace zsd {

#if defined(__aarch64__)
constexpr char kName[] = "neon";
#elif defined(__x86_64__)
constexpr char kName[] = "sse2";
#else
constexpr char kName[] = "portable";
#endif

const SimdKernels kSimdBase = {kName,
                               base::W,
                               base::MR,
                               base::NR,
                               base::pack_products,
                               base::mlp_tiles,
                               base::cells_to_planes,
                               base::planes_to_cells,
                               base::roi_forward,
                               base::roi_backward};

}  // namespace zsd
