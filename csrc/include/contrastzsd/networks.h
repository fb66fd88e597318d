// What runs the networks of a bundle: a backend that was built in, or one of the caller's own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "contrastzsd/bundle.h"
#include "contrastzsd/tensor.h"

namespace contrastzsd {

// May be called by several threads at once.
class Networks {
 public:
  virtual ~Networks() = default;
  // Runs a stage of the manifest: inputs and outputs are in its order.
  virtual std::vector<Tensor> run(const std::string& stage, const std::vector<Tensor>& inputs) = 0;
  // Backend, version, device and precision, for people.
  virtual std::string description() const = 0;
};

struct NetworkOptions {
  std::string backend = "auto";       // the first of backends(), or one of them
  std::string precision = "float32";  // "fp16" or "int8" where the bundle holds them
  std::string device = "CPU";         // OpenVINO's name of a device, such as "GPU"
  int threads = 0;  // of one network on a CPU, at most 1024; 0: what the process may use
};

// The backends that were built in, in the order "auto" prefers them.
std::vector<std::string> backends();

// Loads stages of a bundle. Throws BundleError, ConfigError or DeviceError.
std::unique_ptr<Networks> open_networks(const Bundle& bundle,
                                        const std::vector<std::string>& stages,
                                        const NetworkOptions& options = {});

}  // namespace contrastzsd
