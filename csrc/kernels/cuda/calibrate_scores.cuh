// Scores to probabilities on a GPU: one thread for one score.
//
// Twin        zsd_core/kernels/reference.py::calibrate_scores; change both in one commit.
#pragma once

#include <climits>

#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace calibrate_cuda {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    calibrate_scores_kernel(const CalibrateParams p, const float* scores, const float* parameters,
                            float* output) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.regions * p.classes) return;
  output[i] = calibrated(scores[i], parameters + 3 * (i % p.classes));
}

}  // namespace calibrate_cuda
}  // namespace zsd
