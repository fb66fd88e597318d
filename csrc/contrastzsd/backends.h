// The backends that were built in: one file each, named here and in cmake/cpp.cmake only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "contrastzsd/errors.h"
#include "contrastzsd/networks.h"
#include "contrastzsd/text.h"

namespace contrastzsd {

// Of an output whose numbers have another type: read as float32, they would end behind its memory.
inline BundleError not_float32(const std::string& stage, const std::string& output,
                               const std::string& type) {
  return BundleError("the " + stage + "'s output " + in_quotes(output) + " is of type " + type +
                     ", must be float32. Export the bundle again.");
}

// Throws ConfigError: NetworkOptions::threads is out of its range.
void check_threads(int threads);

// Throws BundleError: a network cannot be loaded; DeviceError: there is no such device.
std::unique_ptr<Networks> open_openvino(const Bundle& bundle,
                                        const std::vector<std::string>& stages,
                                        const NetworkOptions& options);
std::unique_ptr<Networks> open_onnxruntime(const Bundle& bundle,
                                           const std::vector<std::string>& stages,
                                           const NetworkOptions& options);

}  // namespace contrastzsd
