#include "calibrate_scores.cuh"

namespace zsd {

cudaError_t launch_calibrate_scores(const CalibrateParams& params, const float* scores,
                                    const float* parameters, float* output, cudaStream_t stream) {
  using namespace calibrate_cuda;
  if (params.regions < 0 || params.classes < 0 || params.regions > INT_MAX ||
      params.classes > INT_MAX || params.regions * params.classes > INT_MAX) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t count = params.regions * params.classes;
  if (count == 0) return cudaSuccess;
  return launch(calibrate_scores_kernel, static_cast<unsigned>((count + kThreads - 1) / kThreads),
                kThreads, 0, stream, params, scores, parameters, output);
}

}  // namespace zsd
