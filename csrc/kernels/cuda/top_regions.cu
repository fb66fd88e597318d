#include <climits>

#include "top_regions.cuh"

namespace zsd {

std::size_t top_regions_workspace(const TopRegionsParams& params) {
  Workspace workspace(nullptr);
  top_regions_cuda::share_out(params, workspace);
  return workspace.bytes();
}

cudaError_t launch_top_regions(const TopRegionsParams& params, const float* boxes,
                               const float* logits, const float* image_sizes,
                               const TopRegionsOutput& output, void* memory, cudaStream_t stream) {
  using namespace top_regions_cuda;
  const std::int64_t queries = params.batch * params.queries;
  const std::int64_t capacity = params.batch * params.count;
  if (params.batch < 0 || params.batch > INT_MAX || params.queries < 0 || params.classes < 0 ||
      params.count < 1 || queries > INT_MAX - kWarps || capacity > INT_MAX - kWarps) {
    return cudaErrorInvalidValue;
  }
  Workspace workspace(memory);
  const Buffers buffers = share_out(params, workspace);
  if (queries > 0) {
    const auto blocks = static_cast<unsigned>((queries + kWarps - 1) / kWarps);
    const cudaError_t status =
        launch(best_kernel, blocks, kThreads, 0, stream, params, buffers, logits);
    if (status != cudaSuccess) return status;
  }
  if (params.batch > 0) {
    const cudaError_t status =
        launch(choose_kernel, static_cast<unsigned>(params.batch), kThreads, sizeof(CutShared),
               stream, params, buffers, boxes, image_sizes);
    if (status != cudaSuccess) return status;
  }
  const std::int64_t rows = capacity > 0 ? capacity : 1;  // the first writes the count
  return launch(emit_kernel, static_cast<unsigned>((rows + kWarps - 1) / kWarps), kThreads, 0,
                stream, params, buffers, logits, output);
}

}  // namespace zsd
