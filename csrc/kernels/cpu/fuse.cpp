#include "../fuse.h"

#include <algorithm>
#include <vector>

#include "thread_pool.h"

namespace zsd {

// What the seen logits of a region say of every unseen class: softmax(logits) S, (U,).
static void read_evidence(const FuseParams& p, const float* logits, const float* similarity,
                          float* evidence) {
  std::fill(evidence, evidence + p.unseen, p.seen == 0 ? 1.0f : 0.0f);
  float highest = p.seen == 0 ? 0.0f : logits[0], total = 0.0f;
  for (std::int64_t k = 0; k < p.seen; ++k) highest = larger(highest, logits[k]);
  for (std::int64_t k = 0; k < p.seen; ++k) total += expf(logits[k] - highest);
  for (std::int64_t k = 0; k < p.seen; ++k) {
    const float share = expf(logits[k] - highest) / total;
    const float* row = similarity + k * p.unseen;
    for (std::int64_t u = 0; u < p.unseen; ++u) evidence[u] += share * row[u];
  }
}

void fuse(const FuseParams& p, const float* seen_logits, const float* unseen_probabilities,
          const float* seen_similarity, const float* objectness, float* output) {
  const std::int64_t classes = p.seen + p.unseen;
  parallel_for(p.regions, 32, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> evidence(std::size_t(p.seen_evidence ? p.unseen : 0));
    for (std::int64_t r = begin; r < end; ++r) {
      const float* logits = seen_logits + r * (1 + classes);
      const float* probabilities = unseen_probabilities + r * p.unseen;
      float* scores = output + r * classes;
      float highest = logits[0], total = 0.0f;
      if (p.fusion == Fusion::kSoftmax) {
        for (std::int64_t k = 0; k <= classes; ++k) highest = larger(highest, logits[k]);
        for (std::int64_t k = 0; k <= classes; ++k) total += expf(logits[k] - highest);
      }
      if (p.seen_evidence) read_evidence(p, logits + 1, seen_similarity, evidence.data());
      const float confidence =
          objectness && p.objectness_power > 0 ? powf(objectness[r], p.objectness_power) : 1.0f;
      for (std::int64_t k = 0; k < classes; ++k) {
        const float score = activate(p.fusion, logits[1 + k], highest, total);
        const float factor =
            k < p.seen ? seen_factor(probabilities, seen_similarity + k * p.unseen, p.unseen) *
                             p.seen_scale
                       : probabilities[k - p.seen];
        const float seen_says = k >= p.seen && p.seen_evidence ? evidence[k - p.seen] : 1.0f;
        scores[k] = score * factor * seen_says * confidence;
      }
    }
  });
}

}  // namespace zsd
