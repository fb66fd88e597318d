// The tensors of a safetensors file: 8 bytes, little-endian, with the length of a JSON header; the
// header; the data.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/fields.h"
#include "contrastzsd/files.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

using nlohmann::json;

constexpr std::size_t kMostHeader = 100'000'000;  // bytes; the format's own limit
constexpr std::size_t kMostAxes = 8;

std::int64_t bytes_of(const std::string& dtype) { return dtype == "F32" ? 4 : 1; }

// Why an entry of the header is none; "" if it is one.
std::string why_no_entry(const json& entry, const std::set<std::string>& dtypes) {
  if (!entry.is_object()) return "is no object";
  const json dtype = entry.value("dtype", json()), shape = entry.value("shape", json()),
             offsets = entry.value("data_offsets", json());
  if (!dtype.is_string() || !dtypes.count(dtype.get<std::string>()))
    return "is of dtype " + dtype.dump() + ", must be one of " +
           list_in_quotes({dtypes.begin(), dtypes.end()});
  const auto whole = [](const json& value) { return is_whole(value, 0); };
  if (!shape.is_array() || shape.size() > kMostAxes ||
      !std::all_of(shape.begin(), shape.end(), whole))
    return "has the shape " + shape.dump() + ", must have up to 8 whole numbers";
  if (!offsets.is_array() || offsets.size() != 2 ||
      !std::all_of(offsets.begin(), offsets.end(), whole))
    return "has the offsets " + offsets.dump() + ", must have two whole numbers";
  std::int64_t bytes = bytes_of(dtype);
  for (const std::int64_t side : shape) {
    if (side > 0 && bytes > std::numeric_limits<std::int64_t>::max() / side)
      return "has no possible shape";
    bytes *= side;
  }
  const std::int64_t begin = offsets[0], end = offsets[1];
  return begin <= end && end - begin == bytes ? "" : "is not as large as its shape says";
}

bool is_metadata(const json& value) {
  return value.is_object() &&
         std::all_of(value.begin(), value.end(), [](const json& text) { return text.is_string(); });
}

}  // namespace

std::int64_t StoredTensor::size() const { return std::int64_t(bytes.size()) / bytes_of(dtype); }

Tensor StoredTensor::floats(const std::string& where) const {
  if (dtype != "F32")
    throw BundleError(where + " is of dtype " + dtype + ", must be F32. Export the bundle again.");
  Tensor tensor = Tensor::make(shape);
  std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char*>(tensor.data.get()));
  const float* values = tensor.data.get();
  if (!std::all_of(values, values + tensor.size(),
                   [](float value) { return std::isfinite(value); }))
    throw BundleError(where + " has a number that is not finite; do not use this bundle.");
  return tensor;
}

std::map<std::string, StoredTensor> read_safetensors(const std::filesystem::path& bundle,
                                                     const std::string& name,
                                                     const std::set<std::string>& dtypes) {
  const std::string here = bundle.string() + ": " + name;
  const auto fail = [&](const std::string& what) {
    return BundleError(here + " is no safetensors file that can be read (" + what +
                       "); export the bundle again.");
  };
  const std::string file = read_file(bundle, name, UINTMAX_MAX);
  if (file.size() < 8) throw fail("it is too short");
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | static_cast<unsigned char>(file[std::size_t(i)]);
  if (length > file.size() - 8) throw fail("its header ends behind the file");
  if (length > kMostHeader) throw fail("its header is too long");
  const std::size_t data = 8 + std::size_t(length);
  const json header = parse_json(file.substr(8, std::size_t(length)), here);
  if (!header.is_object()) throw fail("its header is no object");
  std::map<std::string, StoredTensor> tensors;
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") {
      if (!is_metadata(entry)) throw fail("its metadata are no texts");
      continue;
    }
    if (const std::string why = why_no_entry(entry, dtypes); !why.empty())
      throw fail("tensor " + in_quotes(key) + " " + why);
    const std::int64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    if (std::uint64_t(end) > file.size() - data)
      throw fail("tensor " + in_quotes(key) + " is cut off");
    ranges.emplace_back(begin, end);
  }
  // Each byte belongs to one tensor, or a small file fills the memory.
  std::sort(ranges.begin(), ranges.end());
  std::int64_t used = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin < used) throw fail("its tensors share their bytes");
    if (begin > used) throw fail("it holds bytes that no tensor uses");
    used = end;
  }
  if (std::uint64_t(used) != file.size() - data) throw fail("it holds bytes that no tensor uses");
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") continue;
    const std::int64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    StoredTensor tensor{entry["dtype"], entry["shape"],
                        file.substr(data + std::size_t(begin), std::size_t(end - begin))};
    if (tensor.dtype == "F32") tensor.floats(here + ": tensor " + in_quotes(key));
    tensors.emplace(key, std::move(tensor));
  }
  return tensors;
}

}  // namespace contrastzsd
