#include <climits>

#include "second_look.cuh"

namespace zsd {

std::size_t second_look_workspace(const SecondLookParams& params) {
  Workspace workspace(nullptr);
  second_look_cuda::share_out(params, workspace);
  return workspace.bytes();
}

cudaError_t launch_second_look(const SecondLookParams& params, const float* rois,
                               const std::int32_t* batch_indices, const std::int32_t* num_regions,
                               const SecondLookOutput& output, void* memory, cudaStream_t stream) {
  using namespace second_look_cuda;
  if (params.regions < 0 || params.regions > kMostDetectRegions || params.batch < 0 ||
      params.batch > INT_MAX || params.count < 1 ||
      params.batch * params.count > INT_MAX - kThreads) {
    return cudaErrorInvalidValue;
  }
  Workspace workspace(memory);
  const Buffers buffers = share_out(params, workspace);
  if (params.regions > 0) {
    nms_cuda::OverlapArguments overlap{};
    overlap.boxes = reinterpret_cast<const Box*>(rois);
    overlap.counts = num_regions;
    overlap.groups = batch_indices;
    overlap.bits = buffers.bits;
    overlap.capacity = static_cast<int>(params.regions);
    overlap.words = buffers.words;
    overlap.limit = iou_limit(params.nms_threshold);
    const cudaError_t status = nms_cuda::launch_overlap<true>(overlap, 1, stream);
    if (status != cudaSuccess) return status;
  }
  return launch(look_kernel, 1, kThreads, kWarps * buffers.words * sizeof(std::uint32_t), stream,
                params, buffers, rois, batch_indices, num_regions, output);
}

}  // namespace zsd
