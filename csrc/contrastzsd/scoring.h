// From class vectors to class scores; the C++ half of zsd_core/scoring.
//
// A user's classes never enter a network: a class is one row of the prototypes and one column of S,
// so adding one computes that row and nothing of the others. K = 1 + Ks + U rows are the
// background, all seen classes of the bundle, and the current unseen classes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "contrastzsd/config.h"
#include "contrastzsd/tensor.h"
#include "kernels/linear.h"

namespace contrastzsd {

constexpr float kHidden = std::numeric_limits<float>::infinity();  // threshold of no report

// What vectors of unseen classes become.
struct ClassRows {
  std::int64_t count = 0;
  std::vector<float> prototypes;  // (n, P)
  std::vector<float> cosines;     // (n, Ks), with every seen class
};

// Everything scoring needs of the classes; never changed once made.
struct ClassSet {
  std::vector<std::string> names;  // of the columns of every score, C = Ks + U: seen, then unseen
  std::int64_t seen = 0, unseen = 0;              // Ks, U
  std::int64_t width = 0;                         // P
  std::vector<float> prototypes;                  // (1 + Ks + U, P)
  std::vector<float> cosines;                     // (U, Ks)
  std::vector<float> seen_similarity;             // (Ks, U), S, where the method has it
  std::shared_ptr<const zsd::PackedLinear> rows;  // (Ks + U, P), likewise
  std::int64_t version = 0;
};

// Regions of a batch as scoring sees them, and which of their scores matter.
struct ScoreInput {
  const Tensor& embeddings;                 // (L, D), what the head says of the regions it saw
  const std::vector<std::int64_t>& looked;  // (L,), which regions these are
  const Tensor& logits;                     // (R, Ks) that the trunk gives, or (R, 0)
  const std::vector<float>& objectness;     // (R,)
  const std::vector<std::int32_t>& batch_indices;  // (R,), ascending
  const std::vector<float>& thresholds;            // (C,) of scores, kHidden: not asked for
};

// Never overflows, and keeps tiny probabilities.
inline float stable_sigmoid(float logit) {
  return std::exp(std::min(logit, 0.0f)) / (1.0f + std::exp(-std::abs(logit)));
}

class Scorer {
 public:
  // Throws BundleError: a tensor is missing, or two do not fit each other.
  Scorer(const ScoringConfig& config, const std::map<std::string, Tensor>& tensors,
         const std::map<std::string, std::string>& shapes);
  virtual ~Scorer() = default;

  // Scores (R, C). One at or below its threshold may come out lower than it is.
  virtual Tensor score(const ScoreInput& input, const ClassSet& classes) const = 0;
  // Regions with less objectness than this have no score above `threshold`; or 0.
  virtual float least_objectness(float threshold) const;

  // The set of the seen classes alone, which every other set begins with.
  ClassSet known(const std::vector<std::string>& names, const float* vectors);
  // What unseen classes with vectors (n, E) become. Throws ClassError: one has no direction.
  ClassRows rows(const std::vector<std::string>& names, std::vector<float> vectors) const;
  // Unseen classes at the end.
  ClassSet append(const ClassSet& old, const std::vector<std::string>& names,
                  const ClassRows& rows) const;
  // The unseen classes of these positions only (0 is the first unseen), in this order.
  ClassSet keep(const ClassSet& old, const std::vector<std::int64_t>& unseen) const;

 protected:
  // Rows (n, P) of unit vectors (n, E); no row may depend on another.
  virtual std::vector<float> prototypes_of(std::vector<float> vectors) const = 0;
  // Adds what the method needs of the set as a whole; the last step of every change.
  virtual void complete(ClassSet& classes) const = 0;

  const float* tensor(const std::string& name) const { return tensors_.at(name).data.get(); }
  std::int64_t side(const std::string& name) const { return tensors_.at(name).shape[0]; }

  const ScoringConfig config_;

 private:
  // Throws BundleError: the weights are so large that a row is not finite.
  std::vector<float> finite_prototypes_of(std::vector<float> vectors) const;
  void bring_to_unit(const std::vector<std::string>& names, std::vector<float>& vectors) const;

  std::map<std::string, Tensor> tensors_;
  std::unique_ptr<const zsd::PackedLinear> seen_vectors_;  // (Ks, E)
};

// The scorer of config.method. Throws BundleError: no such method, or its tensors do not fit;
// ConfigError: the method has no int8.
std::unique_ptr<Scorer> make_scorer(const ScoringConfig& config,
                                    const std::map<std::string, Tensor>& tensors, bool int8);
// One file each.
std::unique_ptr<Scorer> make_contrast_scorer(const ScoringConfig& config,
                                             const std::map<std::string, Tensor>& tensors,
                                             bool int8);
std::unique_ptr<Scorer> make_conse_scorer(const ScoringConfig& config,
                                          const std::map<std::string, Tensor>& tensors);
std::unique_ptr<Scorer> make_prototype_scorer(const ScoringConfig& config,
                                              const std::map<std::string, Tensor>& tensors);

}  // namespace contrastzsd
