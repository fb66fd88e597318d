// The manifest of a bundle, parsed and checked: everything that this version relies on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "contrastzsd/bundle.h"
#include "contrastzsd/files.h"

namespace contrastzsd {

constexpr const char* kScorerFile = "scorer.safetensors";
constexpr const char* kVocabularyFile = "vocabulary.safetensors";

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

// The networks of a manifest. Throws BundleError.
void read_stages(const std::string& where, const nlohmann::json& stages, Manifest& manifest);

// The trunk must give what the model's regions need, and the head read them. Throws BundleError.
void check_stages(const std::string& where, const nlohmann::json& stages, const Manifest& manifest);

// Throws BundleError: not there, not JSON, too new, or not as a manifest must be.
Manifest read_manifest(const std::filesystem::path& bundle);

}  // namespace contrastzsd
