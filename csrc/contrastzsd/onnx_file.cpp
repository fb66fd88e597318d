// Read in protobuf's wire format, no further than to inputs of nodes and places of weights.
//
// References:
//     onnx/onnx.proto; protobuf.dev/programming-guides/encoding.
#include "contrastzsd/onnx_file.h"

#include <cstdint>
#include <string_view>

#include "contrastzsd/errors.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

constexpr int kVarint = 0, kLong = 1, kBytes = 2, kShort = 5;  // wire types
constexpr int kDeepest = 60;  // messages within each other; a graph within a branch has about 20
constexpr std::uint64_t kInput = 1, kOperator = 4;       // fields of a node
constexpr std::uint64_t kExternal = 13, kLocation = 14;  // fields of a tensor
constexpr std::size_t kMostShown = 200;                  // bytes of a name, for a message

enum class Kind { kModel, kTraining, kFunction, kGraph, kNode, kAttribute, kSparse, kTensor };

// The fields of a message that lead to tensors, and the message of each.
const std::map<std::uint64_t, Kind>& inside(Kind kind) {
  static const std::map<Kind, std::map<std::uint64_t, Kind>> fields = {
      {Kind::kModel, {{7, Kind::kGraph}, {20, Kind::kTraining}, {25, Kind::kFunction}}},
      {Kind::kTraining, {{1, Kind::kGraph}, {2, Kind::kGraph}}},
      {Kind::kFunction, {{7, Kind::kNode}, {11, Kind::kAttribute}}},
      {Kind::kGraph, {{1, Kind::kNode}, {5, Kind::kTensor}, {15, Kind::kSparse}}},
      {Kind::kNode, {{5, Kind::kAttribute}}},
      {Kind::kAttribute,
       {{5, Kind::kTensor},
        {6, Kind::kGraph},
        {10, Kind::kTensor},
        {11, Kind::kGraph},
        {22, Kind::kSparse},
        {23, Kind::kSparse}}},
      {Kind::kSparse, {{1, Kind::kTensor}, {2, Kind::kTensor}}}};
  return fields.at(kind);
}

class Reader {
 public:
  Reader(const std::filesystem::path& bundle, const std::string& name,
         const std::map<std::string, FileRecord>& files)
      : bundle_(bundle), name_(name), files_(files) {}

  void walk(Kind kind, std::string_view message, int deepest = kDeepest) const {
    if (deepest == 0) refuse("its messages are nested too deeply");
    if (kind == Kind::kTensor) return tensor(message);
    if (kind == Kind::kNode) check_bias(message);
    const auto& known = inside(kind);
    while (!message.empty()) {
      const Field field = next(message);
      const auto found = known.find(field.number);
      if (found == known.end()) continue;
      expect(field, kBytes);
      walk(found->second, field.bytes, deepest - 1);
    }
  }

 private:
  struct Field {
    std::uint64_t number;
    int wire;
    std::uint64_t value;
    std::string_view bytes;
  };

  [[noreturn]] void refuse(const std::string& why) const {
    throw BundleError(bundle_.string() + ": " + name_ + " is not an ONNX file to be used: " + why +
                      ".");
  }

  // What protobuf would skip here, another reader may take.
  void expect(const Field& field, int wire) const {
    if (field.wire != wire)
      refuse("field " + std::to_string(field.number) + " of a message has the wire type " +
             std::to_string(field.wire));
  }

  std::uint64_t varint(std::string_view& rest) const {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70 && !rest.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest.front());
      rest.remove_prefix(1);
      value |= std::uint64_t(byte & 127) << shift;
      if (byte < 128) return value;
    }
    refuse("it ends within a number");
  }

  // Takes a field off the front of a message.
  Field next(std::string_view& rest) const {
    const std::uint64_t tag = varint(rest);
    Field field{tag >> 3, int(tag & 7), 0, {}};
    if (field.number == 0 || tag >> 32) refuse("a field has a number that protobuf does not know");
    if (field.wire == kVarint) {
      field.value = varint(rest);
      return field;
    }
    std::uint64_t length = field.wire == kLong ? 8 : 4;
    if (field.wire == kBytes)
      length = varint(rest);
    else if (field.wire != kLong && field.wire != kShort)
      refuse("its wire type " + std::to_string(field.wire) + " is none of ONNX's");
    if (length > rest.size()) refuse("a field is longer than the file");
    field.bytes = rest.substr(0, std::size_t(length));
    rest.remove_prefix(std::size_t(length));
    return field;
  }

  // A layer normalisation whose bias is named "" is valid, but ONNX Runtime (1.32 at least) ends
  // the process where it joins such a node with the sum before it.
  void check_bias(std::string_view node) const {
    std::string_view last_input, type;
    while (!node.empty()) {
      const Field field = next(node);
      if (field.wire != kBytes) continue;
      if (field.number == kInput) last_input = field.bytes;
      if (field.number == kOperator) type = field.bytes;
    }
    if (type == "LayerNormalization" && last_input.empty())
      refuse("a LayerNormalization names an empty bias, which is to be left out");
  }

  void tensor(std::string_view message) const {
    bool outside = false, placed = false;
    while (!message.empty()) {
      const Field field = next(message);
      if (field.number == kLocation) {
        expect(field, kVarint);
        outside = outside || field.value != 0;
      } else if (field.number == kExternal) {
        expect(field, kBytes);
        placed = entry(field.bytes) || placed;
      }
    }
    if (outside && !placed) check_place("");
  }

  // Whether an entry of a tensor's external data says where the weights lie.
  bool entry(std::string_view message) const {
    std::string_view parts[2];  // key, value
    while (!message.empty()) {
      const Field field = next(message);
      if (field.number > 2) continue;
      expect(field, kBytes);
      parts[field.number - 1] = field.bytes;
    }
    if (parts[0] != "location") return false;
    check_place(std::string(parts[1]));
    return true;
  }

  void check_place(const std::string& place) const {
    std::filesystem::path file;  // beside the network; ".." stays, and is in no file's name
    for (const auto& part : std::filesystem::path(name_).parent_path() / place)
      if (!part.empty() && part != ".") file /= part;
    const auto found = files_.find(file.generic_string());
    if (found == files_.end())
      refuse("its weights lie in " + escaped(place.substr(0, kMostShown)) +
             ", which is no file of this bundle");
    if (found->first.rfind("engines/", 0) == 0)  // opening the bundle leaves those out
      verify_file(bundle_, found->first, found->second);
  }

  const std::filesystem::path& bundle_;
  const std::string& name_;
  const std::map<std::string, FileRecord>& files_;
};

}  // namespace

void check_weights(const std::filesystem::path& bundle, const std::string& name,
                   const std::map<std::string, FileRecord>& files) {
  const std::string data = read_file(bundle, name, files.at(name).bytes);
  // OpenVINO chooses a reader by what a file holds, not by its name: one whose beginning it does
  // not take for ONNX is its own XML if that begins anywhere, with weights that nobody checked.
  for (std::size_t at = data.find("<net"); at != std::string::npos; at = data.find("<net", at + 1))
    if (at + 4 < data.size() &&
        std::string_view(" \t\n\r>/").find(data[at + 4]) != std::string_view::npos)
      throw BundleError(
          bundle.string() + ": " + name +
          " is not an ONNX file to be used: it holds a network in OpenVINO's form, too.");
  Reader(bundle, name, files).walk(Kind::kModel, data);
}

}  // namespace contrastzsd
