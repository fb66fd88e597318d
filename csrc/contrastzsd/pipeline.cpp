#include "contrastzsd/pipeline.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <new>
#include <utility>

#include "contrastzsd/calibration.h"
#include "contrastzsd/errors.h"
#include "kernels/calibrate_scores.h"
#include "kernels/detect.h"

namespace contrastzsd {

void StageTimes::measure(const char* stage, const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
  const auto known = std::find_if(milliseconds_.begin(), milliseconds_.end(),
                                  [stage](const auto& entry) { return entry.first == stage; });
  if (known == milliseconds_.end())
    milliseconds_.emplace_back(stage, taken.count());
  else
    known->second += taken.count();
}

std::vector<std::pair<std::string, double>> StageTimes::share(std::size_t images) const {
  auto result = milliseconds_;
  for (auto& [stage, milliseconds] : result) milliseconds /= double(images);
  return result;
}

namespace {

// From pixels of the resized image to pixels of the original; the only place it is done. Resizing
// maps edges to edges, so a coordinate scales by the ratio of the sizes of its axis.
Box to_original(const float* box, const float* resized, const Image& image) {
  const float limit_x = float(image.width), limit_y = float(image.height);
  const float x = float(double(image.width) / double(resized[1]));
  const float y = float(double(image.height) / double(resized[0]));
  return {std::min(box[0] * x, limit_x), std::min(box[1] * y, limit_y),
          std::min(box[2] * x, limit_x), std::min(box[3] * y, limit_y)};
}

// The highest score of a class that was asked for, calibrated, and its column.
std::optional<std::pair<float, std::int64_t>> best_of(const Tensor& scores, const Described& found,
                                                      std::int32_t image,
                                                      const std::vector<float>& thresholds,
                                                      const std::vector<float>& curves) {
  std::optional<std::pair<float, std::int64_t>> best;
  const std::int64_t columns = scores.shape[1];
  for (std::size_t r = 0; r < found.batch_indices.size(); ++r) {
    if (found.batch_indices[r] != image) continue;
    for (std::int64_t c = 0; c < columns; ++c) {
      if (!(thresholds[std::size_t(c)] < kHidden)) continue;
      float score = scores.data.get()[std::int64_t(r) * columns + c];
      if (!curves.empty()) score = zsd::calibrated(score, curves.data() + 3 * c);
      if (!best || score > best->first) best = {score, c};
    }
  }
  return best;
}

// The end: scores of described regions to each image's boxes. `curves` and `floors` calibrate them.
std::vector<ImageResult> decide(const Tensor& raw, const Described& found,
                                const ModelConfig& config, const std::vector<Image>& images,
                                const std::vector<float>& thresholds,
                                const std::vector<float>& curves, const std::vector<float>& floors,
                                const RunOptions& options) {
  Tensor scores = raw;
  if (!curves.empty()) {
    scores = Tensor::make(raw.shape);
    zsd::calibrate_scores({raw.shape[0], raw.shape[1]}, raw.data.get(), curves.data(),
                          floors.data(), scores.data.get());
  }
  const std::int64_t batch = std::int64_t(images.size());
  const zsd::DetectParams params{scores.shape[0],
                                 scores.shape[1],
                                 batch,
                                 std::min(options.max_detections, scores.size()),
                                 options.nms_threshold,
                                 float(config.detection.min_size)};
  const std::int64_t capacity = params.max_detections;
  const Tensor boxes = Tensor::make({batch, capacity, 4}), best = Tensor::make({batch, capacity});
  std::vector<std::int32_t> columns(std::size_t(batch * capacity)), counts(std::size_t(batch), 0);
  zsd::detect(params, scores.data.get(), found.deltas.data.get(), found.rois.data(),
              found.batch_indices.data(), found.image_sizes.data(), thresholds.data(),
              boxes.data.get(), best.data.get(), columns.data(), counts.data());
  std::vector<ImageResult> results(images.size());
  for (std::size_t i = 0; i < images.size(); ++i) {
    ImageResult& result = results[i];
    for (std::int64_t n = 0; n < counts[i]; ++n) {
      const std::int64_t place = std::int64_t(i) * capacity + n;
      result.boxes.push_back(
          to_original(boxes.data.get() + 4 * place, found.image_sizes.data() + 2 * i, images[i]));
      result.scores.push_back(best.data.get()[place]);
      result.columns.push_back(columns[std::size_t(place)]);
    }
    if (counts[i] == 0) result.best = best_of(raw, found, std::int32_t(i), thresholds, curves);
  }
  return results;
}

// Least objectness of a region that is looked at; infinity: no unseen class is asked for.
float worth_a_look(const ClassSet& classes, const std::vector<float>& thresholds) {
  const auto asked = [](float threshold) { return threshold < kHidden; };
  return std::any_of(thresholds.begin() + classes.seen, thresholds.end(), asked) ? 0 : kHidden;
}

// Images of one network input size through every stage.
std::vector<ImageResult> run_group(Networks& networks, const Scorer& scorer,
                                   const ClassSet& classes, const ModelConfig& config,
                                   const std::vector<Image>& images,
                                   const std::vector<float>& thresholds,
                                   const RunOptions& options) {
  StageTimes times;
  // In scores as the scorer has them.
  const std::vector<float> floors = floors_of(config.calibration, thresholds, classes.seen);
  const std::vector<float> curves = curves_of(config.calibration, classes.seen, classes.unseen);
  const float lowest = *std::min_element(floors.begin(), floors.end());
  const Described found = describe(networks, config, images, scorer.least_objectness(lowest),
                                   worth_a_look(classes, floors), times);
  std::vector<ImageResult> results(images.size());
  if (!found.objectness.empty()) {
    Tensor scores;
    times.measure("score", [&] {
      scores = scorer.score({found.embeddings, found.looked, found.logits, found.objectness,
                             found.batch_indices, floors},
                            classes);
      check_finite("scoring", scores);
    });
    times.measure("detect", [&] {
      results = decide(scores, found, config, images, thresholds, curves, floors, options);
    });
  }
  for (ImageResult& result : results) result.times_ms = times.share(images.size());
  return results;
}

constexpr std::int64_t kMostBytes = std::int64_t(1) << 56;  // more than any machine addresses

// Whether rows of three bytes a pixel hold the image, in so few bytes that none of the products
// of its sides and bytes overflows.
bool has_pixels(const Image& image) {
  if (!image.pixels || image.height < 1 || image.width < 1 || image.width > kMostBytes / 3)
    return false;
  const std::int64_t row = image.row_bytes ? image.row_bytes : 3 * image.width;
  return row >= 3 * image.width && image.height <= kMostBytes / row;
}

}  // namespace

std::vector<ImageResult> run(Networks& networks, const Scorer& scorer, const ClassSet& classes,
                             const ModelConfig& config, const std::vector<Image>& images,
                             const std::vector<float>& thresholds, const RunOptions& options) {
  if (options.max_batch < 1)
    throw ConfigError("max_batch is " + std::to_string(options.max_batch) +
                      ", must be at least 1.");
  std::map<PreprocessConfig::Size, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const Image& image = images[i];
    if (!has_pixels(image))
      throw ImageError("image " + std::to_string(i) + " is " + std::to_string(image.height) +
                       " x " + std::to_string(image.width) + " with " +
                       std::to_string(image.row_bytes) + " bytes a row" +
                       (image.pixels ? "" : " and no pixels") +
                       "; it must have at least one pixel of 3 bytes, and no more than memory "
                       "holds. Did reading it fail?");
    const auto size = config.preprocess.resized(image.height, image.width);
    groups[config.preprocess.padded(size)].push_back(i);
  }
  std::vector<ImageResult> results(images.size());
  for (const auto& [size, members] : groups) {
    for (std::size_t start = 0; start < members.size(); start += std::size_t(options.max_batch)) {
      const std::size_t end = std::min(members.size(), start + std::size_t(options.max_batch));
      std::vector<Image> chunk;
      for (std::size_t i = start; i < end; ++i) chunk.push_back(images[members[i]]);
      std::vector<ImageResult> found;
      try {
        found = run_group(networks, scorer, classes, config, chunk, thresholds, options);
      } catch (const std::bad_alloc&) {  // a bundle says how large its images become
        throw DeviceError("there is not enough memory for " + std::to_string(chunk.size()) +
                          " images of " + std::to_string(size[0]) + " x " +
                          std::to_string(size[1]) +
                          " pixels of the network input. Lower max_batch, or take a bundle that "
                          "shrinks images more (model.preprocess).");
      }
      for (std::size_t i = start; i < end; ++i) results[members[i]] = std::move(found[i - start]);
    }
  }
  return results;
}

}  // namespace contrastzsd
