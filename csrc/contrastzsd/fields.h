// Fields of a JSON object that a stranger may have written.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "contrastzsd/errors.h"

namespace contrastzsd {

constexpr std::size_t kMostValues = 64;  // of a list; the same as zsd_core/config.py

// Whether a value is a whole number between `lowest` and `highest`.
bool is_whole(const nlohmann::json& value, std::int64_t lowest, std::int64_t highest = INT64_MAX);

// Reads the fields of a JSON object, each once. A field that is left out keeps its default; one
// that nobody reads is an error, since it may change what the model means.
class Fields {
 public:
  // `where` names the object in messages.
  Fields(const nlohmann::json& object, std::string where);

  // Kernels count in 32 bits.
  void read(const char* key, std::int64_t& value, std::int64_t lowest,
            std::int64_t highest = INT32_MAX);
  void read(const char* key, double& value, double lowest, double highest);
  void read(const char* key, bool& value);
  // One of `choices`.
  void read(const char* key, std::string& value, std::initializer_list<const char*> choices);
  void read(const char* key, std::string& value);
  // Numbers, each above 0 and up to `highest`; 1 to kMostValues of them.
  void read(const char* key, std::vector<double>& values, double highest);
  void read(const char* key, std::vector<std::int64_t>& values);
  // Fields that only training reads are checked all the same: whoever reads a bundle refuses the
  // same ones.
  void check(const char* key, std::int64_t lowest, std::int64_t highest);
  void check(const char* key, std::initializer_list<const char*> choices);
  void check_flag(const char* key);
  void check_text(const char* key);
  // A list of 1 to kMostValues values, or null where it is left out.
  const nlohmann::json* list(const char* key);
  // The field, or null where it is left out.
  const nlohmann::json* take(const char* key);
  // Throws BundleError: a field was not read.
  void finish() const;
  // A number of a field. Throws BundleError: float, which kernels compute in, would make it 0 or
  // infinite, or nearly so; the same as zsd_core/options.py.
  double as_float32(const char* key, const nlohmann::json& number) const;
  // Of a field whose value breaks a rule.
  BundleError error(const char* key, const std::string& rule) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string> read_;
};

}  // namespace contrastzsd
