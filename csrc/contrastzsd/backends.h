// The backends that were built in: one file each, named here and in cmake/cpp.cmake only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "contrastzsd/networks.h"

namespace contrastzsd {

// Throws BundleError: a network cannot be loaded; DeviceError: there is no such device.
std::unique_ptr<Networks> open_openvino(const Bundle& bundle,
                                        const std::vector<std::string>& stages,
                                        const NetworkOptions& options);
std::unique_ptr<Networks> open_onnxruntime(const Bundle& bundle,
                                           const std::vector<std::string>& stages,
                                           const NetworkOptions& options);

}  // namespace contrastzsd
