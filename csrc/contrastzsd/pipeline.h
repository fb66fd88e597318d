// One definition of inference: images in, boxes in original pixels out; the C++ half of
// zsd_core/pipeline.py.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "contrastzsd/config.h"
#include "contrastzsd/detector.h"
#include "contrastzsd/networks.h"
#include "contrastzsd/scoring.h"

namespace contrastzsd {

// A stage of the pipeline and its milliseconds.
class StageTimes {
 public:
  // Runs `work` and adds its time to a stage; stages appear in the order they first ran.
  void measure(const char* stage, const std::function<void()>& work);
  // Of each of `images` that went through together.
  std::vector<std::pair<std::string, double>> share(std::size_t images) const;

 private:
  std::vector<std::pair<std::string, double>> milliseconds_;
};

// What was found in one image, best first.
struct ImageResult {
  std::vector<Box> boxes;  // pixels of the original image
  std::vector<float> scores;
  std::vector<std::int64_t> columns;  // positions in ClassSet::names
  // Where nothing was found: the highest score of a class that was asked for, and its column.
  std::optional<std::pair<float, std::int64_t>> best;
  std::vector<std::pair<std::string, double>> times_ms;
};

// Regions of images of one network input size, before anything is known of classes.
struct Described {
  std::vector<float> rois;                  // (R, 4), pixels of the network input
  std::vector<std::int32_t> batch_indices;  // (R,), ascending
  std::vector<float> objectness;            // (R,), in [0, 1], best first within an image
  Tensor logits;                            // (R, Ks) of a given detector, else (R, 0)
  std::vector<std::int64_t> looked;         // (L,), the regions that a look holds for, ascending
  Tensor embeddings;                        // (L, D), what scoring reads
  Tensor deltas;                            // (R, 4), zeros where the head saw nothing
  std::vector<float> image_sizes;           // (B, 2) height, width after resizing

  std::int64_t regions() const { return std::int64_t(objectness.size()); }
};

// By NaN or infinity nothing would be found, without a word. No network means them: where regions
// do not count, it says so in numbers. Throws BundleError, which names the part.
//
// Twin        zsd_core/stages.py::check_finite; change both in one commit.
void check_finite(const std::string& part, const Tensor& output);

// The stages of the manifest that a model of this configuration runs.
std::vector<std::string> network_stages(const ModelConfig& config);

// The first half: images of one network input size to regions and what the head says of them.
// Regions below `least_objectness` are dropped, but for the best one of every image. Where the
// model has a second look, regions from objectness `look` on are worth it, and the best one of an
// image is looked at all the same, unless `look` is infinite.
Described describe(Networks& networks, const ModelConfig& config, const std::vector<Image>& images,
                   float least_objectness, float look, StageTimes& times);

struct RunOptions {
  double nms_threshold;
  std::int64_t max_detections;
  int max_batch;
};

// Detects in images of any sizes; `thresholds` (C,) are of the columns of `classes`. Images are
// grouped by the size of their network input, so a batch of N gives what N single images give.
std::vector<ImageResult> run(Networks& networks, const Scorer& scorer, const ClassSet& classes,
                             const ModelConfig& config, const std::vector<Image>& images,
                             const std::vector<float>& thresholds, const RunOptions& options);

}  // namespace contrastzsd
