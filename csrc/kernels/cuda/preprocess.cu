#include "preprocess.cuh"

namespace zsd {

#define ZSD_INSTANTIATE(T)                                                                 \
  template cudaError_t launch_preprocess(const PreprocessParams&, const std::uint8_t*, T*, \
                                         cudaStream_t);
ZSD_INSTANTIATE(float)
ZSD_INSTANTIATE(half)
ZSD_INSTANTIATE(bfloat16)
#undef ZSD_INSTANTIATE

}  // namespace zsd
