// The words a bundle knows: names, their vectors stored small, and a search for misspelt ones.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace contrastzsd {

class Vocabulary {
 public:
  // `packed_names` holds one name a line, UTF-8; row r is vectors[r] * scales[r], (V, width).
  Vocabulary(std::string packed_names, std::vector<std::int8_t> vectors, std::vector<float> scales,
             std::int64_t width);

  std::int64_t size() const { return std::int64_t(scales_.size()); }
  const std::vector<std::string>& names() const { return names_; }

  // The row of a name, or -1. Case, underscores, runs of blanks and ways to write an accent do not
  // matter (Unicode NFKC, then full case folding). A name that is not there as it is written stands
  // for one with other accents, quotes or hyphens: "café" for "cafe".
  std::int64_t find(const std::string& name) const;
  // The vector (width,) of a row, of unit length.
  std::vector<float> vector(std::int64_t row) const;
  // The names that are spelt most like `text`, best first; names of `also` come before equals.
  std::vector<std::string> search(const std::string& text, std::size_t count,
                                  const std::vector<std::string>& also = {}) const;

 private:
  const std::unordered_map<std::string, std::int64_t>& rows() const;

  std::vector<std::string> names_;
  std::vector<std::int8_t> vectors_;
  std::vector<float> scales_;
  std::int64_t width_;
  mutable std::once_flag folded_;  // folding all names waits for the first question
  mutable std::unordered_map<std::string, std::int64_t> rows_, plain_rows_;
};

}  // namespace contrastzsd
