// The manifest of a bundle, parsed and checked: everything that this version relies on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "contrastzsd/bundle.h"
#include "contrastzsd/errors.h"
#include "contrastzsd/files.h"

namespace contrastzsd {

constexpr const char* kScorerFile = "scorer.safetensors";
constexpr const char* kVocabularyFile = "vocabulary.safetensors";

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
  // Numbers, each above 0; as many as there are.
  void read(const char* key, std::vector<double>& values);
  // Fields of training only.
  void ignore(std::initializer_list<const char*> keys);
  // The field, or null where it is left out.
  const nlohmann::json* take(const char* key);
  // Throws BundleError: a field was not read.
  void finish() const;
  // Of a field whose value breaks a rule.
  BundleError error(const char* key, const std::string& rule) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string> read_;
};

// "model" of a manifest. Throws BundleError.
ModelConfig read_model(const nlohmann::json& model, const std::string& where);

struct Manifest {
  std::string name, encoder;
  ModelConfig model;
  std::vector<std::string> seen, unseen;
  std::map<std::string, Bundle::Stage> stages;
  std::map<std::string, FileRecord> files;
  // Of a precision and a family of backends: file of each network, and levels of its weights.
  struct Networks {
    std::map<std::string, std::string> files;
    std::int64_t weight_levels = 0;
  };
  std::map<std::string, std::map<std::string, Networks>> precisions;
};

// Throws BundleError: not there, not JSON, too new, or not as a manifest must be.
Manifest read_manifest(const std::filesystem::path& bundle);

}  // namespace contrastzsd
