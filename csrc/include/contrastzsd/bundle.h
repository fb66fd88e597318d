// A bundle: the directory that Python's `export` writes and every runtime reads.
//
// Opening one checks the format, the manifest and the SHA-256 of every file that it lists (but for
// engines/, which are not for this library), so nothing damaged is ever run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "contrastzsd/config.h"
#include "contrastzsd/tensor.h"
#include "contrastzsd/vocabulary.h"

namespace contrastzsd {

constexpr std::int64_t kBundleFormat = 1;  // the newest that this version reads

class Bundle {
 public:
  // A network: its file, and the names of its inputs and outputs in order.
  struct Stage {
    std::string file;
    std::vector<std::string> inputs, outputs;
  };

  // Throws BundleError: not there, no bundle, damaged, incomplete, zipped or too new.
  explicit Bundle(const std::filesystem::path& path);
  ~Bundle();
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;

  const std::filesystem::path& path() const;
  const std::string& name() const;
  const ModelConfig& config() const;
  // Names of the class table; seen classes were trained on.
  const std::vector<std::string>& seen() const;
  const std::vector<std::string>& unseen() const;
  // (Ks + U, E), seen first.
  const Tensor& class_vectors() const;
  const Vocabulary& vocabulary() const;
  // What made the vectors, such as "all-MiniLM-L6-v2"; may be empty.
  const std::string& encoder() const;
  // The tensors of the scoring method, by name.
  const std::map<std::string, Tensor>& scorer_tensors() const;
  // Throws BundleError: no such stage.
  const Stage& stage(const std::string& name) const;
  // File of a network in "float32", "fp16" or "int8", as a family of backends ("onnxruntime" or
  // "openvino") wants it. Throws BundleError: the bundle has no such network, its name does not end
  // in .onnx, or its weights are to be read from a file that the manifest does not list.
  std::filesystem::path network(const std::string& stage, const std::string& precision,
                                const std::string& family) const;
  // Whether integers of the networks may overflow on a CPU without VNNI.
  bool full_range_int8(const std::string& precision, const std::string& family) const;

 private:
  struct Contents;
  std::unique_ptr<const Contents> contents_;
};

}  // namespace contrastzsd
