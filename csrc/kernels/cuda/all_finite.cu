#include "all_finite.cuh"

namespace zsd {

cudaError_t launch_all_finite(const FiniteInput& input, std::int32_t* finite, cudaStream_t stream) {
  using namespace all_finite_cuda;
  if (input.rows < 0 || input.width < 0 || input.rows > INT_MAX || input.width > INT_MAX ||
      input.rows * input.width > INT_MAX) {
    return cudaErrorInvalidValue;
  }
  const std::int64_t count = input.rows * input.width;
  if (count == 0) return cudaSuccess;
  const std::int64_t wanted = (count - 1) / (kThreads * kEach) + 1;
  const auto blocks = static_cast<unsigned>(wanted < kBlocks ? wanted : kBlocks);
  return launch(all_finite_kernel, blocks, kThreads, 0, stream, input, finite);
}

}  // namespace zsd
