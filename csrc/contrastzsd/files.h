// Files of a bundle: names that stay inside, hashes, and the tensors of a safetensors file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
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
// differently (a key that stands there twice, a byte-order mark, a zero byte), and more than 100
// levels, which would exhaust the stack; the same as parse_json of zsd_core/files.py. Throws
// BundleError, in which `where` names the text.
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
  std::string dtype;  // "F32", "I8" or "U8"
  std::vector<std::int64_t> shape;
  std::string bytes;

  std::int64_t size() const;
  // Throws BundleError: the dtype is not F32, or a number is not finite.
  Tensor floats(const std::string& where) const;
};

// Tensors of `dtypes`; every F32 is finite. Throws BundleError: it is no safetensors file, its
// header and data do not agree, or a tensor is not as above; the same as runtime/tensors.py.
std::map<std::string, StoredTensor> read_safetensors(const std::filesystem::path& bundle,
                                                     const std::string& name,
                                                     const std::set<std::string>& dtypes);

}  // namespace contrastzsd
