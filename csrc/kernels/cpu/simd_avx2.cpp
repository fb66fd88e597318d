#include "simd.h"

#define ZSD_SIMD avx2
#define ZSD_WIDTH 8
#define ZSD_ROWS 6  // 16 vector registers: 12 hold a tile
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdAvx2 = {"avx2",
                               avx2::W,
                               avx2::MR,
                               avx2::NR,
                               avx2::pack_products,
                               avx2::mlp_tiles,
                               avx2::cells_to_planes,
                               avx2::planes_to_cells,
                               avx2::roi_forward,
                               avx2::roi_backward};

}  // namespace zsd
