#include "contrastzsd/files.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
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
    if (depth >= kDeepest)
      throw BundleError(where + " is not JSON that can be read: it is nested too deeply.");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
      throw BundleError(where + " is not JSON: the key " + in_quotes(value.get<std::string>()) +
                        " stands there twice. Copy or export it again.");
    return true;
  };
  if (text.rfind("\xef\xbb\xbf", 0) == 0 || text.find('\0') != std::string::npos)
    throw BundleError(where +
                      " is not JSON: it holds a byte-order mark or a zero byte. Copy or "
                      "export it again.");
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

}  // namespace contrastzsd
