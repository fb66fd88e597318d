// Eq. 14 on a GPU, from logits as product_mlp wrote them: one warp for one region.
//
// In use      columns may be room for classes to come: those not in use enter no sum and score 0.
// Unseen      o_u waits in the region's own row of the output until it is multiplied.
// Order       sums over a row run over lanes, then over the warp: deterministic.
// Twin        zsd_core/kernels/reference.py::fuse, after its sigmoid; change both in one commit.
#pragma once

#include <climits>

#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace fuse_cuda {

constexpr int kThreads = 128;

// Factor of seen class `row` of similarity (Ks, U), from one region's unseen probabilities.
__device__ inline float seen_factor(const float* probabilities, const float* row,
                                    std::int64_t unseen) {
  if (unseen == 0) return 1.0f;
  float sum = 0.0f;
  for (std::int64_t u = 0; u < unseen; ++u) sum += probabilities[u] * row[u];
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    fuse_kernel(const FuseParams p, const FuseInput input, float* output) {
  const std::int64_t r = std::int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (r >= p.regions) return;  // a whole warp
  const int lane = threadIdx.x % kWarp;
  const int room_seen = static_cast<int>(p.seen), room_unseen = static_cast<int>(p.unseen);
  const int columns = room_seen + room_unseen;  // of the output; a row of logits has one more
  const int seen = input.in_use ? input.in_use[0] : room_seen;
  const int unseen = input.in_use ? input.in_use[1] : room_unseen;
  const float* logits = input.seen_logits + r * (columns + 1);
  float* scores = output + r * columns;
  float* probabilities = scores + room_seen;

  const auto in_use = [&](int c) {  // a column of the logits
    return c <= seen || (c > room_seen && c <= room_seen + unseen);
  };
  const auto logit = [&](int c) {
    return input.rectify && logits[c] < 0.f ? 0.f : logits[c];  // NaN stays
  };
  float highest = 0.f, total = 1.f;
  if (p.fusion == Fusion::kSoftmax) {
    highest = -INFINITY;
    for (int c = lane; c <= columns; c += kWarp) {
      if (in_use(c)) highest = fmaxf(highest, logit(c));
    }
    highest = warp_largest(highest);
    total = 0.f;
    for (int c = lane; c <= columns; c += kWarp) {
      if (in_use(c)) total += softmax_term(logit(c), highest);
    }
    total = warp_sum(total);
  }
  float seen_highest = -INFINITY, seen_total = 0.f;
  if (p.seen_evidence) {
    for (int c = 1 + lane; c <= seen; c += kWarp) seen_highest = fmaxf(seen_highest, logit(c));
    seen_highest = warp_largest(seen_highest);
    for (int c = 1 + lane; c <= seen; c += kWarp) {
      seen_total += softmax_term(logit(c), seen_highest);
    }
    seen_total = warp_sum(seen_total);
  }
  const auto evidence = [&](int u) {  // softmax of the seen logits, times column u of S
    if (seen == 0) return 1.f;
    float sum = 0.f;
    for (int s = 0; s < seen; ++s) {
      sum += softmax_term(logit(1 + s), seen_highest) *
             input.seen_similarity[std::int64_t{s} * room_unseen + u];
    }
    return sum / seen_total;
  };
  const float weight = region_weight(p, input.objectness, r);
  for (int u = lane; u < unseen; u += kWarp) {
    probabilities[u] = sigmoid(input.unseen_logits[r * room_unseen + u]);
  }
  sync_warp();
  for (int c = lane; c < room_seen; c += kWarp) {
    float score = 0.f;
    if (c < seen) {
      const float* row = input.seen_similarity + std::int64_t{c} * room_unseen;
      const float factor = seen_factor(probabilities, row, unseen);
      score = seen_score(p, activate(p.fusion, logit(c + 1), highest, total), factor, weight);
    }
    scores[c] = score;
  }
  sync_warp();  // all have read the probabilities
  for (int u = lane; u < room_unseen; u += kWarp) {
    const int c = room_seen + u;
    const bool used = u < unseen;
    float score = 0.f;
    if (used) {
      const float activated = activate(p.fusion, logit(c + 1), highest, total);
      const float said = p.seen_evidence ? evidence(u) : 1.f;
      score = unseen_score(activated, probabilities[u], said, weight);
    }
    scores[c] = score;
  }
}

}  // namespace fuse_cuda
}  // namespace zsd
