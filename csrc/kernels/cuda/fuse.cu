#include "fuse.cuh"

namespace zsd {

cudaError_t launch_fuse(const FuseParams& params, const FuseInput& input, float* output,
                        cudaStream_t stream) {
  using namespace fuse_cuda;
  constexpr int kWarps = kThreads / kWarp;
  if (params.regions < 0 || params.seen < 0 || params.unseen < 0 ||
      params.seen + params.unseen >= INT_MAX || params.regions > std::int64_t{INT_MAX} * kWarps) {
    return cudaErrorInvalidValue;
  }
  if (params.regions == 0 || params.seen + params.unseen == 0) return cudaSuccess;
  return launch(fuse_kernel, static_cast<unsigned>((params.regions + kWarps - 1) / kWarps),
                kThreads, 0, stream, params, input, output);
}

}  // namespace zsd
