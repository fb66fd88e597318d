#include "contrastzsd/scoring.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"
#include "contrastzsd/vectors.h"

namespace contrastzsd {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "(" + text + ")";
}

std::vector<float> copied(const std::vector<float>& values, std::size_t spare) {
  std::vector<float> result;
  result.reserve(values.size() + spare);
  result.insert(result.end(), values.begin(), values.end());
  return result;
}

}  // namespace

Scorer::Scorer(const ScoringConfig& config, const std::map<std::string, Tensor>& tensors,
               const std::map<std::string, std::string>& shapes)
    : config_(config) {
  // A letter stands for a size: of the configuration, or of the tensor that has it first.
  std::map<std::string, std::int64_t> sizes = {
      {"E", config.vector_dim}, {"D", config.joint_dim}, {"M", config.hidden_dim}, {"1", 1}};
  auto wanted = shapes;
  if (config.center) wanted["center"] = "E";
  for (const auto& [name, formula] : wanted) {
    const auto found = tensors.find(name);
    if (found == tensors.end())
      throw BundleError("scoring method " + in_quotes(config.method) + ": tensor " +
                        in_quotes(name) + " is missing; export the checkpoint again.");
    const std::vector<std::int64_t>& shape = found->second.shape;
    std::vector<std::int64_t> expected;
    std::istringstream letters(formula);
    for (std::string letter; letters >> letter;) {
      const std::size_t axis = expected.size();
      const std::int64_t first = axis < shape.size() ? shape[axis] : 0;
      const bool literal = letter[0] >= '0' && letter[0] <= '9';
      expected.push_back(literal ? std::stoll(letter) : sizes.emplace(letter, first).first->second);
    }
    if (shape != expected)
      throw BundleError("scoring method " + in_quotes(config.method) + ": tensor " +
                        in_quotes(name) + " has shape " + shape_text(shape) + ", the model means " +
                        shape_text(expected) + "; export the checkpoint again.");
    tensors_[name] = found->second;
  }
}

float Scorer::least_objectness(float) const { return 0; }

void Scorer::bring_to_unit(const std::vector<std::string>& names,
                           std::vector<float>& vectors) const {
  const std::int64_t width = config_.vector_dim;
  for (std::size_t n = 0; n < names.size(); ++n) {
    float* row = vectors.data() + std::int64_t(n) * width;
    scale_to_unit(row, width, names[n]);
    if (!config_.center) continue;
    for (std::int64_t i = 0; i < width; ++i) row[i] -= tensor("center")[i];
    scale_to_unit(row, width, names[n]);
  }
}

std::vector<float> Scorer::finite_prototypes_of(std::vector<float> vectors) const {
  std::vector<float> rows = prototypes_of(std::move(vectors));
  if (!std::all_of(rows.begin(), rows.end(), [](float value) { return std::isfinite(value); }))
    throw BundleError(
        "a class becomes numbers that are not finite; the weights of this bundle are too large. Do "
        "not use it.");
  return rows;
}

ClassSet Scorer::known(const std::vector<std::string>& names, const float* vectors) {
  const std::int64_t width = config_.vector_dim, count = std::int64_t(names.size());
  std::vector<float> seen(vectors, vectors + count * width);
  bring_to_unit(names, seen);
  seen_vectors_ = std::make_unique<const zsd::PackedLinear>(seen.data(), count, width);
  std::vector<float> rows(tensor("background"), tensor("background") + width);
  rows.insert(rows.end(), seen.begin(), seen.end());
  ClassSet result;
  result.names = names;
  result.seen = count;
  result.prototypes = finite_prototypes_of(std::move(rows));
  result.width = std::int64_t(result.prototypes.size()) / (1 + count);
  return result;
}

ClassRows Scorer::rows(const std::vector<std::string>& names, std::vector<float> vectors) const {
  bring_to_unit(names, vectors);
  ClassRows result;
  result.count = std::int64_t(names.size());
  result.cosines.resize(names.size() * std::size_t(seen_vectors_->outputs()));
  seen_vectors_->multiply(result.count, vectors.data(), result.cosines.data());
  result.prototypes = finite_prototypes_of(std::move(vectors));
  return result;
}

ClassSet Scorer::append(const ClassSet& old, const std::vector<std::string>& names,
                        const ClassRows& rows) const {
  ClassSet result;
  result.names = old.names;
  result.seen = old.seen;
  result.unseen = old.unseen + rows.count;
  result.width = old.width;
  result.prototypes = copied(old.prototypes, rows.prototypes.size());
  result.cosines = copied(old.cosines, rows.cosines.size());
  result.version = old.version + 1;
  result.names.insert(result.names.end(), names.begin(), names.end());
  result.prototypes.insert(result.prototypes.end(), rows.prototypes.begin(), rows.prototypes.end());
  result.cosines.insert(result.cosines.end(), rows.cosines.begin(), rows.cosines.end());
  complete(result);
  return result;
}

ClassSet Scorer::keep(const ClassSet& old, const std::vector<std::int64_t>& unseen) const {
  const std::int64_t known = 1 + old.seen;
  ClassSet result;
  result.names.assign(old.names.begin(), old.names.begin() + old.seen);
  result.seen = old.seen;
  result.unseen = std::int64_t(unseen.size());
  result.width = old.width;
  result.version = old.version + 1;
  const auto take = [](const std::vector<float>& from, std::int64_t first, std::int64_t rows,
                       std::int64_t width, std::vector<float>& to) {
    to.insert(to.end(), from.begin() + first * width, from.begin() + (first + rows) * width);
  };
  take(old.prototypes, 0, known, old.width, result.prototypes);
  for (const std::int64_t position : unseen) {
    result.names.push_back(old.names[std::size_t(old.seen + position)]);
    take(old.prototypes, known + position, 1, old.width, result.prototypes);
    take(old.cosines, position, 1, old.seen, result.cosines);
  }
  complete(result);
  return result;
}

std::unique_ptr<Scorer> make_scorer(const ScoringConfig& config,
                                    const std::map<std::string, Tensor>& tensors, bool int8) {
  if (config.method == "contrastzsd") return make_contrast_scorer(config, tensors, int8);
  if (config.method != "conse" && config.method != "prototypes")
    throw BundleError("model.scoring.method is " + in_quotes(config.method) +
                      ", and this version runs only 'conse', 'contrastzsd' and 'prototypes'.");
  if (int8)
    throw ConfigError("int8_scoring is true, and method " + in_quotes(config.method) +
                      " has no int8; leave it false.");
  return config.method == "conse" ? make_conse_scorer(config, tensors)
                                  : make_prototype_scorer(config, tensors);
}

}  // namespace contrastzsd
