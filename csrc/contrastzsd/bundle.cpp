#include "contrastzsd/bundle.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/files.h"
#include "contrastzsd/manifest.h"
#include "contrastzsd/text.h"

namespace contrastzsd {

struct Bundle::Contents {
  std::filesystem::path path;
  Manifest manifest;
  std::map<std::string, Tensor> scorer;
  Tensor class_vectors;
  std::unique_ptr<const Vocabulary> vocabulary;
};

namespace {

void check_directory(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return;
  if (std::filesystem::is_regular_file(path, error) && path.extension() == ".zip")
    throw BundleError(path.string() +
                      ": bundles are read from a directory here; unpack it first: unzip " +
                      path.string() + " -d " + path.stem().string());
  throw BundleError(path.string() + ": no such bundle; pass the directory that export.onnx wrote.");
}

// The trunk must make the maps that the regions are cut from, and what the regions come from.
void check_maps(const std::string& where, const Manifest& manifest) {
  const RegionConfig& regions = manifest.model.regions;
  std::vector<std::string> wanted;
  if (!regions.from_image())
    for (const auto& map : regions.maps) wanted.push_back(map.name);
  if (manifest.model.proposals.source == "queries")
    wanted.insert(wanted.end(), {"boxes", "logits"});
  else
    wanted.insert(wanted.end(), {"objectness", "deltas"});
  const auto trunk = manifest.stages.find("trunk"), head = manifest.stages.find("head");
  if (trunk != manifest.stages.end() && trunk->second.outputs != wanted)
    throw BundleError(where + ": the trunk's outputs are " + list_in_quotes(trunk->second.outputs) +
                      ", model.regions means " + list_in_quotes(wanted) +
                      ". Export the bundle again.");
  if (head != manifest.stages.end() &&
      (head->second.inputs.size() != manifest.model.regions.maps.size() ||
       head->second.outputs.size() != 2))
    throw BundleError(
        where + ": the head has " + std::to_string(head->second.inputs.size()) + " inputs and " +
        std::to_string(head->second.outputs.size()) +
        " outputs, must have one input a map and 2 outputs. Export the bundle again.");
}

void read_words(const std::filesystem::path& path, const Manifest& manifest, Tensor& class_vectors,
                std::unique_ptr<const Vocabulary>& vocabulary) {
  const std::string where = path.string() + "/" + kVocabularyFile;
  const std::int64_t width = manifest.model.scoring.vector_dim;
  auto words = read_safetensors(path, kVocabularyFile);
  const std::vector<std::int64_t> wanted = {
      std::int64_t(manifest.seen.size() + manifest.unseen.size()), width};
  if (!words.count("classes") || words["classes"].shape != wanted)
    throw BundleError(where + ": tensor 'classes' is missing or does not have the shape (" +
                      std::to_string(wanted[0]) + ", " + std::to_string(width) +
                      ") that the manifest means. Export the bundle again.");
  class_vectors = words["classes"].floats(where + ": tensor 'classes'");

  for (const char* text : {"names", "ordinary"})
    if (words.count(text) && !is_text(words[text].bytes))
      throw BundleError(where + ": tensor " + in_quotes(text) + " is not text (UTF-8).");
  std::string names = words.count("names") ? words["names"].bytes : "";
  std::vector<std::int8_t> vectors;
  std::vector<float> scales;
  if (words.count("vectors")) {
    const std::string& bytes = words["vectors"].bytes;
    vectors.assign(bytes.begin(), bytes.end());
  }
  if (words.count("scales")) {
    const Tensor tensor = words["scales"].floats(where + ": tensor 'scales'");
    scales.assign(tensor.data.get(), tensor.data.get() + tensor.size());
  }
  const std::size_t count =
      names.empty() ? 0 : std::size_t(std::count(names.begin(), names.end(), '\n')) + 1;
  if (scales.size() != count || vectors.size() != count * std::size_t(width) ||
      (count && words["vectors"].dtype != "I8"))
    throw BundleError(where + ": " + std::to_string(count) + " names, " +
                      std::to_string(vectors.size()) + " numbers and " +
                      std::to_string(scales.size()) + " scales do not agree for width " +
                      std::to_string(width) + ". Export the bundle again.");
  vocabulary = std::make_unique<const Vocabulary>(std::move(names), std::move(vectors),
                                                  std::move(scales), width);
}

}  // namespace

Bundle::Bundle(const std::filesystem::path& path) {
  check_directory(path);
  auto contents = std::make_unique<Contents>();
  contents->path = path;
  contents->manifest = read_manifest(path);
  check_maps((path / "manifest.json").string(), contents->manifest);
  for (const auto& [name, record] : contents->manifest.files)
    if (name.rfind("engines/", 0) != 0) verify_file(path, name, record);
  for (const auto& [name, tensor] : read_safetensors(path, kScorerFile))
    contents->scorer[name] =
        tensor.floats(path.string() + "/" + kScorerFile + ": tensor " + in_quotes(name));
  read_words(path, contents->manifest, contents->class_vectors, contents->vocabulary);
  contents_ = std::move(contents);
}

Bundle::~Bundle() = default;

const std::filesystem::path& Bundle::path() const { return contents_->path; }
const std::string& Bundle::name() const { return contents_->manifest.name; }
const ModelConfig& Bundle::config() const { return contents_->manifest.model; }
const std::vector<std::string>& Bundle::seen() const { return contents_->manifest.seen; }
const std::vector<std::string>& Bundle::unseen() const { return contents_->manifest.unseen; }
const Tensor& Bundle::class_vectors() const { return contents_->class_vectors; }
const Vocabulary& Bundle::vocabulary() const { return *contents_->vocabulary; }
const std::string& Bundle::encoder() const { return contents_->manifest.encoder; }
const std::map<std::string, Tensor>& Bundle::scorer_tensors() const { return contents_->scorer; }

const Bundle::Stage& Bundle::stage(const std::string& name) const {
  const auto found = contents_->manifest.stages.find(name);
  if (found != contents_->manifest.stages.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, entry] : contents_->manifest.stages) names.push_back(known);
  throw BundleError(path().string() + ": no stage " + in_quotes(name) + ", only " +
                    list_in_quotes(names) + ".");
}

std::filesystem::path Bundle::network(const std::string& stage, const std::string& precision,
                                      const std::string& family) const {
  if (precision == "float32") return path() / this->stage(stage).file;
  const auto& made = contents_->manifest.precisions;
  if (const auto found = made.find(precision); found != made.end())
    if (const auto networks = found->second.find(family); networks != found->second.end())
      if (const auto file = networks->second.files.find(stage);
          file != networks->second.files.end())
        return path() / file->second;
  std::vector<std::string> names = {"float32"};
  for (const auto& [known, entry] : made) names.push_back(known);
  throw BundleError(path().string() + ": no " + stage + " in " + in_quotes(precision) + " for " +
                    family + ", only " + list_in_quotes(names) + ".");
}

bool Bundle::full_range_int8(const std::string& precision, const std::string& family) const {
  const auto& made = contents_->manifest.precisions;
  const auto found = made.find(precision);
  if (found == made.end() || !found->second.count(family)) return false;
  return found->second.at(family).weight_levels > 64;
}

}  // namespace contrastzsd
