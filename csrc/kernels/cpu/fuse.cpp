#include "../fuse.h"

#include <algorithm>

#include "thread_pool.h"

namespace zsd {

void fuse(const FuseParams& p, const float* seen_logits, const float* unseen_probabilities,
          const float* seen_similarity, const float* objectness, float* output) {
  const std::int64_t classes = p.seen + p.unseen;
  parallel_for(p.regions, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* logits = seen_logits + r * (1 + classes);
      const float* probabilities = unseen_probabilities + r * p.unseen;
      float* scores = output + r * classes;
      float highest = logits[0], total = 0.0f;
      if (p.fusion == Fusion::kSoftmax) {
        for (std::int64_t k = 0; k <= classes; ++k) highest = larger(highest, logits[k]);
        for (std::int64_t k = 0; k <= classes; ++k) total += expf(logits[k] - highest);
      }
      const float confidence =
          objectness && p.objectness_power > 0 ? powf(objectness[r], p.objectness_power) : 1.0f;
      for (std::int64_t k = 0; k < classes; ++k) {
        const float score = activate(p.fusion, logits[1 + k], highest, total);
        const float factor =
            k < p.seen ? seen_factor(probabilities, seen_similarity + k * p.unseen, p.unseen) *
                             p.seen_scale
                       : probabilities[k - p.seen];
        scores[k] = score * factor * confidence;
      }
    }
  });
}

}  // namespace zsd
