#include "contrastzsd/vocabulary.h"

#include <cmath>
#include <unordered_set>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"
#include "contrastzsd/vectors.h"

namespace contrastzsd {

Vocabulary::Vocabulary(std::string packed_names, std::vector<std::int8_t> vectors,
                       std::vector<float> scales, std::int64_t width)
    : vectors_(std::move(vectors)), scales_(std::move(scales)), width_(width) {
  for (std::size_t start = 0; !packed_names.empty();) {
    const std::size_t end = packed_names.find('\n', start);
    names_.push_back(packed_names.substr(start, end - start));
    if (end == std::string::npos) break;
    start = end + 1;
  }
}

const std::unordered_map<std::string, std::int64_t>& Vocabulary::rows() const {
  std::call_once(folded_, [this] {
    rows_.reserve(names_.size());
    for (std::size_t i = 0; i < names_.size(); ++i)
      rows_.emplace(fold_name(names_[i]), std::int64_t(i));  // the first of a name wins
    plain_rows_ = rows_;  // a name that is written so comes first
    for (std::size_t i = 0; i < names_.size(); ++i)
      plain_rows_.emplace(plain_name(names_[i]), std::int64_t(i));
  });
  return rows_;
}

std::int64_t Vocabulary::find(const std::string& name) const {
  const auto found = rows().find(fold_name(name));
  if (found != rows().end()) return found->second;
  const auto plain = plain_rows_.find(plain_name(name));
  return plain == plain_rows_.end() ? -1 : plain->second;
}

std::vector<float> Vocabulary::vector(std::int64_t row) const {
  std::vector<float> result(std::size_t(width_), 0.0f);
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = float(vectors_[std::size_t(row * width_) + i]) * scales_[std::size_t(row)];
  scale_to_unit(result.data(), width_, names_[std::size_t(row)]);
  return result;
}

std::vector<std::string> Vocabulary::search(const std::string& text, std::size_t count,
                                            const std::vector<std::string>& also) const {
  std::unordered_set<std::string> known;
  for (const std::string& name : also) known.insert(fold_name(name));
  std::vector<std::string> all = also;
  for (const std::string& name : names_)
    if (!known.count(fold_name(name))) all.push_back(name);
  return rank_names(text, all, count);
}

}  // namespace contrastzsd
