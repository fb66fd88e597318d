// Eq. 14 on a GPU: one warp for one region, with the arithmetic of fuse.h.
//
// Order       sums over a row run over lanes, then over the warp: deterministic.
// Twin        zsd_core/kernels/reference.py::fuse; change both in one commit.
#pragma once

#include <climits>

#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace fuse_cuda {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    fuse_kernel(const FuseParams p, const float* seen_logits, const float* unseen_probabilities,
                const float* seen_similarity, const float* objectness, float* output) {
  const std::int64_t r = std::int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (r >= p.regions) return;  // a whole warp
  const int lane = threadIdx.x % kWarp;
  const int seen = static_cast<int>(p.seen), unseen = static_cast<int>(p.unseen);
  const int columns = seen + unseen;  // of the output; a row of logits has one more
  const float* logits = seen_logits + r * (columns + 1);
  const float* probabilities = unseen_probabilities + r * unseen;

  float highest = 0.f, total = 1.f;
  if (p.fusion == Fusion::kSoftmax) {
    highest = -INFINITY;
    for (int c = lane; c <= columns; c += kWarp) highest = fmaxf(highest, logits[c]);
    highest = warp_largest(highest);
    total = 0.f;
    for (int c = lane; c <= columns; c += kWarp) total += expf(logits[c] - highest);
    total = warp_sum(total);
  }
  const bool weighted = objectness && p.objectness_power > 0.f;
  const float weight = weighted ? powf(objectness[r], p.objectness_power) : 1.f;
  for (int c = lane; c < columns; c += kWarp) {
    float score = activate(p.fusion, logits[c + 1], highest, total);
    if (c < seen) {
      score *= seen_factor(probabilities, seen_similarity + std::int64_t{c} * unseen, unseen);
      score *= p.seen_scale;
    } else {
      score *= probabilities[c - seen];
    }
    output[r * columns + c] = score * weight;
  }
}

}  // namespace fuse_cuda
}  // namespace zsd
