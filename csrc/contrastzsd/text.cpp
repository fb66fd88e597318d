#include "contrastzsd/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "contrastzsd/errors.h"

namespace contrastzsd {
namespace {

std::string mapped(const std::string& text, int options) {
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   utf8proc_ssize_t(text.size()), &result, utf8proc_option_t(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(result, std::free);
  if (size < 0)
    throw ClassError("class name " + in_quotes(text) + " cannot be read (" + utf8proc_errmsg(size) +
                     "); names are UTF-8.");
  return std::string(reinterpret_cast<const char*>(result), std::size_t(size));
}

std::vector<std::int32_t> code_points(const std::string& text) {
  std::vector<std::int32_t> points;
  const auto* at = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  auto left = utf8proc_ssize_t(text.size());
  while (left > 0) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t used = std::max<utf8proc_ssize_t>(utf8proc_iterate(at, left, &point), 1);
    points.push_back(point);
    at += used;
    left -= used;
  }
  return points;
}

void append(std::string& text, std::int32_t point) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t size = utf8proc_encode_char(point, bytes);
  text.append(reinterpret_cast<const char*>(bytes), std::size_t(size));
}

// As Python's str.isspace.
bool is_space(std::int32_t point) {
  return (point >= 0x09 && point <= 0x0d) || (point >= 0x1c && point <= 0x20) || point == 0x85 ||
         point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) ||
         point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f ||
         point == 0x3000;
}

// What has no place in a name: control characters, and what reorders the letters around it.
bool is_control(std::int32_t point) {
  return (point < 0x20 || (point >= 0x7f && point < 0xa0)) ||
         (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

// U+202E
std::string code(std::int32_t point) {
  char text[16];  // streams would follow the program's locale: U+2.02E
  std::snprintf(text, sizeof(text), "U+%04X", unsigned(point));
  return text;
}

std::string joined(const std::string& text, bool underscores) {
  std::string result;
  bool blank = false;
  for (const std::int32_t point : code_points(text)) {
    if (is_space(point) || (underscores && point == '_')) {
      blank = !result.empty();
      continue;
    }
    if (blank) result += ' ';
    blank = false;
    append(result, point);
  }
  return result;
}

// Letters that decomposition takes no accent from, then quotes and hyphens.
const std::map<std::int32_t, const char*> kKeyboard = {
    {0xe6, "ae"},  {0x153, "oe"}, {0xf8, "o"},   {0x142, "l"},  {0x111, "d"},
    {0x131, "i"},  {0x2018, "'"}, {0x2019, "'"}, {0x2bc, "'"},  {0x2010, "-"},
    {0x2011, "-"}, {0x2012, "-"}, {0x2013, "-"}, {0x2212, "-"},
};

using Pairs = std::set<std::pair<std::int32_t, std::int32_t>>;

Pairs letter_pairs(const std::string& folded) {
  const std::vector<std::int32_t> points = code_points("^" + folded + "$");
  Pairs pairs;
  for (std::size_t i = 0; i + 1 < points.size(); ++i) pairs.emplace(points[i], points[i + 1]);
  return pairs;
}

}  // namespace

std::string fold_name(const std::string& name) {
  if (std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= 'a' && c <= 'z'; }))
    return name;  // most words of a vocabulary
  return mapped(joined(mapped(name, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT), true),
                UTF8PROC_CASEFOLD);
}

std::string plain_name(const std::string& name) {
  const std::string folded = fold_name(name);
  if (std::all_of(folded.begin(), folded.end(), [](unsigned char c) { return c < 0x80; }))
    return folded;
  std::string typed, plain;
  for (const std::int32_t point : code_points(folded)) {
    const auto key = kKeyboard.find(point);
    if (key == kKeyboard.end())
      append(typed, point);
    else
      typed += key->second;
  }
  for (const std::int32_t point : code_points(mapped(typed, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE)))
    if (point < 0x300 || point > 0x36f) append(plain, point);  // no accent
  return mapped(plain, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
}

bool is_text(const std::string& bytes) {
  const auto* at = reinterpret_cast<const utf8proc_uint8_t*>(bytes.data());
  auto left = utf8proc_ssize_t(bytes.size());
  while (left > 0) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t used = utf8proc_iterate(at, left, &point);
    if (used <= 0) return false;
    at += used;
    left -= used;
  }
  return true;
}

std::string trim_name(const std::string& name) { return joined(name, false); }

std::string name_fault(const std::string& name) {
  for (const std::int32_t point : code_points(trim_name(name)))
    if (is_control(point)) return "holds " + code(point) + ", a control character; leave it out";
  return "";
}

std::string escaped(const std::string& name) {
  std::string result;
  for (const std::int32_t point : code_points(name)) {
    if (is_control(point))
      result += "<" + code(point) + ">";
    else
      append(result, point);
  }
  return in_quotes(result);
}

std::string in_quotes(const std::string& name) { return "'" + name + "'"; }

std::string list_in_quotes(const std::vector<std::string>& names) {
  std::string result;
  for (const std::string& name : names) result += (result.empty() ? "" : ", ") + in_quotes(name);
  return result;
}

std::vector<std::string> rank_names(const std::string& text, const std::vector<std::string>& names,
                                    std::size_t count) {
  const std::string wanted = fold_name(text);
  const Pairs pairs = letter_pairs(wanted);
  std::vector<std::pair<double, std::size_t>> scored;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string folded = fold_name(names[i]);
    const Pairs own = letter_pairs(folded);
    const auto shared =
        std::count_if(own.begin(), own.end(), [&](const auto& pair) { return pairs.count(pair); });
    const double likeness = 2.0 * double(shared) / double(pairs.size() + own.size()) +
                            double(folded.find(wanted) != std::string::npos);
    if (likeness > 0.3) scored.emplace_back(-likeness, i);
  }
  std::sort(scored.begin(), scored.end());
  std::vector<std::string> result;
  for (std::size_t i = 0; i < std::min(count, scored.size()); ++i)
    result.push_back(names[scored[i].second]);
  return result;
}

std::string did_you_mean(const std::string& name, const std::vector<std::string>& names) {
  const std::vector<std::string> near = rank_names(name, names, 3);
  if (near.empty()) return ".";
  std::string result = "; did you mean ";
  for (std::size_t i = 0; i < near.size(); ++i) result += (i ? " or " : "") + in_quotes(near[i]);
  return result + "?";
}

std::string number_text(float value) {
  char text[32];
  return std::string(text, std::to_chars(text, std::end(text), value).ptr);
}

}  // namespace contrastzsd
