// Find any classes in images, without Python.
//
//   contrastzsd::Detector detector("bundle", {{"cat", "cup"}});
//   contrastzsd::Detections found = detector({pixels, height, width});
//   detector.add_classes({"zebra", "fire truck"});  // the next image is searched for these too
//
// A detector may be shared by threads. Classes and thresholds change atomically: an image that is
// being searched keeps those it started with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "contrastzsd/bundle.h"
#include "contrastzsd/errors.h"
#include "contrastzsd/networks.h"

namespace contrastzsd {

enum class Color { kRgb, kBgr };         // channel order; OpenCV's is kBgr
enum class Mode { kGzsd, kZsd, kSeen };  // report all classes, the unseen, or the seen
enum class Role { kSeen, kUnseen };

// Borrowed pixels (height, width, 3) uint8; they must live until the call returns.
struct Image {
  const std::uint8_t* pixels;
  std::int64_t height, width;
  Color color = Color::kRgb;
  std::int64_t row_bytes = 0;  // from one row to the next, such as cv::Mat::step; 0: width * 3
};

// A class to look for: a name, and a vector of the bundle's encoder unless the name is looked up in
// the bundle's class table and vocabulary.
struct Class {
  std::string name;
  std::vector<float> vector;  // (E,), or empty

  Class(const char* name) : name(name) {}
  Class(std::string name) : name(std::move(name)) {}
  Class(std::string name, std::vector<float> vector)
      : name(std::move(name)), vector(std::move(vector)) {}
};

// What is kept; what is not set stays, and is the bundle's value at first.
struct Thresholds {
  std::optional<float> seen = {}, unseen = {};  // a detection's score must exceed its role's,
  std::map<std::string, float> by_class = {};   // or its class's, which wins
  std::optional<float> nms = {};  // IoU above which the worse of two boxes of a class goes
  std::optional<std::int64_t> max_detections = {};  // of one image, at most kMostDetections
};

struct DetectorOptions {
  std::vector<Class> classes = {};  // none: the bundle's table
  Mode mode = Mode::kGzsd;
  Thresholds thresholds = {};
  NetworkOptions networks = {};  // its threads count for the kernels as well
  bool int8_scoring = false;     // faster where classes are many, moves scores a little
};

struct Box {
  float x1, y1, x2, y2;  // pixels of the original image
};

struct Detection {
  Box box;
  float score;
  std::int64_t class_id;  // position in Detector::classes() at Detections::class_set_version
  std::string class_name;
  Role role;
};

// What was found in one image.
struct Detections {
  std::vector<Detection> objects;  // best first
  std::int64_t class_set_version = 0;
  // Milliseconds of each stage in order; images of a batch share a stage's time equally.
  std::vector<std::pair<std::string, double>> times_ms;
  // Where nothing was found: the reported class with the highest score, and that score.
  std::optional<std::pair<std::string, float>> near_miss;

  bool empty() const { return objects.empty(); }
  std::size_t size() const { return objects.size(); }
  auto begin() const { return objects.begin(); }
  auto end() const { return objects.end(); }
};

class Detector {
 public:
  // Throws BundleError, ClassError, ConfigError or DeviceError.
  explicit Detector(const std::filesystem::path& bundle, const DetectorOptions& options = {});
  // With networks of the caller's own, or a bundle that several detectors share.
  Detector(std::shared_ptr<const Bundle> bundle, std::shared_ptr<Networks> networks,
           const DetectorOptions& options = {});
  ~Detector();
  Detector(Detector&&) noexcept;
  Detector& operator=(Detector&&) noexcept;

  // Throws ImageError: an image has no pixels, or more than memory holds.
  Detections operator()(const Image& image) const;
  // Images of any sizes; at most `max_batch` go through the networks together. A batch of N gives
  // what N single images give.
  std::vector<Detections> operator()(const std::vector<Image>& images, int max_batch = 8) const;

  // Each throws ClassError, and nothing has changed then.
  void set_classes(const std::vector<Class>& classes);  // none: the bundle's table
  void add_classes(const std::vector<Class>& classes);
  void remove_classes(const std::vector<std::string>& names);
  // Changes those that are set. Throws ClassError or ConfigError.
  void set_thresholds(const Thresholds& thresholds);
  // Throws ClassError: no class would be reported.
  void set_mode(Mode mode);

  // The active classes in the order they were given.
  std::vector<std::string> classes() const;
  std::vector<Role> roles() const;
  std::int64_t class_set_version() const;  // rises with every change of the classes
  const Bundle& bundle() const;
  std::string description() const;  // bundle, backend, version and device on one line
  // The nearest names by spelling that need no vector.
  std::vector<std::string> search(const std::string& text, std::size_t count = 10) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace contrastzsd
