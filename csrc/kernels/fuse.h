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

// A logit's share of a softmax, before the division by the sum of the row's terms.
ZSD_HD float softmax_term(float logit, float highest) { return expf(logit - highest); }

// The activation of a logit; `highest` and `total` are of its row, for the softmax.
ZSD_HD float activate(Fusion fusion, float logit, float highest, float total) {
  if (fusion == Fusion::kSoftmax) return softmax_term(logit, highest) / total;
  return fusion == Fusion::kSigmoid ? sigmoid(logit) : logit;
}

// What all scores of a region are multiplied by.
ZSD_HD float region_weight(const FuseParams& p, const float* objectness, std::int64_t region) {
  const bool weighted = objectness && p.objectness_power > 0.0f;
  return weighted ? powf(objectness[region], p.objectness_power) : 1.0f;
}

// The score of a seen class, `factor` being what the unseen scores say of it.
ZSD_HD float seen_score(const FuseParams& p, float activated, float factor, float weight) {
  return activated * (factor * p.seen_scale * weight);
}

// The score of an unseen class, `evidence` being what the seen logits say of it, or 1.
ZSD_HD float unseen_score(float activated, float probability, float evidence, float weight) {
  return activated * evidence * (probability * weight);
}

void fuse(const FuseParams& params, const float* seen_logits, const float* unseen_probabilities,
          const float* seen_similarity, const float* objectness, float* output);

}  // namespace zsd
