// Eq. 14: activated seen logits times what the unseen scores say, without the background.
//
//   seen_logits           (R, 1 + Ks + U)  float  columns background, seen, unseen
//   unseen_probabilities  (R, U)           float
//   seen_similarity       (Ks, U)          float
//   objectness            (R,)             float or null
//   output                (R, Ks + U)      float
//
// Meaning     the activation runs over all columns; the factor of a seen class is
//             sum_u o_u S[s, u], of an unseen class o_u, and 1 when U = 0. With seen_evidence that
//             of an unseen class is also multiplied by sum_s q_s S[s, u], q the softmax of the seen
//             logits alone, and by 1 when Ks = 0.
// Twin        zsd_core/kernels/reference.py::fuse; change both in one commit.
#pragma once

#include <cmath>
#include <cstdint>

#include "common.h"

namespace zsd {

enum class Fusion { kSoftmax, kSigmoid, kRaw };

struct FuseParams {
  std::int64_t regions, seen, unseen;  // R, Ks, U
  Fusion fusion;
  float seen_scale, objectness_power;
  bool seen_evidence;
};

ZSD_HD float sigmoid(float logit) { return 1.0f / (1.0f + expf(-logit)); }

void fuse(const FuseParams& params, const float* seen_logits, const float* unseen_probabilities,
          const float* seen_similarity, const float* objectness, float* output);

}  // namespace zsd
