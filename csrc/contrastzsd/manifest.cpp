#include "contrastzsd/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "contrastzsd/errors.h"
#include "contrastzsd/fields.h"
#include "contrastzsd/text.h"

namespace contrastzsd {

using nlohmann::json;

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
        !is_whole(record.value("bytes", json()), 0))
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
    const json taught = entry.value("taught", json("boxes"));
    if (taught != "boxes" && taught != "pictures" && taught != "nothing")
      throw BundleError(where + ": classes[" + std::to_string(i) + "] was taught by " +
                        taught.dump() + ", must be one of 'boxes', 'pictures', 'nothing'.");
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

bool is_listed(const Manifest& manifest, const json& name) {
  return name.is_string() && manifest.files.count(name.get<std::string>());
}

void read_precisions(const std::string& where, const json& precisions, Manifest& manifest) {
  for (const auto& [precision, entry] : precisions.items()) {
    const std::string here = where + ": precisions[" + in_quotes(precision) + "]";
    const json networks = entry.is_object() ? entry.value("networks", json()) : json();
    if (!networks.is_object()) throw BundleError(here + " names no networks. Make them again.");
    const json levels = entry.value("weight_levels", json::object());
    if (!levels.is_object() ||
        !std::all_of(levels.begin(), levels.end(), [](const json& n) { return is_whole(n, 0); }))
      throw BundleError(here + ".weight_levels is " + levels.dump() + ", must hold whole numbers.");
    for (const auto& [family, stages] : networks.items()) {
      if (!stages.is_object())
        throw BundleError(here + " names no networks by stage for " + in_quotes(family) +
                          ". Make them again.");
      Manifest::Networks& made = manifest.precisions[precision][family];
      for (const auto& [stage, file] : stages.items()) {
        if (!is_listed(manifest, file))
          throw BundleError(here + " names " + file.dump() + ", which is no listed file.");
        made.files[stage] = file.get<std::string>();
      }
      if (levels.contains(family)) made.weight_levels = levels[family].get<std::int64_t>();
    }
  }
}

// What only Python runs, and what is for people; whoever reads a bundle refuses the same ones.
void check_others(const std::string& where, const json& object, const Manifest& manifest) {
  for (const char* key : {"precisions", "vocabulary", "text", "training", "metrics", "scores"})
    if (object.contains(key) && !object[key].is_object())
      throw BundleError(where + ": " + in_quotes(key) + " is not an object.");
  const json engines = object.value("engines", json::array());
  if (!engines.is_array()) throw BundleError(where + ": 'engines' is not a list.");
  for (std::size_t i = 0; i < engines.size(); ++i)
    if (!engines[i].is_object() || !is_listed(manifest, engines[i].value("file", json())))
      throw BundleError(where + ": engines[" + std::to_string(i) + "] names no listed file.");
  const json text = object.value("text", json::object());
  if (text.empty()) return;
  const auto within = [&](const char* key, std::int64_t lowest, std::int64_t highest) {
    return is_whole(text.value(key, json()), lowest, highest);
  };
  if (!is_listed(manifest, text.value("network", json())) ||
      !is_listed(manifest, text.value("tokenizer", json())) || !within("max_tokens", 1, 1 << 16) ||
      !within("padding", 0, std::int64_t(1) << 31) || !within("width", 1, 1 << 16))
    throw BundleError(where +
                      ": 'text' must name a listed network and tokenizer and say max_tokens, "
                      "padding and width. Make it again: python -m export.text BUNDLE");
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
  if (!is_whole(object.value("background_index", json(0)), 0, 0))
    throw BundleError(where + ": background_index is " + object["background_index"].dump() +
                      ", not 0.");
  Manifest manifest;
  try {
    manifest.name = part(object, where, "name", json::value_t::string, "a text").get<std::string>();
    if (const std::string fault = name_fault(manifest.name); !fault.empty())
      throw BundleError(where + ": the name of the bundle, " + escaped(manifest.name) + ", " +
                        fault + ".");
    read_files(bundle, where, part(object, where, "files", json::value_t::object, "an object"),
               manifest);
    read_classes(where, part(object, where, "classes", json::value_t::array, "a list"), manifest);
    check_others(where, object, manifest);
    const json& stages = part(object, where, "stages", json::value_t::object, "an object");
    read_stages(where, stages, manifest);
    read_precisions(where, object.value("precisions", json::object()), manifest);
    const json words = object.value("vocabulary", json::object());
    if (words.contains("encoder") && words["encoder"].is_string())
      manifest.encoder = words["encoder"].get<std::string>();
    manifest.model = read_model(part(object, where, "model", json::value_t::object, "an object"),
                                where + ": model");
    check_stages(where, stages, manifest);
  } catch (const json::exception& error) {  // a type that none of the checks above expects
    throw BundleError(where + " is not as a manifest must be: " + error.what() +
                      ". Export the bundle again.");
  } catch (const ClassError& error) {
    throw BundleError(where + ": " + error.what());
  }
  return manifest;
}

}  // namespace contrastzsd
