#include "contrastzsd/files.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

std::string where(const std::filesystem::path& bundle, const std::string& name) {
  return bundle.string() + ": " + name;
}

std::ifstream opened(const std::filesystem::path& bundle, const std::string& name) {
  std::ifstream file(bundle / name, std::ios::binary);
  if (!file)
    throw BundleError(where(bundle, name) + " cannot be read: " + std::strerror(errno) + ".");
  return file;
}

std::string sha256(const std::filesystem::path& bundle, const std::string& name) {
  std::ifstream file = opened(bundle, name);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  bool works = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  std::vector<char> block(std::size_t(1) << 20);
  while (works && file) {
    file.read(block.data(), std::streamsize(block.size()));
    works = EVP_DigestUpdate(context.get(), block.data(), std::size_t(file.gcount())) == 1;
  }
  if (file.bad()) throw BundleError(where(bundle, name) + " cannot be read to its end.");
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (!works || EVP_DigestFinal_ex(context.get(), digest, &size) != 1)
    throw Error("OpenSSL computes no SHA-256 here; is it restricted to other hashes?");
  std::string text;
  for (unsigned int i = 0; i < size; ++i)
    for (const int nibble : {digest[i] >> 4, digest[i] & 15}) text += "0123456789abcdef"[nibble];
  return text;
}

constexpr int kDeepest = 100;          // levels of JSON
constexpr std::size_t kLongest = 200;  // characters of a name

bool is_device(const std::string& part) {
  static const std::set<std::string> named = {"con", "prn", "aux", "nul"};
  std::string stem = lower(part.substr(0, part.find('.')));
  while (!stem.empty() && stem.back() == ' ') stem.pop_back();
  const std::string kind = stem.substr(0, 3);
  const bool numbered =
      stem.size() == 4 && (kind == "com" || kind == "lpt") && stem[3] >= '0' && stem[3] <= '9';
  return named.count(stem) || numbered;
}

std::int64_t bytes_of(const std::string& dtype) {
  static const std::map<std::string, std::int64_t> bytes = {
      {"BOOL", 1}, {"I8", 1},  {"U8", 1},  {"F16", 2}, {"BF16", 2}, {"I16", 2}, {"U16", 2},
      {"F32", 4},  {"I32", 4}, {"U32", 4}, {"F64", 8}, {"I64", 8},  {"U64", 8}};
  const auto found = bytes.find(dtype);
  return found == bytes.end() ? 0 : found->second;
}

}  // namespace

std::string lower(std::string text) {
  for (char& letter : text)
    if (letter >= 'A' && letter <= 'Z') letter = char(letter - 'A' + 'a');
  return text;
}

void check_name(const std::filesystem::path& bundle, const std::string& name) {
  static const std::string marks = "._-+=@,()[]{}!#$%&'~^ /";
  const auto is_plain = [](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') || marks.find(letter) != std::string::npos;
  };
  const std::string small = lower(name);
  bool plain = !name.empty() && name.size() <= kLongest && small != "manifest.json" &&
               small != "model.sig" && std::all_of(name.begin(), name.end(), is_plain);
  for (std::size_t start = 0; plain && start <= name.size();) {
    const std::size_t end = std::min(name.find('/', start), name.size());
    const std::string part = name.substr(start, end - start);
    plain = !part.empty() && part.front() != ' ' && part.back() != '.' && part.back() != ' ' &&
            !is_device(part);
    start = end + 1;
  }
  if (!plain)
    throw BundleError(bundle.string() + ": the manifest lists " + in_quotes(name) +
                      ", which is not a plain path inside the bundle; do not use this bundle.");
}

nlohmann::json parse_json(const std::string& text, const std::string& where) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // of the objects around
  const auto look = [&](int depth, Event event, nlohmann::json& value) {
    if (depth > kDeepest)
      throw BundleError(where + " is not JSON that can be read: it is nested too deeply.");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
      throw BundleError(where + " is not JSON: the key " + in_quotes(value.get<std::string>()) +
                        " stands there twice. Copy or export it again.");
    return true;
  };
  try {
    return nlohmann::json::parse(text, look);
  } catch (const nlohmann::json::exception& error) {
    throw BundleError(where + " is not JSON: " + error.what() + ". Copy or export it again.");
  }
}

void verify_file(const std::filesystem::path& bundle, const std::string& name,
                 const FileRecord& record) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(bundle / name, error))
    throw BundleError(where(bundle, name) + " is missing; copy the bundle again, with all files.");
  const std::uintmax_t size = std::filesystem::file_size(bundle / name, error);
  if (error) throw BundleError(where(bundle, name) + " cannot be read: " + error.message() + ".");
  if (size != record.bytes)
    throw BundleError(
        where(bundle, name) + " is damaged: " + std::to_string(size) +
        " bytes, the manifest says " + std::to_string(record.bytes) +
        ". Copy or export the bundle again (a few hundred bytes: a Git LFS pointer?).");
  const std::string digest = sha256(bundle, name);
  if (digest != record.sha256)
    throw BundleError(where(bundle, name) + " is damaged: its SHA-256 is " + digest.substr(0, 16) +
                      "..., the manifest says " + record.sha256.substr(0, 16) +
                      "... Copy or export the bundle again.");
}

std::string read_file(const std::filesystem::path& bundle, const std::string& name,
                      std::uintmax_t most) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(bundle / name, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw BundleError(where(bundle, name) + " cannot be read: it is not a file.");
  std::ifstream file = opened(bundle, name);
  const std::uintmax_t size = std::filesystem::file_size(bundle / name, error);
  if (!error && size > most)
    throw BundleError(where(bundle, name) + " has " + std::to_string(size) + " bytes, more than " +
                      std::to_string(most) + "; do not use this bundle.");
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw BundleError(where(bundle, name) + " cannot be read to its end.");
  return text;
}

std::int64_t StoredTensor::size() const {
  const std::int64_t width = bytes_of(dtype);
  return width ? std::int64_t(bytes.size()) / width : 0;
}

Tensor StoredTensor::floats(const std::string& where) const {
  if (dtype != "F32")
    throw BundleError(where + " is of dtype " + dtype + ", must be F32. Export the bundle again.");
  Tensor tensor = Tensor::make(shape);
  std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(tensor.data.get()));
  const float* values = tensor.data.get();
  if (!std::all_of(values, values + tensor.size(),
                   [](float value) { return std::isfinite(value); }))
    throw BundleError(where + " has a number that is not finite; do not use this bundle.");
  return tensor;
}

std::map<std::string, StoredTensor> read_safetensors(const std::filesystem::path& bundle,
                                                     const std::string& name) {
  const auto fail = [&](const std::string& what) {
    return BundleError(where(bundle, name) + " is no safetensors file that can be read (" + what +
                       "); export the bundle again.");
  };
  // Little-endian 8 bytes: length of a JSON header; the header; the data.
  const std::string file = read_file(bundle, name, UINTMAX_MAX);
  if (file.size() < 8) throw fail("it is too short");
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<unsigned char>(file[std::size_t(i)]);
  if (length > file.size() - 8) throw fail("its header ends behind the file");
  const std::size_t data = 8 + std::size_t(length);
  std::map<std::string, StoredTensor> tensors;
  std::size_t used = 0;
  try {
    const auto header = parse_json(file.substr(8, std::size_t(length)), where(bundle, name));
    if (!header.is_object()) throw fail("its header is no object");
    for (const auto& [key, entry] : header.items()) {
      if (key == "__metadata__") continue;
      StoredTensor tensor{entry.at("dtype"), entry.at("shape"), {}};
      const auto& offsets = entry.at("data_offsets");
      const std::uint64_t begin = offsets.at(0), end = offsets.at(1);
      if (begin > end || end > file.size() - data) throw fail("tensor " + key + " is cut off");
      used += std::size_t(end - begin);  // each byte once, or a small file fills the memory
      if (used > file.size() - data) throw fail("its tensors share their bytes");
      std::int64_t bytes = bytes_of(tensor.dtype);
      for (const std::int64_t side : tensor.shape) {
        if (side < 0 || (side > 0 && bytes > std::numeric_limits<std::int64_t>::max() / side))
          throw fail("tensor " + key + " has no possible shape");
        bytes *= side;
      }
      if (bytes_of(tensor.dtype) == 0 || std::uint64_t(bytes) != end - begin)
        throw fail("tensor " + key + " is not as large as its shape says");
      tensor.bytes = file.substr(data + std::size_t(begin), std::size_t(end - begin));
      tensors.emplace(key, std::move(tensor));
    }
  } catch (const nlohmann::json::exception& error) {
    throw fail(error.what());
  }
  if (used != file.size() - data) throw fail("it holds bytes that no tensor uses");
  return tensors;
}

}  // namespace contrastzsd
