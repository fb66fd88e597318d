#include "contrastzsd/networks.h"

#include <algorithm>
#include <string_view>

#include "contrastzsd/backends.h"
#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/usable_threads.h"

namespace contrastzsd {
namespace {

using Open = std::unique_ptr<Networks> (*)(const Bundle&, const std::vector<std::string>&,
                                           const NetworkOptions&);

const std::vector<std::pair<std::string, Open>>& built_in() {
  static const std::vector<std::pair<std::string, Open>> known = {
#ifdef ZSD_ONNXRUNTIME
      {"onnxruntime", open_onnxruntime},
#endif
#ifdef ZSD_OPENVINO
      {"openvino", open_openvino},
#endif
  };
  return known;
}

// x86 without VNNI adds two products of 8-bit integers in 16 bits, which do not always hold them.
bool sums_int8_exactly() {
  bool x86 = false, vnni = false;
  for (const zsd::SimdKernels* const* set = zsd::simd_available(); *set; ++set) {
    const std::string_view name = (*set)->name;
    x86 = x86 || name == "sse2";
    vnni = vnni || name.find("_vnni") != std::string_view::npos;
  }
  return vnni || !x86;
}

}  // namespace

void check_threads(int threads) {
  if (threads < 0 || threads > zsd::kMostThreads)
    throw ConfigError("threads is " + std::to_string(threads) +
                      ", must be a whole number from 1 to " + std::to_string(zsd::kMostThreads) +
                      ", or 0 for all that the process may use.");
}

std::vector<std::string> backends() {
  std::vector<std::string> names;
  for (const auto& [name, open] : built_in()) names.push_back(name);
  return names;
}

std::unique_ptr<Networks> open_networks(const Bundle& bundle,
                                        const std::vector<std::string>& stages,
                                        const NetworkOptions& given) {
  check_threads(given.threads);
  NetworkOptions options = given;
  if (options.threads == 0) options.threads = zsd::thread_limit();
  if (built_in().empty())
    throw DeviceError(
        "this library was built without a backend. Build it with -DZSD_OPENVINO=ON or "
        "-DZSD_ONNXRUNTIME=ON, or pass networks of your own to Detector.");
  for (const auto& [name, open] : built_in()) {
    if (options.backend != "auto" && options.backend != name) continue;
    if (options.device == "CPU" && bundle.full_range_int8(options.precision, name) &&
        !sums_int8_exactly())
      throw DeviceError(bundle.path().string() +
                        ": its int8 weights have 8 bits, and sums of their products overflow on "
                        "this CPU, which has no VNNI. Take precision 'float32', or make them again "
                        "without --full-range.");
    return open(bundle, stages, options);
  }
  throw DeviceError("backend is " + in_quotes(options.backend) +
                    ", and this library was built with " + list_in_quotes(backends()) + " only.");
}

}  // namespace contrastzsd
