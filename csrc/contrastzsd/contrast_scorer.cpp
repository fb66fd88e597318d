// ContrastZSD: p_s, then g_s and g_u on element-wise products, fused by eq. 14.
//
// Twin        zsd_core/scoring/contrastzsd.py; change both in one commit.
#include <algorithm>
#include <cmath>

#include "contrastzsd/errors.h"
#include "contrastzsd/scoring.h"
#include "kernels/fuse.h"
#include "kernels/product_mlp.h"

namespace contrastzsd {
namespace {

constexpr std::int64_t kMany = 128;  // unseen classes from which on g_u is asked apart

std::map<std::string, std::string> shapes() {
  std::map<std::string, std::string> result = {{"background", "E"},
                                               {"project_semantic.weight1", "D E"},
                                               {"project_semantic.bias1", "D"},
                                               {"project_semantic.weight2", "D D"},
                                               {"project_semantic.bias2", "D"}};
  for (const std::string path : {"score_seen.", "score_unseen."}) {
    result[path + "weight1"] = "M D";
    result[path + "bias1"] = "M";
    result[path + "weight2"] = "M";
    result[path + "bias2"] = "1";
  }
  return result;
}

class ContrastScorer final : public Scorer {
 public:
  ContrastScorer(const ScoringConfig& config, const std::map<std::string, Tensor>& tensors,
                 bool int8)
      : Scorer(config, tensors, shapes()),
        project1_(tensor("project_semantic.weight1"), config.joint_dim, config.vector_dim),
        project2_(tensor("project_semantic.weight2"), config.joint_dim, config.joint_dim),
        seen_mlp_(weights("score_seen."), precision(int8)),
        unseen_mlp_(weights("score_unseen."), precision(int8)),
        int8_(int8) {}

  Tensor score(const ScoreInput& input, const ClassSet& classes) const override {
    const std::int64_t regions = input.embeddings.shape[0];
    const Tensor result = Tensor::make({regions, classes.seen + classes.unseen});
    if (int8_ && negative(input.embeddings))
      throw DeviceError(
          "int8_scoring is true, and a region's embedding is negative, which int8 "
          "cannot hold; leave it false for this bundle.");
    const Tensor logits = Tensor::make({regions, 1 + classes.seen + classes.unseen});
    const Tensor unseen = Tensor::make({regions, classes.unseen});
    const float lowest = *std::min_element(input.thresholds.begin(), input.thresholds.end());
    if (classes.unseen < kMany || !bounded(lowest)) {
      score_pairs(input.embeddings, classes,
                  {{&seen_mlp_, 0, logits.data.get()},
                   {&unseen_mlp_, 1 + classes.seen, unseen.data.get()}});
      activate(logits);
      for (std::int64_t i = 0; i < unseen.size(); ++i)
        unseen.data.get()[i] = stable_sigmoid(unseen.data.get()[i]);
      fuse(input, classes, logits, unseen, result);
      return result;
    }
    // g_u sees only regions in which eq. 14 with o_u = 1 passes a threshold: it rises with o_u.
    score_pairs(input.embeddings, classes, {{&seen_mlp_, 0, logits.data.get()}});
    activate(logits);
    std::fill_n(unseen.data.get(), unseen.size(), 1.0f);
    fuse(input, classes, logits, unseen, result);
    const std::vector<std::int64_t> rows = possible(input, result);
    const std::int64_t width = input.embeddings.row();
    const Tensor chosen = Tensor::make({std::int64_t(rows.size()), width});
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::copy_n(input.embeddings.data.get() + rows[i] * width, width,
                  chosen.data.get() + std::int64_t(i) * width);
    const Tensor asked = Tensor::make({std::int64_t(rows.size()), classes.unseen});
    score_pairs(chosen, classes, {{&unseen_mlp_, 1 + classes.seen, asked.data.get()}});
    std::fill_n(unseen.data.get(), unseen.size(), 0.0f);
    for (std::size_t i = 0; i < rows.size(); ++i)
      std::transform(asked.data.get() + std::int64_t(i) * classes.unseen,
                     asked.data.get() + std::int64_t(i + 1) * classes.unseen,
                     unseen.data.get() + rows[i] * classes.unseen, stable_sigmoid);
    fuse(input, classes, logits, unseen, result);
    return result;
  }

  float least_objectness(float threshold) const override {
    if (!bounded(threshold) || config_.objectness_power <= 0) return 0;
    const double bound = std::min(1.0, double(threshold) / std::max(1.0, config_.seen_scale));
    return float(0.999 * std::pow(bound, 1 / config_.objectness_power));  // float32 rounds
  }

 protected:
  std::vector<float> prototypes_of(std::vector<float> rows) const override {
    const std::int64_t count = std::int64_t(rows.size()) / config_.vector_dim;
    rows = layer(project1_, tensor("project_semantic.bias1"), rows, count);
    return layer(project2_, tensor("project_semantic.bias2"), rows, count);
  }

  // S: softmax(cosine / temperature) over the unseen classes, for every seen one.
  void complete(ClassSet& classes) const override {
    const std::int64_t seen = classes.seen, unseen = classes.unseen;
    classes.seen_similarity.resize(std::size_t(seen * unseen));
    const float temperature = float(config_.similarity_temperature);
    for (std::int64_t s = 0; s < seen && unseen; ++s) {
      float highest = classes.cosines[std::size_t(s)];
      for (std::int64_t u = 1; u < unseen; ++u)
        highest = std::max(highest, classes.cosines[std::size_t(u * seen + s)]);
      float* row = classes.seen_similarity.data() + s * unseen;
      double sum = 0;
      for (std::int64_t u = 0; u < unseen; ++u) {
        row[u] = std::exp((classes.cosines[std::size_t(u * seen + s)] - highest) / temperature);
        sum += double(row[u]);
      }
      for (std::int64_t u = 0; u < unseen; ++u) row[u] /= float(sum);
    }
  }

 private:
  static zsd::MlpPrecision precision(bool int8) {
    return int8 ? zsd::MlpPrecision::kInt8 : zsd::MlpPrecision::kFloat32;
  }

  static bool negative(const Tensor& values) {
    return std::any_of(values.data.get(), values.data.get() + values.size(),
                       [](float value) { return value < 0; });
  }

  zsd::MlpWeights weights(const std::string& path) const {
    return {tensor(path + "weight1"), tensor(path + "bias1"), tensor(path + "weight2"),
            tensor(path + "bias2"),   config_.joint_dim,      config_.hidden_dim};
  }

  // relu(rows weight' + bias)
  static std::vector<float> layer(const zsd::PackedLinear& linear, const float* bias,
                                  const std::vector<float>& rows, std::int64_t count) {
    const std::int64_t width = linear.outputs();
    std::vector<float> result(std::size_t(count * width));
    linear.multiply(count, rows.data(), result.data());
    for (std::int64_t i = 0; i < count * width; ++i)
      result[std::size_t(i)] = std::max(result[std::size_t(i)] + bias[i % width], 0.0f);
    return result;
  }

  void score_pairs(const Tensor& embeddings, const ClassSet& classes,
                   const std::vector<zsd::MlpOutput>& outputs) const {
    zsd::product_mlp(embeddings.shape[0], 1 + classes.seen + classes.unseen, embeddings.data.get(),
                     classes.prototypes.data(), outputs);
  }

  void activate(const Tensor& logits) const {
    if (config_.seen_activation != "relu") return;
    for (std::int64_t i = 0; i < logits.size(); ++i)
      logits.data.get()[i] = std::max(logits.data.get()[i], 0.0f);
  }

  void fuse(const ScoreInput& input, const ClassSet& classes, const Tensor& logits,
            const Tensor& unseen, const Tensor& result) const {
    const zsd::FuseParams params{logits.shape[0],
                                 classes.seen,
                                 classes.unseen,
                                 config_.fusion == "softmax"   ? zsd::Fusion::kSoftmax
                                 : config_.fusion == "sigmoid" ? zsd::Fusion::kSigmoid
                                                               : zsd::Fusion::kRaw,
                                 float(config_.seen_scale),
                                 float(config_.objectness_power),
                                 config_.seen_evidence};
    const bool weighted = config_.objectness_power > 0;
    zsd::fuse(params, logits.data.get(), unseen.data.get(), classes.seen_similarity.data(),
              weighted ? input.objectness.data() : nullptr, result.data.get());
  }

  // Regions that upper bounds (R, C) do not rule out, and the likeliest of each image: it says how
  // close an image came in which nothing is found.
  static std::vector<std::int64_t> possible(const ScoreInput& input, const Tensor& most) {
    std::vector<std::int64_t> rows;
    const std::int64_t regions = most.shape[0], columns = most.shape[1];
    for (std::int64_t start = 0, end = 0; start < regions; start = end) {
      std::int64_t likeliest = start;
      float highest = -kHidden;
      std::vector<bool> passes;
      for (end = start; end < regions && input.batch_indices[std::size_t(end)] ==
                                             input.batch_indices[std::size_t(start)];
           ++end) {
        bool above = false;
        for (std::int64_t c = 0; c < columns; ++c) {
          const float value = most.data.get()[end * columns + c];
          const float threshold = input.thresholds[std::size_t(c)];
          above = above || value > threshold;
          if (threshold < kHidden && value > highest) highest = value, likeliest = end;
        }
        passes.push_back(above);
      }
      for (std::int64_t r = start; r < end; ++r)
        if (passes[std::size_t(r - start)] || r == likeliest) rows.push_back(r);
    }
    return rows;
  }

  // Whether an upper bound of eq. 14 can rule out a score above the threshold.
  bool bounded(float threshold) const { return config_.fusion != "raw" && threshold > 0; }

  zsd::PackedLinear project1_, project2_;
  zsd::PackedMlp seen_mlp_, unseen_mlp_;
  bool int8_;
};

}  // namespace

std::unique_ptr<Scorer> make_contrast_scorer(const ScoringConfig& config,
                                             const std::map<std::string, Tensor>& tensors,
                                             bool int8) {
  return std::make_unique<ContrastScorer>(config, tensors, int8);
}

}  // namespace contrastzsd
