#include "../fuse.h"

#include <algorithm>
#include <vector>

#include "thread_pool.h"

namespace zsd {

namespace {

// Sums apart that the compiler adds side by side: one sum alone waits for every addition.
constexpr std::int64_t kSums = 16;

float dot(const float* a, const float* b, std::int64_t count) {
  float sums[kSums] = {}, sum = 0.0f;
  std::int64_t i = 0;
  for (; i + kSums <= count; i += kSums)
    for (std::int64_t lane = 0; lane < kSums; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  for (; i < count; ++i) sum += a[i] * b[i];
  for (const float part : sums) sum += part;
  return sum;
}

// The activated logits (C,), background dropped, of logits (1 + C,).
void activate_row(Fusion fusion, const float* logits, std::int64_t classes, float* activated) {
  if (fusion != Fusion::kSoftmax) {
    for (std::int64_t k = 0; k < classes; ++k)
      activated[k] = activate(fusion, logits[1 + k], 0.0f, 1.0f);
    return;
  }
  float highest = logits[0];
  for (std::int64_t k = 1; k <= classes; ++k) highest = larger(highest, logits[k]);
  float total = softmax_term(logits[0], highest);
  for (std::int64_t k = 0; k < classes; ++k)
    total += activated[k] = softmax_term(logits[1 + k], highest);
  for (std::int64_t k = 0; k < classes; ++k) activated[k] /= total;
}

// What the seen logits of a region say of every unseen class: softmax(logits) S, (U,).
void read_evidence(const FuseParams& p, const float* logits, const float* similarity,
                   float* evidence) {
  std::fill(evidence, evidence + p.unseen, p.seen == 0 ? 1.0f : 0.0f);
  float highest = p.seen == 0 ? 0.0f : logits[0], total = 0.0f;
  for (std::int64_t k = 0; k < p.seen; ++k) highest = larger(highest, logits[k]);
  for (std::int64_t k = 0; k < p.seen; ++k) total += softmax_term(logits[k], highest);
  for (std::int64_t k = 0; k < p.seen; ++k) {
    const float share = softmax_term(logits[k], highest) / total;
    const float* row = similarity + k * p.unseen;
    for (std::int64_t u = 0; u < p.unseen; ++u) evidence[u] += share * row[u];
  }
}

}  // namespace

void fuse(const FuseParams& p, const float* seen_logits, const float* unseen_probabilities,
          const float* seen_similarity, const float* objectness, float* output) {
  const std::int64_t classes = p.seen + p.unseen;
  parallel_for(p.regions, 32, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> evidence(std::size_t(p.unseen), 1.0f);
    for (std::int64_t r = begin; r < end; ++r) {
      const float* logits = seen_logits + r * (1 + classes);
      const float* probabilities = unseen_probabilities + r * p.unseen;
      float *seen = output + r * classes, *unseen = seen + p.seen;
      activate_row(p.fusion, logits, classes, seen);
      const float weight = region_weight(p, objectness, r);
      for (std::int64_t k = 0; k < p.seen; ++k) {
        const float* row = seen_similarity + k * p.unseen;
        const float factor = p.unseen == 0 ? 1.0f : dot(probabilities, row, p.unseen);
        seen[k] = seen_score(p, seen[k], factor, weight);
      }
      if (p.seen_evidence) read_evidence(p, logits + 1, seen_similarity, evidence.data());
      for (std::int64_t u = 0; u < p.unseen; ++u)
        unseen[u] = unseen_score(unseen[u], probabilities[u], evidence[std::size_t(u)], weight);
    }
  });
}

}  // namespace zsd
