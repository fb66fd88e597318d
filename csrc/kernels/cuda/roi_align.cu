#include "roi_align.cuh"

namespace zsd {

#define ZSD_INSTANTIATE(T)                                                                      \
  template cudaError_t launch_roi_align(const RoiAlignParams&, const T*, const float*,          \
                                        const std::int32_t*, T*, cudaStream_t);                 \
  template cudaError_t launch_roi_align_backward(const RoiAlignParams&, const T*, const float*, \
                                                 const std::int32_t*, float*, cudaStream_t);
ZSD_INSTANTIATE(float)
ZSD_INSTANTIATE(half)
ZSD_INSTANTIATE(bfloat16)
#undef ZSD_INSTANTIATE

}  // namespace zsd
