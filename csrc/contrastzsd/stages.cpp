// The networks that a manifest names: what it says of them, and whether the model can run them.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "contrastzsd/errors.h"
#include "contrastzsd/fields.h"
#include "contrastzsd/manifest.h"
#include "contrastzsd/text.h"
#include "kernels/roi_align.h"

namespace contrastzsd {

using nlohmann::json;

namespace {

constexpr const char* kAgain = ". Export the bundle again.";

bool is_shape(const json& shape) {
  return shape.is_array() && std::all_of(shape.begin(), shape.end(), [](const json& side) {
           return side.is_string() || is_whole(side, 0);
         });
}

// Names of the inputs or outputs of a network.
std::vector<std::string> read_values(const std::string& where, const json& values) {
  if (!values.is_array())
    throw BundleError(where + " are " + values.dump() + ", must be a list" + kAgain);
  std::vector<std::string> names;
  for (const json& value : values) {
    if (!value.is_object() || !value.value("name", json()).is_string() ||
        !is_shape(value.value("shape", json())))
      throw BundleError(where + ": " + value.dump() +
                        " must be an object with a name and a shape of whole numbers and names" +
                        kAgain);
    names.push_back(value["name"].get<std::string>());
  }
  return names;
}

void check_count(const std::string& where, const char* stage, const char* side,
                 const std::vector<std::string>& names, std::size_t count) {
  if (names.size() != count)
    throw BundleError(where + ": the " + stage + " has " + std::to_string(names.size()) + " " +
                      side + ", must have " + std::to_string(count) + kAgain);
}

}  // namespace

void read_stages(const std::string& where, const json& stages, Manifest& manifest) {
  for (const auto& [name, entry] : stages.items()) {
    const std::string here = where + ": stage " + in_quotes(name);
    const json file = entry.is_object() ? entry.value("file", json()) : json();
    if (!file.is_string() || !manifest.files.count(file.get<std::string>()))
      throw BundleError(here + " names no listed file.");
    manifest.stages[name] = {
        file.get<std::string>(),
        read_values(here + ", inputs", entry.value("inputs", json::array())),
        read_values(here + ", outputs", entry.value("outputs", json::array()))};
  }
}

void check_stages(const std::string& where, const json& stages, const Manifest& manifest) {
  const RegionConfig& regions = manifest.model.regions;
  const bool offered = manifest.model.proposals.source == "queries";
  std::vector<std::string> wanted;
  if (!regions.from_image())
    for (const auto& map : regions.maps) wanted.push_back(map.name);
  wanted.push_back(offered ? "boxes" : "objectness");
  wanted.push_back(offered ? "logits" : "deltas");
  if (const auto trunk = manifest.stages.find("trunk"); trunk != manifest.stages.end()) {
    if (trunk->second.outputs != wanted)
      throw BundleError(where + ": the trunk's outputs are " +
                        list_in_quotes(trunk->second.outputs) + ", model.regions means " +
                        list_in_quotes(wanted) + kAgain);
    check_count(where, "trunk", "inputs", trunk->second.inputs, 1);
    const json logits = stages["trunk"]["outputs"][1]["shape"];
    if (offered && (logits.empty() || logits.back() != manifest.seen.size()))
      throw BundleError(where + ": the trunk has logits of shape " + logits.dump() +
                        ", and the class table holds " + std::to_string(manifest.seen.size()) +
                        " seen ones" + kAgain);
  }
  if (const auto head = manifest.stages.find("head"); head != manifest.stages.end()) {
    check_count(where, "head", "inputs", head->second.inputs, regions.maps.size());
    check_count(where, "head", "outputs", head->second.outputs, 2);
    for (std::size_t i = 0; i < regions.maps.size(); ++i) {
      const json shape = stages["head"]["inputs"][i]["shape"];
      const int step = int(regions.maps[i].bin_step);
      const json bins = {zsd::stepped(regions.output_size[0], step),
                         zsd::stepped(regions.output_size[1], step)};
      if (shape.size() != 4 || shape[2] != bins[0] || shape[3] != bins[1])
        throw BundleError(where + ": the head's inputs have shape " + shape.dump() +
                          ", model.regions means bins " + bins.dump() + kAgain);
    }
  }
}

}  // namespace contrastzsd
