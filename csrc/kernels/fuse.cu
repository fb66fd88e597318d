#include "fuse.cuh"

namespace zsd {

cudaError_t launch_fuse(const FuseParams& params, const float* seen_logits,
                        const float* unseen_probabilities, const float* seen_similarity,
                        const float* objectness, float* output, cudaStream_t stream) {
  using namespace fuse_cuda;
  constexpr int kWarps = kThreads / kWarp;
  if (params.regions < 0 || params.seen < 0 || params.unseen < 0 ||
      params.seen + params.unseen >= INT_MAX || params.regions > std::int64_t{INT_MAX} * kWarps) {
    return cudaErrorInvalidValue;
  }
  if (params.regions == 0 || params.seen + params.unseen == 0) return cudaSuccess;
  return launch(fuse_kernel, static_cast<unsigned>((params.regions + kWarps - 1) / kWarps),
                kThreads, 0, stream, params, seen_logits, unseen_probabilities, seen_similarity,
                objectness, output);
}

}  // namespace zsd
