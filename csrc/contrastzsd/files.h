// Files of a bundle: names that stay inside, hashes, and the tensors of a safetensors file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "contrastzsd/tensor.h"

namespace contrastzsd {

// What the manifest says of a file.
struct FileRecord {
  std::string sha256;
  std::uintmax_t bytes;
};

// Throws BundleError: a name would leave the bundle, or is not spelt plainly.
void check_name(const std::filesystem::path& bundle, const std::string& name);

// Throws BundleError: the file is missing or unreadable, or its size or hash is another.
void verify_file(const std::filesystem::path& bundle, const std::string& name,
                 const FileRecord& record);

// Throws BundleError: it cannot be read.
std::string read_file(const std::filesystem::path& bundle, const std::string& name);

// One tensor as it lies in a safetensors file, little-endian.
struct StoredTensor {
  std::string dtype;  // such as "F32", "I8" or "U8"
  std::vector<std::int64_t> shape;
  std::string bytes;

  std::int64_t size() const;
  Tensor floats(const std::string& where) const;  // throws BundleError: the dtype is not F32
};

// Throws BundleError: the file is no safetensors file, or its header and data do not agree.
std::map<std::string, StoredTensor> read_safetensors(const std::filesystem::path& bundle,
                                                     const std::string& name);

}  // namespace contrastzsd
