// The options of a model, as its manifest stores them. Every field is explained beside its Python
// twin, zsd_core/config.py; what only training reads is checked, and left out.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace contrastzsd {

struct PreprocessConfig {
  std::int64_t shorter_edge = 600, longer_edge = 1000, pad_multiple = 32;
  std::int64_t square = 0;  // above 0: every image is stretched to this square
  std::array<double, 3> mean = {0.485, 0.456, 0.406};  // RGB, of values in [0, 1]
  std::array<double, 3> std = {0.229, 0.224, 0.225};

  using Size = std::array<std::int64_t, 2>;  // height, width
  // Of an image after resizing, before padding; at least 1 x 1.
  Size resized(std::int64_t height, std::int64_t width) const;
  // Of the network input for an image of this resized size.
  Size padded(const Size& resized) const;
};

struct ProposalConfig {
  std::string source = "anchors";  // or "queries": regions that a given detector offers
  std::string objectness = "classification";
  std::int64_t stride = 16;
  std::vector<double> anchor_sizes = {128, 256, 512}, aspect_ratios = {0.5, 1, 2};
  std::int64_t pre_nms_top = 6000, post_nms_top = 300;
  double nms_threshold = 0.7, min_size = 1;

  // (A, 4) x1 y1 x2 y2 around the origin, ratio-major within size-minor.
  std::vector<float> anchors() const;
};

struct RegionConfig {
  struct Map {
    std::string name;
    std::int64_t bin_step;
  };
  std::string conv5 = "region";
  std::int64_t stride = 16, sampling_ratio = 2, box_hidden = 0;
  std::array<std::int64_t, 2> output_size = {14, 14};
  std::vector<Map> maps = {{"features", 1}};
  std::int64_t look = 0;  // above 0: the head sees so many regions of an image at most
  double look_nms = 0.7;  // of two that overlap by more it sees the better one

  // Whether regions are cut from the network input itself.
  bool from_image() const { return maps.front().name == "image"; }
};

struct ScoringConfig {
  std::string method = "contrastzsd", seen_activation = "linear", fusion = "softmax";
  std::string background = "head";
  std::int64_t vector_dim = 300, joint_dim = 2048, hidden_dim = 1024, conse_top = 10;
  double similarity_temperature = 1, seen_scale = 1, objectness_power = 0;
  double kernel_weight = 3, kernel_width = 0.4, evidence = 0.2;  // of method "prototypes"
  double contest = 0, contest_margin = 0, rivalry = 0;           // likewise
  bool seen_evidence = false, center = false;
};

// Of one image, that a bundle or a caller may ask for; the same as zsd_core/config.py.
inline constexpr std::int64_t kMostDetections = 1 << 20;

struct DetectionConfig {
  double score_threshold = 0.05, nms_threshold = 0.5, min_size = 1;
  std::optional<double> unseen_threshold;  // of unseen classes; none: score_threshold
  std::int64_t max_detections = 100;
};

// From final scores s to probabilities: 1 / (1 + exp(-(a ln s - b ln(1 - s) + c))).
struct CalibrationConfig {
  using Curve = std::array<double, 3>;  // a, b, c
  std::optional<Curve> seen, unseen;    // of a role; without one its scores stay as they are
};

struct ModelConfig {
  PreprocessConfig preprocess;
  ProposalConfig proposals;
  RegionConfig regions;
  ScoringConfig scoring;
  DetectionConfig detection;
  CalibrationConfig calibration;
};

}  // namespace contrastzsd
