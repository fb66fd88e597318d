#include "simd.h"

#define ZSD_SIMD avx512
#define ZSD_WIDTH 16
#define ZSD_ROWS 12  // 32 vector registers: 24 hold a tile
#include "simd.inl"

namespace zsd {

const SimdKernels kSimdAvx512 = {"avx512",
                                 avx512::W,
                                 avx512::MR,
                                 avx512::NR,
                                 avx512::pack_products,
                                 avx512::mlp_tiles,
                                 avx512::cells_to_planes,
                                 avx512::planes_to_cells,
                                 avx512::roi_forward,
                                 avx512::roi_backward};

}  // namespace zsd
