#include "contrastzsd/bundle.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/files.h"
#include "contrastzsd/manifest.h"
#include "contrastzsd/onnx_file.h"
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

// The file of a network. By another name than .onnx, a backend would take another parser.
std::filesystem::path network_file(const std::filesystem::path& bundle, const std::string& name,
                                   const std::map<std::string, FileRecord>& files) {
  const std::string suffix = ".onnx";
  if (name.size() < suffix.size() ||
      name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0)
    throw BundleError(bundle.string() + ": the network " + in_quotes(name) +
                      " must be an ONNX file whose name ends in " + suffix +
                      ". Export the bundle again.");
  check_weights(bundle, name, files);
  return bundle / name;
}

using Shape = std::vector<std::int64_t>;

std::string shape_of(const StoredTensor& tensor) {
  std::string text = tensor.dtype + " (";
  for (const std::int64_t side : tensor.shape) text += std::to_string(side) + ", ";
  return text + ")";
}

void read_words(const std::filesystem::path& path, const Manifest& manifest, Tensor& class_vectors,
                std::unique_ptr<const Vocabulary>& vocabulary) {
  const std::string where = path.string() + "/" + kVocabularyFile;
  const std::int64_t width = manifest.model.scoring.vector_dim;
  auto words = read_safetensors(path, kVocabularyFile, {"F32", "I8", "U8"});
  const Shape wanted = {std::int64_t(manifest.seen.size() + manifest.unseen.size()), width};
  if (!words.count("classes") || words["classes"].shape != wanted)
    throw BundleError(where + ": tensor 'classes' is missing or does not have the shape (" +
                      std::to_string(wanted[0]) + ", " + std::to_string(width) +
                      ") that the manifest means. Export the bundle again.");
  class_vectors = words["classes"].floats(where + ": tensor 'classes'");

  for (const char* text : {"names", "ordinary"}) {
    const StoredTensor& tensor = words.emplace(text, StoredTensor{"U8", {0}, ""}).first->second;
    if (tensor.dtype != "U8" || tensor.shape.size() != 1 || !is_text(tensor.bytes))
      throw BundleError(where + ": tensor " + in_quotes(text) + " is not text (UTF-8, of U8).");
  }
  const std::string& names = words["names"].bytes;
  const std::int64_t count =
      names.empty() ? 0 : std::int64_t(std::count(names.begin(), names.end(), '\n')) + 1;
  const StoredTensor& vectors =
      words.emplace("vectors", StoredTensor{"I8", {0, width}, ""}).first->second;
  const StoredTensor& scales = words.emplace("scales", StoredTensor{"F32", {0}, ""}).first->second;
  if (vectors.dtype != "I8" || vectors.shape != Shape{count, width} || scales.dtype != "F32" ||
      scales.shape != Shape{count})
    throw BundleError(where + ": " + std::to_string(count) + " names, vectors of " +
                      shape_of(vectors) + " and scales of " + shape_of(scales) +
                      " do not agree for width " + std::to_string(width) +
                      ". Export the bundle again.");
  const Tensor factors = scales.floats(where + ": tensor 'scales'");
  vocabulary = std::make_unique<const Vocabulary>(
      names, std::vector<std::int8_t>(vectors.bytes.begin(), vectors.bytes.end()),
      std::vector<float>(factors.data.get(), factors.data.get() + factors.size()), width);
}

}  // namespace

Bundle::Bundle(const std::filesystem::path& path) {
  check_directory(path);
  auto contents = std::make_unique<Contents>();
  contents->path = path;
  contents->manifest = read_manifest(path);
  for (const auto& [name, record] : contents->manifest.files)
    if (name.rfind("engines/", 0) != 0) verify_file(path, name, record);
  for (const auto& [name, tensor] : read_safetensors(path, kScorerFile, {"F32"}))
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
  const auto& files = contents_->manifest.files;
  if (precision == "float32") return network_file(path(), this->stage(stage).file, files);
  const auto& made = contents_->manifest.precisions;
  if (const auto found = made.find(precision); found != made.end())
    if (const auto networks = found->second.find(family); networks != found->second.end())
      if (const auto file = networks->second.files.find(stage);
          file != networks->second.files.end())
        return network_file(path(), file->second, files);
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
