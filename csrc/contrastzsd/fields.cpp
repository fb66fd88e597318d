#include "contrastzsd/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "contrastzsd/text.h"

namespace contrastzsd {

using nlohmann::json;

bool is_whole(const json& value, std::int64_t lowest, std::int64_t highest) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t(INT64_MAX))
    return false;  // it would turn negative
  const auto number = value.get<std::int64_t>();
  return number >= lowest && number <= highest;
}

Fields::Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw BundleError(where_ + " must be an object. Export it again.");
}

const json* Fields::take(const char* key) {
  read_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() ? nullptr : &*found;
}

BundleError Fields::error(const char* key, const std::string& rule) const {
  return BundleError(where_ + "." + key + " is " + object_.at(key).dump() + ", " + rule + ".");
}

void Fields::read(const char* key, std::int64_t& value, std::int64_t lowest, std::int64_t highest) {
  const json* given = take(key);
  if (!given) return;
  if (!is_whole(*given, lowest, highest))
    throw error(key, "must be a whole number of at least " + std::to_string(lowest) +
                         " and at most " + std::to_string(highest));
  value = given->get<std::int64_t>();
}

void Fields::read(const char* key, double& value, double lowest, double highest) {
  const json* given = take(key);
  if (!given) return;
  if (!given->is_number() || !(given->get<double>() >= lowest && given->get<double>() <= highest))
    throw error(key, "must be a number between " + number_text(float(lowest)) + " and " +
                         number_text(float(highest)));
  value = as_float32(key, *given);
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

void Fields::read(const char* key, std::vector<double>& values, double highest) {
  const json* given = list(key);
  if (!given) return;
  values.clear();
  for (const json& value : *given) {
    if (!value.is_number() || !(value.get<double>() > 0 && value.get<double>() <= highest))
      throw error(key, "must hold numbers above 0, at most " + number_text(float(highest)));
    values.push_back(as_float32(key, value));
  }
}

void Fields::read(const char* key, std::vector<std::int64_t>& values) {
  const json* given = list(key);
  if (!given) return;
  values.clear();
  for (const json& value : *given) {
    if (!is_whole(value, 1)) throw error(key, "must hold whole numbers above 0");
    values.push_back(value.get<std::int64_t>());
  }
}

const json* Fields::list(const char* key) {
  const json* given = take(key);
  if (given && (!given->is_array() || given->empty() || given->size() > kMostValues))
    throw BundleError(where_ + "." + key + " must be a list of 1 to " +
                      std::to_string(kMostValues) + " values. Export the bundle again.");
  return given;
}

void Fields::check(const char* key, std::int64_t lowest, std::int64_t highest) {
  std::int64_t value = lowest;
  read(key, value, lowest, highest);
}

void Fields::check(const char* key, std::initializer_list<const char*> choices) {
  std::string value = *choices.begin();
  read(key, value, choices);
}

void Fields::check_flag(const char* key) {
  bool value = false;
  read(key, value);
}

void Fields::check_text(const char* key) {
  std::string value;
  read(key, value);
}

double Fields::as_float32(const char* key, const json& number) const {
  const double value = number.get<double>(), size = std::abs(value);
  constexpr float least = std::numeric_limits<float>::min();
  constexpr float largest = std::numeric_limits<float>::max();
  if (value == 0 || (size >= least && size <= largest)) return value;
  throw error(key, "must be 0 or a float32 number, from " + number_text(least) + " to " +
                       number_text(largest) + " without its sign");
}

void Fields::finish() const {
  for (const auto& item : object_.items())
    if (!read_.count(item.key()))
      throw BundleError(where_ + " has a field " + in_quotes(item.key()) +
                        " that this version does not know, so it cannot run this bundle; build a "
                        "newer contrastzsd, or export the bundle again.");
}

}  // namespace contrastzsd
