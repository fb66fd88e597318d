// Files of a bundle: names that stay inside, hashes, and the tensors of a safetensors file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "contrastzsd/tensor.h"

namespace contrastzsd {

// What the manifest says of a file.
struct FileRecord {
  std::string sha256;
  std::uintmax_t bytes;
};

// Throws BundleError: a name would leave the bundle, or is not spelt plainly, on any file system;
// the same rule as runtime/archive.py::safe_name.
void check_name(const std::filesystem::path& bundle, const std::string& name);

// Text in lower case, of ASCII letters.
std::string lower(std::string text);

// Parses JSON that a stranger may have written. Refused is also what readers understand
// differently (a key that stands there twice), and more than 100 levels, which would exhaust the
// stack. Throws BundleError, in which `where` names the text.
nlohmann::json parse_json(const std::string& text, const std::string& where);

// Throws BundleError: the file is missing or unreadable, or its size or hash is another.
void verify_file(const std::filesystem::path& bundle, const std::string& name,
                 const FileRecord& record);

// Throws BundleError: it cannot be read, is no file (a device has no end), or has more bytes than
// `most`.
std::string read_file(const std::filesystem::path& bundle, const std::string& name,
                      std::uintmax_t most);

// One tensor as it lies in a safetensors file, little-endian.
struct StoredTensor {
  std::string dtype;  // such as "F32", "I8" or "U8"
  std::vector<std::int64_t> shape;
  std::string bytes;

  std::int64_t size() const;
  // Throws BundleError: the dtype is not F32, or a number is not finite.
  Tensor floats(const std::string& where) const;
};

// Throws BundleError: the file is no safetensors file, or its header and data do not agree.
std::map<std::string, StoredTensor> read_safetensors(const std::filesystem::path& bundle,
                                                     const std::string& name);

}  // namespace contrastzsd
