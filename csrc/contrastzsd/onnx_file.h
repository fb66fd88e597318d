// Where the weights of an ONNX file lie.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "contrastzsd/files.h"

namespace contrastzsd {

// Throws BundleError: it is no ONNX file, or its weights are to be read from a file that is not
// among those of the manifest, or is damaged. The same as runtime/onnx_file.py, which also looks at
// the sizes of tensors and for NaN among weights; here both are left to the backend.
void check_weights(const std::filesystem::path& bundle, const std::string& name,
                   const std::map<std::string, FileRecord>& files);

}  // namespace contrastzsd
