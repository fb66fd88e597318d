// ConSE, the paper's baseline: a region's most probable seen classes, weighted, make a word vector,
// whose cosine with an unseen class's vector scores that class.
//
// Twin        zsd_core/scoring/conse.py; change both in one commit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "contrastzsd/errors.h"
#include "contrastzsd/scoring.h"

namespace contrastzsd {
namespace {

class ConseScorer final : public Scorer {
 public:
  ConseScorer(const ScoringConfig& config, const std::map<std::string, Tensor>& tensors)
      : Scorer(config, tensors,
               {{"background", "E"}, {"classifier.weight", "K D"}, {"classifier.bias", "K"}}),
        classifier_(tensor("classifier.weight"), side("classifier.bias"), config.joint_dim) {}

  Tensor score(const ScoreInput& input, const ClassSet& classes) const override {
    const std::int64_t regions = input.embeddings.shape[0], seen = classes.seen;
    const std::int64_t columns = seen + classes.unseen;
    if (classifier_.outputs() != 1 + seen)
      throw BundleError("scoring method 'conse': " + std::to_string(seen) +
                        " seen classes for a classifier of " +
                        std::to_string(classifier_.outputs() - 1) +
                        "; its seen classes are those of training. Export the bundle again.");
    const Tensor logits = Tensor::make({regions, 1 + seen});
    const Tensor result = Tensor::make({regions, columns});
    classifier_.multiply(regions, input.embeddings.data.get(), logits.data.get());
    for (std::int64_t r = 0; r < regions; ++r) {
      float* row = result.data.get() + r * columns;
      score_region(logits.data.get() + r * (1 + seen), classes, row);
      if (config_.objectness_power <= 0) continue;
      const float factor =
          std::pow(input.objectness[std::size_t(r)], float(config_.objectness_power));
      std::for_each(row, row + columns, [factor](float& score) { score *= factor; });
    }
    return result;
  }

 protected:
  std::vector<float> prototypes_of(std::vector<float> vectors) const override { return vectors; }

  // S: the cosines as they are, the other way round.
  void complete(ClassSet& classes) const override {
    classes.seen_similarity.resize(classes.cosines.size());
    for (std::int64_t u = 0; u < classes.unseen; ++u)
      for (std::int64_t s = 0; s < classes.seen; ++s)
        classes.seen_similarity[std::size_t(s * classes.unseen + u)] =
            classes.cosines[std::size_t(u * classes.seen + s)];
  }

 private:
  // One region: logits (1 + Ks,) to scores (Ks + U,).
  void score_region(float* logits, const ClassSet& classes, float* scores) const {
    const std::int64_t seen = classes.seen, unseen = classes.unseen, width = classes.width;
    for (std::int64_t k = 0; k <= seen; ++k) logits[k] += tensor("classifier.bias")[k];
    const float highest = *std::max_element(logits, logits + 1 + seen);
    float sum = 0;
    for (std::int64_t k = 0; k <= seen; ++k) sum += logits[k] = std::exp(logits[k] - highest);
    for (std::int64_t k = 0; k <= seen; ++k) logits[k] /= sum;
    const float* probabilities = logits + 1;

    std::vector<std::int64_t> order(static_cast<std::size_t>(seen));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return probabilities[a] > probabilities[b];
    });
    order.resize(std::size_t(std::min(seen, config_.conse_top)));
    std::vector<float> combined(std::size_t(width), 0.0f), sums(std::size_t(unseen), 0.0f);
    for (const std::int64_t s : order) {
      for (std::int64_t i = 0; i < width; ++i)
        combined[std::size_t(i)] +=
            probabilities[s] * classes.prototypes[std::size_t((1 + s) * width + i)];
      for (std::int64_t u = 0; u < unseen; ++u)
        sums[std::size_t(u)] +=
            probabilities[s] * classes.seen_similarity[std::size_t(s * unseen + u)];
    }
    const double squares =
        std::inner_product(combined.begin(), combined.end(), combined.begin(), 0.0);
    const float length = std::max(float(std::sqrt(squares)), std::numeric_limits<float>::min());
    for (std::int64_t s = 0; s < seen; ++s)
      scores[s] = probabilities[s] * float(config_.seen_scale);
    for (std::int64_t u = 0; u < unseen; ++u)
      scores[seen + u] = std::max(sums[std::size_t(u)] / length, 0.0f) * (1 - logits[0]);
  }

  zsd::PackedLinear classifier_;
};

}  // namespace

std::unique_ptr<Scorer> make_conse_scorer(const ScoringConfig& config,
                                          const std::map<std::string, Tensor>& tensors) {
  return std::make_unique<ConseScorer>(config, tensors);
}

}  // namespace contrastzsd
