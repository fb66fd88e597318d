#include "spoken_for.cuh"

namespace zsd {

cudaError_t launch_spoken_for(const SpokenForParams& params, const SpokenForInput& input,
                              std::int32_t* places, float* offsets, cudaStream_t stream) {
  using namespace spoken_for_cuda;
  if (params.regions < 0 || params.looked < 0 || params.regions > INT_MAX - kThreads) {
    return cudaErrorInvalidValue;
  }
  if (params.regions == 0) return cudaSuccess;
  return launch(spoken_for_kernel,
                static_cast<unsigned>((params.regions + kThreads - 1) / kThreads), kThreads, 0,
                stream, params, input, places, offsets);
}

}  // namespace zsd
