// Opens bundles whose manifest, scorer or vocabulary a stranger wrote, makes their classes and
// scores a few regions: each must be read, or be refused by an error of the library with a
// sentence.
//
// The first byte of an input names the file, the rest is its content. FUZZ_BUNDLE is a folder with
// a good bundle, which this program changes. Built by CMakeLists.txt beside it.
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "contrastzsd/bundle.h"
#include "contrastzsd/classes.h"
#include "contrastzsd/errors.h"
#include "contrastzsd/pipeline.h"
#include "contrastzsd/scoring.h"
#include "contrastzsd/text.h"

namespace {

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write(const std::string& path, const std::string& data) {
  std::ofstream(path, std::ios::binary).write(data.data(), std::streamsize(data.size()));
}

// A file's entry in the manifest, as Python writes it.
std::string record(const std::string& data) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  EVP_Digest(data.data(), data.size(), digest.data(), &size, EVP_sha256(), nullptr);
  std::string hash;
  for (unsigned int i = 0; i < size; ++i)
    for (const int nibble : {digest[i] >> 4, digest[i] & 15}) hash += "0123456789abcdef"[nibble];
  return "{\"sha256\": \"" + hash + "\", \"bytes\": " + std::to_string(data.size()) + "}";
}

struct Good {
  std::string folder = std::getenv("FUZZ_BUNDLE") ? std::getenv("FUZZ_BUNDLE") : "";
  std::array<std::string, 3> names = {"manifest.json", "scorer.safetensors",
                                      "vocabulary.safetensors"};
  std::array<std::string, 3> contents;

  Good() {
    for (std::size_t i = 0; i < names.size(); ++i) contents[i] = content(folder + "/" + names[i]);
    if (contents[0].empty()) {
      std::fprintf(stderr, "FUZZ_BUNDLE must name a folder with a bundle.\n");
      std::exit(2);
    }
  }

  std::string manifest_with(std::size_t file, const std::string& data) const {
    std::string manifest = contents[0];
    const std::string old = record(contents[file]);
    const std::size_t at = manifest.find(old);
    if (at == std::string::npos) {
      std::fprintf(stderr, "%s: no entry of %s as expected.\n", folder.c_str(),
                   names[file].c_str());
      std::exit(2);
    }
    return manifest.replace(at, old.size(), record(data));
  }
};

void check_numbers(const contrastzsd::Tensor& tensor) {
  for (std::int64_t i = 0; i < tensor.size(); ++i)
    if (!std::isfinite(tensor.data.get()[i])) std::abort();
}

// What a program may ask of a bundle that was opened; it may be refused, too.
void use(const contrastzsd::Bundle& bundle) try {
  const contrastzsd::Vocabulary& words = bundle.vocabulary();
  for (std::int64_t row = 0; row < words.size() && row < 20; ++row) {
    if (words.find(words.names()[std::size_t(row)]) < 0) std::abort();
    words.vector(row);
  }
  words.search("fire truck", 3, bundle.seen());
  check_numbers(bundle.class_vectors());
  for (const auto& [name, tensor] : bundle.scorer_tensors()) check_numbers(tensor);
  bundle.full_range_int8("int8", "openvino");
  for (const char* stage : {"trunk", "head"}) bundle.network(stage, "float32", "onnxruntime");
} catch (const contrastzsd::Error& error) {
  if (error.what()[0] == '\0') std::abort();
}

// Scores made-up regions by all classes of the bundle's table.
void score(const std::shared_ptr<const contrastzsd::Bundle>& bundle) {
  const contrastzsd::ScoringConfig& config = bundle->config().scoring;
  const auto scorer = contrastzsd::make_scorer(config, bundle->scorer_tensors(), false);
  const contrastzsd::ClassTable table(bundle, *scorer);
  const auto active = table.activate({}, contrastzsd::Mode::kGzsd, 0);
  const contrastzsd::ClassSet& classes = *active.set;
  const auto embeddings = contrastzsd::Tensor::make({3, config.joint_dim});
  for (std::int64_t i = 0; i < embeddings.size(); ++i) embeddings.data.get()[i] = float(i % 5) / 4;
  const auto logits = contrastzsd::Tensor::make({3, 0});  // of a given detector, which this is not
  const std::vector<float> thresholds(std::size_t(classes.seen + classes.unseen), 0.0f);
  contrastzsd::check_finite(
      "scoring",
      scorer->score({embeddings, {0, 1, 2}, logits, {1, 0.5f, 0}, {0, 0, 0}, thresholds}, classes));
}

// Why the bundle is refused; "" if it is taken.
std::string refusal(const std::string& folder) {
  try {
    const auto bundle = std::make_shared<const contrastzsd::Bundle>(folder);
    use(*bundle);
    score(bundle);
    return "";
  } catch (const contrastzsd::Error& error) {
    if (error.what()[0] == '\0') std::abort();
    return error.what();
  }
}

// Why an input is refused; "" if it is taken.
std::string tried(const std::uint8_t* data, std::size_t size) {
  static const Good good;
  const std::size_t file = data[0] % good.names.size();
  const std::string given(reinterpret_cast<const char*>(data) + 1, size - 1);
  static std::size_t last = 0;
  if (last != 0) write(good.folder + "/" + good.names[last], good.contents[last]);
  last = file;
  write(good.folder + "/" + good.names[file], given);
  if (file != 0) write(good.folder + "/" + good.names[0], good.manifest_with(file, given));
  return refusal(good.folder);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size != 0) tried(data, size);
  return 0;
}

#ifdef ZSD_FUZZ_MAIN
// Standard input: inputs, each behind its length in 4 bytes, little-endian. Prints a line for each
// when it is done, so that the one which ends the process is known: "taken", or "refused" and why.
int main() {
  std::string input;
  for (unsigned char bytes[4]; std::fread(bytes, 1, 4, stdin) == 4;) {
    input.resize(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | std::size_t(bytes[3]) << 24);
    if (std::fread(input.data(), 1, input.size(), stdin) != input.size() || input.empty()) return 2;
    std::string why = tried(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
    std::replace(why.begin(), why.end(), '\n', ' ');
    std::puts(why.empty() ? "taken" : ("refused: " + why.substr(0, 300)).c_str());
    std::fflush(stdout);
  }
}
#endif
