#include "contrastzsd/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {

using nlohmann::json;

Fields::Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw BundleError(where_ + " must be an object. Export it again.");
}

const json* Fields::take(const char* key) {
  read_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() ? nullptr : &*found;
}

void Fields::ignore(std::initializer_list<const char*> keys) {
  read_.insert(keys.begin(), keys.end());
}

BundleError Fields::error(const char* key, const std::string& rule) const {
  return BundleError(where_ + "." + key + " is " + object_.at(key).dump() + ", " + rule + ".");
}

void Fields::read(const char* key, std::int64_t& value, std::int64_t lowest, std::int64_t highest) {
  const json* given = take(key);
  if (!given) return;
  if (!given->is_number_integer() || given->get<std::int64_t>() < lowest ||
      given->get<std::int64_t>() > highest)
    throw error(key, "must be a whole number of at least " + std::to_string(lowest) +
                         " and at most " + std::to_string(highest));
  value = given->get<std::int64_t>();
}

void Fields::read(const char* key, double& value, double lowest, double highest) {
  const json* given = take(key);
  if (!given) return;
  if (!given->is_number() || !(given->get<double>() >= lowest && given->get<double>() <= highest))
    throw error(key,
                "must be a number between " + number_text(lowest) + " and " + number_text(highest));
  value = given->get<double>();
}

void Fields::read(const char* key, bool& value) {
  const json* given = take(key);
  if (!given) return;
  if (!given->is_boolean()) throw error(key, "must be true or false");
  value = given->get<bool>();
}

void Fields::read(const char* key, std::string& value) {
  const json* given = take(key);
  if (!given) return;
  if (!given->is_string()) throw error(key, "must be a text");
  value = given->get<std::string>();
}

void Fields::read(const char* key, std::string& value, std::initializer_list<const char*> choices) {
  read(key, value);
  if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
    const std::vector<std::string> names(choices.begin(), choices.end());
    throw error(key, "and this version runs only " + list_in_quotes(names));
  }
}

void Fields::read(const char* key, std::vector<double>& values) {
  const json* given = take(key);
  if (!given) return;
  values.clear();
  for (const json& value : *given) {
    if (!value.is_number() || !(value.get<double>() > 0))
      throw error(key, "must hold numbers above 0");
    values.push_back(value.get<double>());
  }
  if (values.empty()) throw error(key, "needs at least one value");
}

void Fields::finish() const {
  for (const auto& item : object_.items())
    if (!read_.count(item.key()))
      throw BundleError(where_ + " has a field " + in_quotes(item.key()) +
                        " that this version does not know, so it cannot run this bundle; build a "
                        "newer contrastzsd, or export the bundle again.");
}

namespace {

constexpr std::uintmax_t kManifestBytes = std::uintmax_t(16) << 20;

const json& part(const json& manifest, const std::string& where, const char* key,
                 json::value_t kind, const char* kind_name) {
  const auto found = manifest.find(key);
  if (found == manifest.end() || found->type() != kind)
    throw BundleError(where + ": " + in_quotes(key) + " is missing or not " + kind_name + ".");
  return *found;
}

void read_files(const std::filesystem::path& bundle, const std::string& where, const json& files,
                Manifest& manifest) {
  std::map<std::string, std::string> known;
  for (const auto& [name, record] : files.items()) {
    check_name(bundle, name);
    const auto [other, is_new] = known.emplace(lower(name), name);
    if (!is_new)
      throw BundleError(where + " lists " + in_quotes(name) + " beside " +
                        in_quotes(other->second) +
                        ", one file on many systems; do not use this bundle.");
    if (!record.is_object() || !record.contains("sha256") || !record["sha256"].is_string() ||
        !record.contains("bytes") || !record["bytes"].is_number_unsigned())
      throw BundleError(where + ": files[" + in_quotes(name) + "] needs 'sha256' and 'bytes'.");
    manifest.files[name] = {record["sha256"].get<std::string>(),
                            record["bytes"].get<std::uintmax_t>()};
  }
  for (const char* name : {kScorerFile, kVocabularyFile})
    if (!manifest.files.count(name))
      throw BundleError(where + ": " + name + " is not listed; export the bundle again.");
}

void read_classes(const std::string& where, const json& classes, Manifest& manifest) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const json& entry = classes[i];
    const bool named = entry.is_object() && entry.contains("name") && entry["name"].is_string();
    const json role = named ? entry.value("role", json()) : json();
    if (role != "seen" && role != "unseen")
      throw BundleError(where + ": classes[" + std::to_string(i) + "] is " + entry.dump() +
                        ", needs a name and a role.");
    const auto name = entry["name"].get<std::string>();
    if (fold_name(name).empty())
      throw BundleError(where + ": the name of classes[" + std::to_string(i) + "] is blank.");
    if (const std::string fault = name_fault(name); !fault.empty())
      throw BundleError(where + ": the name of classes[" + std::to_string(i) + "], " +
                        escaped(name) + ", " + fault + ".");
    if (!names.insert(fold_name(name)).second)
      throw BundleError(where + ": class " + in_quotes(name) + " is there twice.");
    if (role == "seen" && !manifest.unseen.empty())
      throw BundleError(where + ": seen class " + in_quotes(name) +
                        " stands behind an unseen one; seen classes come first.");
    (role == "seen" ? manifest.seen : manifest.unseen).push_back(name);
  }
}

void read_stages(const std::string& where, const json& stages, Manifest& manifest) {
  for (const auto& [name, entry] : stages.items()) {
    const std::string here = where + ": stage " + in_quotes(name);
    Bundle::Stage stage;
    if (entry.is_object() && entry.contains("file") && entry["file"].is_string())
      stage.file = entry["file"].get<std::string>();
    if (!manifest.files.count(stage.file)) throw BundleError(here + " names no listed file.");
    for (const char* side : {"inputs", "outputs"}) {
      for (const json& value : entry.value(side, json::array())) {
        if (!value.is_object() || !value.contains("name") || !value["name"].is_string())
          throw BundleError(here + ", " + side + ": " + value.dump() +
                            " must be an object with a name. Export the bundle again.");
        (side[0] == 'i' ? stage.inputs : stage.outputs).push_back(value["name"]);
      }
    }
    manifest.stages[name] = stage;
  }
}

void read_precisions(const std::string& where, const json& precisions, Manifest& manifest) {
  for (const auto& [precision, entry] : precisions.items()) {
    const json networks = entry.is_object() ? entry.value("networks", json()) : json();
    if (!networks.is_object())
      throw BundleError(where + ": precisions[" + in_quotes(precision) + "] names no networks.");
    for (const auto& [family, stages] : networks.items()) {
      Manifest::Networks& made = manifest.precisions[precision][family];
      for (const auto& [stage, file] : stages.items()) {
        if (!file.is_string() || !manifest.files.count(file.get<std::string>()))
          throw BundleError(where + ": precisions[" + in_quotes(precision) + "] names " +
                            file.dump() + ", which is no listed file.");
        made.files[stage] = file.get<std::string>();
      }
      const json levels = entry.value("weight_levels", json::object());
      if (levels.is_object() && levels.contains(family) && levels[family].is_number_integer())
        made.weight_levels = levels[family].get<std::int64_t>();
    }
  }
}

}  // namespace

Manifest read_manifest(const std::filesystem::path& bundle) {
  const std::string where = (bundle / "manifest.json").string();
  const json object = parse_json(read_file(bundle, "manifest.json", kManifestBytes), where);
  const json format = object.is_object() ? object.value("format", json()) : json();
  if (!format.is_number_unsigned() || format == 0)
    throw BundleError(where + " has no integer 'format' of at least 1; is this a bundle?");
  if (format.get<std::uint64_t>() > std::uint64_t(kBundleFormat))
    throw BundleError(where + " has format " + format.dump() + ", this version reads up to " +
                      std::to_string(kBundleFormat) + ". Build a newer contrastzsd.");
  if (object.value("background_index", json(0)) != 0)
    throw BundleError(where + ": background_index is " + object["background_index"].dump() +
                      ", not 0.");
  Manifest manifest;
  try {
    manifest.name = part(object, where, "name", json::value_t::string, "a text").get<std::string>();
    read_files(bundle, where, part(object, where, "files", json::value_t::object, "an object"),
               manifest);
    read_classes(where, part(object, where, "classes", json::value_t::array, "a list"), manifest);
    read_stages(where, part(object, where, "stages", json::value_t::object, "an object"), manifest);
    read_precisions(where, object.value("precisions", json::object()), manifest);
    const json words = object.value("vocabulary", json::object());
    if (words.is_object() && words.contains("encoder") && words["encoder"].is_string())
      manifest.encoder = words["encoder"].get<std::string>();
    manifest.model = read_model(part(object, where, "model", json::value_t::object, "an object"),
                                where + ": model");
  } catch (const json::exception& error) {  // a type that none of the checks above expects
    throw BundleError(where + " is not as a manifest must be: " + error.what() +
                      ". Export the bundle again.");
  } catch (const ClassError& error) {
    throw BundleError(where + ": " + error.what());
  }
  return manifest;
}

}  // namespace contrastzsd
