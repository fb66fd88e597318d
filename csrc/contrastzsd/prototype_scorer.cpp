// Prototypes: a class is a row that the features of an image classifier are multiplied with.
//
// Seen classes have the given detector's own logits. The head's embedding of a region is [z, e, 1]:
// z (V,) the classifier's features, e (E,) the vectors of the names it was taught, weighted by
// their probability. A class of name a is [p, evidence a, bias], scaled so that the product is a
// logit; p interpolates the taught names' prototypes by the similarity of names.
//
// Twin        zsd_core/scoring/prototypes.py; change both in one commit.
#include <algorithm>
#include <cmath>
#include <limits>

#include "contrastzsd/errors.h"
#include "contrastzsd/scoring.h"

namespace contrastzsd {
namespace {

class PrototypeScorer final : public Scorer {
 public:
  PrototypeScorer(const ScoringConfig& config, const std::map<std::string, Tensor>& tensors)
      : Scorer(config, tensors,
               {{"background", "E"},
                {"taught.vectors", "T E"},
                {"taught.weights", "T V"},
                {"name_scale", "2"},
                {"example_scale", "2"}}),
        taught_(side("taught.vectors")),
        features_(tensors.at("taught.weights").shape[1]),
        vectors_(tensor("taught.vectors"), taught_, config.vector_dim),
        weights_(transposed(tensor("taught.weights"), taught_, features_).data(), features_,
                 taught_) {}

  Tensor score(const ScoreInput& input, const ClassSet& classes) const override {
    const std::int64_t regions = input.logits.shape[0], seen = classes.seen;
    const std::int64_t unseen = classes.unseen, columns = seen + unseen;
    const std::int64_t looked = std::int64_t(input.looked.size());
    if (input.logits.shape[1] != seen || (looked && input.embeddings.shape[1] != classes.width))
      throw BundleError("scoring method 'prototypes': the networks give " +
                        std::to_string(input.logits.shape[1]) + " logits and embeddings of width " +
                        std::to_string(looked ? input.embeddings.shape[1] : 0) +
                        ", the scorer means " + std::to_string(seen) + " and " +
                        std::to_string(classes.width) + ". Export the bundle again.");
    const Tensor result = Tensor::make({regions, columns});
    for (std::int64_t r = 0; r < regions; ++r) {
      float* row = result.data.get() + r * columns;
      const float* logits = input.logits.data.get() + r * seen;
      for (std::int64_t s = 0; s < seen; ++s)
        row[s] = stable_sigmoid(logits[s]) * float(config_.seen_scale);
      std::fill_n(row + seen, unseen, 0.0f);  // a region that was not looked at
    }
    if (looked == 0 || unseen == 0) return result;
    const Tensor products = Tensor::make({looked, columns});
    classes.rows->multiply(looked, input.embeddings.data.get(), products.data.get());
    for (std::int64_t l = 0; l < looked; ++l) {
      const std::int64_t r = input.looked[std::size_t(l)];
      const float likely =
          std::pow(input.objectness[std::size_t(r)], float(config_.objectness_power));
      const float* said = products.data.get() + l * columns;
      float* row = result.data.get() + r * columns;
      const float most = seen ? std::max(*std::max_element(said, said + seen), 0.0f) : 0.0f;
      const float rival = float(config_.rivalry) * most;
      for (std::int64_t c = seen; c < columns; ++c)
        row[c] = stable_sigmoid(said[c] - rival) * likely;
      if (config_.contest > 0) contest(said, seen, columns, input.thresholds, row);
    }
    return result;
  }

  // Seen scores are at most objectness, unseen ones its power.
  float least_objectness(float threshold) const override {
    if (threshold <= 0 || config_.objectness_power <= 0) return 0;
    const double bound = std::min(1.0, double(threshold) / std::max(1.0, config_.seen_scale));
    return float(0.999 * std::min(bound, std::pow(bound, 1 / config_.objectness_power)));
  }

 protected:
  std::vector<float> prototypes_of(std::vector<float> vectors) const override {
    const std::int64_t width = config_.vector_dim, row = features_ + width + 1;
    const std::int64_t count = std::int64_t(vectors.size()) / width;
    const float slope = tensor("name_scale")[0], bias = tensor("name_scale")[1];
    std::vector<float> alike(std::size_t(count * taught_)), visual(std::size_t(count * features_));
    vectors_.multiply(count, vectors.data(), alike.data());
    for (float& cosine : alike)
      cosine += float(config_.kernel_weight) * std::exp((cosine - 1) / float(config_.kernel_width));
    weights_.multiply(count, alike.data(), visual.data());
    std::vector<float> result(std::size_t(count * row));
    for (std::int64_t k = 0; k < count; ++k) {
      const float *p = visual.data() + k * features_, *a = vectors.data() + k * width;
      float* to = result.data() + k * row;
      double squares = 0;
      for (std::int64_t i = 0; i < features_; ++i) squares += double(p[i]) * double(p[i]);
      // float may not hold it
      const double length = std::sqrt(squares) + double(std::numeric_limits<float>::min());
      for (std::int64_t i = 0; i < features_; ++i) to[i] = slope * float(double(p[i]) / length);
      for (std::int64_t i = 0; i < width; ++i)
        to[features_ + i] = slope * float(config_.evidence) * a[i];
      to[row - 1] = bias;
    }
    return result;
  }

  void complete(ClassSet& classes) const override {
    classes.rows = std::make_shared<const zsd::PackedLinear>(
        classes.prototypes.data() + classes.width, classes.seen + classes.unseen, classes.width);
  }

 private:
  // Takes from the seen scores of a region what an unseen class is ahead by; see the twin.
  void contest(const float* said, std::int64_t seen, std::int64_t columns,
               const std::vector<float>& thresholds, float* row) const {
    float best = -kHidden;
    std::int64_t asked = 0;
    for (std::int64_t c = seen; c < columns; ++c) {
      if (!(thresholds[std::size_t(c)] < kHidden)) continue;
      best = std::max(best, said[c]);
      ++asked;
    }
    best -= std::log(float(std::max<std::int64_t>(asked, 1)));
    for (std::int64_t s = 0; s < seen; ++s)
      row[s] *= stable_sigmoid(float(config_.contest) *
                               (float(config_.contest_margin) - (best - std::max(said[s], 0.0f))));
  }

  static std::vector<float> transposed(const float* matrix, std::int64_t rows,
                                       std::int64_t columns) {
    std::vector<float> result(std::size_t(rows * columns));
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c)
        result[std::size_t(c * rows + r)] = matrix[r * columns + c];
    return result;
  }

  std::int64_t taught_, features_;       // T, V
  zsd::PackedLinear vectors_, weights_;  // (T, E), (V, T)
};

}  // namespace

std::unique_ptr<Scorer> make_prototype_scorer(const ScoringConfig& config,
                                              const std::map<std::string, Tensor>& tensors) {
  return std::make_unique<PrototypeScorer>(config, tensors);
}

}  // namespace contrastzsd
