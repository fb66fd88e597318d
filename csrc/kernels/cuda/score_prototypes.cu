#include "score_prototypes.cuh"

namespace zsd {

std::size_t score_prototypes_workspace(const PrototypeParams& params) {
  Workspace workspace(nullptr);
  score_prototypes_cuda::share_out(params, workspace);
  return workspace.bytes();
}

cudaError_t launch_score_prototypes(const PrototypeParams& params, const PrototypeInput& input,
                                    float* output, void* memory, cudaStream_t stream) {
  using namespace score_prototypes_cuda;
  const std::int64_t columns = params.seen + params.unseen;
  if (params.regions < 0 || params.looked < 0 || params.seen < 0 || params.unseen < 0 ||
      params.width < 0 || params.regions > INT_MAX || columns > INT_MAX ||
      params.regions * columns > std::int64_t{INT_MAX} * kThreads ||
      params.looked > std::int64_t{65535} * kLooks) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t count = params.regions * columns;
  if (count == 0) return cudaSuccess;
  Workspace workspace(memory);
  const Buffers buffers = share_out(params, workspace);
  if (params.looked > 0) {
    const dim3 grid(static_cast<unsigned>((columns + kBlockClasses - 1) / kBlockClasses),
                    static_cast<unsigned>((params.looked + kLooks - 1) / kLooks));
    cudaError_t status =
        launch(product_kernel, grid, kThreads, kSharedBytes, stream, params, input, buffers);
    if (status == cudaSuccess && (params.contest > 0.f || params.rivalry > 0.f)) {
      status = launch(rival_kernel, static_cast<unsigned>(params.looked), kThreads,
                      3 * kWarps * sizeof(float), stream, params, input, buffers);
    }
    if (status != cudaSuccess) return status;
  }
  return launch(combine_kernel, static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads,
                0, stream, params, input, buffers, output);
}

}  // namespace zsd
