#include <climits>

#include "propose.cuh"

namespace zsd {

std::size_t propose_workspace(const ProposeParams& params) {
  Workspace workspace(nullptr);
  propose_cuda::share_out(params, workspace);
  return workspace.bytes();
}

cudaError_t launch_propose(const ProposeParams& params, const float* objectness,
                           const float* deltas, const float* anchors, const float* image_sizes,
                           const ProposeOutput& output, void* memory, cudaStream_t stream) {
  using namespace propose_cuda;
  const std::int64_t candidates = params.anchors * params.height * params.width;
  const std::int64_t capacity = params.batch * params.post_nms_top;
  if (params.batch < 0 || candidates < 0 || params.pre_nms_top < 1 || params.post_nms_top < 1 ||
      candidates > INT_MAX || params.batch > 65535 || capacity > INT_MAX - kThreads) {
    return cudaErrorInvalidValue;
  }
  if (candidates == 0 || params.batch == 0) {
    return launch(empty_kernel, 1, kThreads, 0, stream, output, capacity);
  }
  Workspace workspace(memory);
  const Buffers buffers = share_out(params, workspace);
  const auto batch = static_cast<unsigned>(params.batch);
  const std::size_t scan_bytes = (buffers.words + 1) * sizeof(std::uint32_t);
  const int row_blocks = (buffers.top + nms_cuda::kThreads - 1) / nms_cuda::kThreads;
  if (scan_bytes > 48 * 1024 || row_blocks > 65535) return cudaErrorInvalidValue;

  cudaError_t status = launch(select_kernel, batch, kThreads, sizeof(CutShared), stream, params,
                              buffers, objectness);
  if (status != cudaSuccess) return status;
  const dim3 grid((buffers.top + kThreads - 1) / kThreads, batch);
  status =
      launch(rank_kernel, grid, kThreads, 0, stream, params, buffers, deltas, anchors, image_sizes);
  if (status != cudaSuccess) return status;
  nms_cuda::OverlapArguments overlap{};
  overlap.boxes = buffers.boxes;
  overlap.counts = buffers.counts;
  overlap.bits = buffers.bits;
  overlap.capacity = buffers.top;
  overlap.words = buffers.words;
  overlap.limit = iou_limit(params.nms_threshold);
  status = nms_cuda::launch_overlap<true>(overlap, static_cast<int>(batch), stream);
  if (status != cudaSuccess) return status;
  status = launch(scan_kernel, batch, kThreads, scan_bytes, stream, params, buffers);
  if (status != cudaSuccess) return status;
  return launch(emit_kernel, batch, kThreads, 0, stream, params, buffers, output);
}

}  // namespace zsd
