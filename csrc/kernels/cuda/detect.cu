#include <climits>

#include "detect.cuh"

namespace zsd {

std::size_t detect_workspace(const DetectParams& params) {
  Workspace workspace(nullptr);
  detect_cuda::share_out(params, workspace);
  return workspace.bytes();
}

cudaError_t launch_detect(const DetectParams& params, const float* class_scores,
                          const float* deltas, const float* rois, const std::int32_t* batch_indices,
                          const float* image_sizes, const float* thresholds,
                          const DetectOutput& output, void* memory, cudaStream_t stream) {
  using namespace detect_cuda;
  const std::int64_t capacity = params.batch * params.max_detections;
  if (params.regions < 0 || params.classes < 0 || params.batch < 0 || params.max_detections < 1 ||
      params.regions > kMostDetectRegions || params.regions * params.classes > INT_MAX ||
      params.batch > INT_MAX || capacity > INT_MAX - kThreads) {
    return cudaErrorInvalidValue;
  }
  if (params.regions == 0 || params.classes == 0 || params.batch == 0) {
    return launch(empty_kernel, 1, kThreads, 0, stream, output, capacity);
  }
  Workspace workspace(memory);
  const Buffers buffers = share_out(params, workspace);
  const auto classes = static_cast<unsigned>(params.classes);
  const auto batch = static_cast<unsigned>(params.batch);
  const auto regions = static_cast<unsigned>(params.regions);

  cudaError_t status = launch(refine_kernel, (regions + kThreads - 1) / kThreads, kThreads, 0,
                              stream, params, buffers, deltas, rois, batch_indices, image_sizes);
  if (status != cudaSuccess) return status;
  nms_cuda::OverlapArguments overlap{};
  overlap.boxes = buffers.boxes;
  overlap.counts = buffers.num_regions;
  overlap.groups = batch_indices;
  overlap.bits = buffers.bits;
  overlap.capacity = static_cast<int>(params.regions);
  overlap.words = buffers.words;
  overlap.limit = iou_limit(params.nms_threshold);
  status = nms_cuda::launch_overlap<false>(overlap, 1, stream);
  if (status != cudaSuccess) return status;
  status =
      launch(suppress_kernel, classes, kClassThreads, suppress_bytes(params.regions, buffers.words),
             stream, params, buffers, class_scores, thresholds);
  if (status != cudaSuccess) return status;
  status = launch(select_kernel, batch, kThreads, sizeof(CutShared), stream, params, buffers,
                  batch_indices);
  if (status != cudaSuccess) return status;
  return launch(emit_kernel, batch, kThreads, 0, stream, params, buffers, class_scores, output);
}

}  // namespace zsd
