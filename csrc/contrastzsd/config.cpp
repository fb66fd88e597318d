#include "contrastzsd/config.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/fields.h"
#include "contrastzsd/manifest.h"
#include "contrastzsd/text.h"

namespace contrastzsd {
namespace {

constexpr double kMost = std::numeric_limits<float>::max();
constexpr double kTiny = std::numeric_limits<float>::min();  // anything above 0
// A bundle that a stranger made must not ask for all memory; the same as zsd_core/config.py.
constexpr std::int64_t kMostPixels = 16384, kMostRegions = 1 << 16, kMostBins = 4096,
                       kMostWidth = 1 << 20;

void read_numbers(Fields& fields, const char* key, std::array<double, 3>& values, bool positive) {
  const nlohmann::json* given = fields.take(key);
  if (!given) return;
  const bool three = given->is_array() && given->size() == 3;
  for (std::size_t i = 0; i < 3; ++i) {
    if (!three || !(*given)[i].is_number() || (positive && !((*given)[i].get<double>() > 0)))
      throw fields.error(key, positive ? "must hold 3 numbers above 0" : "must hold 3 numbers");
    values[i] = fields.as_float32(key, (*given)[i]);
  }
}

PreprocessConfig read_preprocess(const nlohmann::json& object, const std::string& where) {
  PreprocessConfig config;
  Fields fields(object, where);
  fields.read("shorter_edge", config.shorter_edge, 1);
  fields.read("longer_edge", config.longer_edge, 1, kMostPixels);
  fields.read("pad_multiple", config.pad_multiple, 1, kMostPixels);
  fields.read("square", config.square, 0, kMostPixels);
  read_numbers(fields, "mean", config.mean, false);
  read_numbers(fields, "std", config.std, true);
  fields.finish();
  if (config.shorter_edge > config.longer_edge)
    throw BundleError(where + ".longer_edge is " + std::to_string(config.longer_edge) +
                      ", must be at least shorter_edge, " + std::to_string(config.shorter_edge) +
                      ". Export the bundle again.");
  return config;
}

void check_backbone(const nlohmann::json& object, const std::string& where) {
  Fields fields(object, where);
  fields.check("name", {"resnet101", "resnet18", "resnet34", "resnet50", "mobilenet_v2",
                        "efficientnet_lite0"});
  fields.check_text("weights");
  fields.check("frozen", {"none", "bottom", "all"});
  fields.check_flag("stride_in_1x1");
  fields.finish();
}

ProposalConfig read_proposals(const nlohmann::json& object, const std::string& where) {
  ProposalConfig config;
  Fields fields(object, where);
  std::vector<std::int64_t> levels = {16};
  std::string merge = "sum";
  fields.read("levels", levels);
  fields.read("merge", merge, {"sum", "topdown"});
  fields.check("channels", 1, kMostRegions);
  fields.check("depth", 1, 64);
  fields.read("objectness", config.objectness, {"classification", "background", "iou", "quality"});
  fields.read("source", config.source, {"anchors", "queries"});
  fields.read("stride", config.stride, 1, kMostRegions);
  fields.read("anchor_sizes", config.anchor_sizes, kMostRegions);
  fields.read("aspect_ratios", config.aspect_ratios, kMostRegions);
  fields.read("post_nms_top", config.post_nms_top, 1);
  fields.read("pre_nms_top", config.pre_nms_top, 1, kMostRegions);
  fields.read("nms_threshold", config.nms_threshold, kTiny, 1);
  fields.read("min_size", config.min_size, 0, kMost);
  fields.finish();
  if (config.post_nms_top > config.pre_nms_top)
    throw BundleError(where + ".post_nms_top is " + std::to_string(config.post_nms_top) +
                      ", must lie between 1 and pre_nms_top, " +
                      std::to_string(config.pre_nms_top) + ". Export the bundle again.");
  const bool rises =
      std::adjacent_find(levels.begin(), levels.end(), std::greater_equal<>()) == levels.end();
  if (merge == "topdown" && !(rises && levels.size() > 1 && levels[0] == config.stride))
    throw BundleError(where + ".levels must rise from stride, " + std::to_string(config.stride) +
                      ", where merge is 'topdown'. Export the bundle again.");
  return config;
}

RegionConfig read_regions(const nlohmann::json& object, const std::string& where) {
  RegionConfig config;
  std::string pooling = "align";
  Fields fields(object, where);
  fields.read("conv5", config.conv5, {"region", "map"});
  fields.read("box_hidden", config.box_hidden, 0, kMostBins);
  fields.read("stride", config.stride, 1, kMostBins);
  fields.read("sampling_ratio", config.sampling_ratio, 0, kMostBins);
  fields.read("pooling", pooling, {"align"});  // the others are for training
  fields.read("look", config.look, 0, kMostBins);
  fields.read("look_nms", config.look_nms, 0, 1);
  if (const nlohmann::json* size = fields.take("output_size")) {
    if (!size->is_array() || size->size() != 2)
      throw fields.error("output_size", "must hold 2 values");
    for (std::size_t i = 0; i < 2; ++i) {
      if (!is_whole((*size)[i], 1, kMostBins))
        throw fields.error("output_size", "must hold whole numbers between 1 and 4096");
      config.output_size[i] = (*size)[i].get<std::int64_t>();
    }
  }
  if (const nlohmann::json* maps = fields.list("maps")) {
    config.maps.clear();
    for (const nlohmann::json& map : *maps) {
      if (!map.is_array() || map.size() != 2 || !map[0].is_string() ||
          !is_whole(map[1], 1, kMostBins))
        throw fields.error("maps", "must hold pairs of a name and a step between 1 and 4096");
      config.maps.push_back({map[0].get<std::string>(), map[1].get<std::int64_t>()});
    }
  }
  fields.finish();
  const bool image = std::any_of(config.maps.begin(), config.maps.end(),
                                 [](const RegionConfig::Map& map) { return map.name == "image"; });
  if (image && (config.maps.size() != 1 || config.stride != 1))
    throw BundleError(where +
                      ": regions of the image itself are cut at stride 1, and no other map goes "
                      "with it. Export the bundle again.");
  return config;
}

ScoringConfig read_scoring(const nlohmann::json& object, const std::string& where) {
  ScoringConfig config;
  Fields fields(object, where);
  fields.check_text("learned");
  fields.check("contrast_dim", 1, kMostWidth);
  fields.read("background", config.background, {"rpn", "head", "mean"});
  fields.check_flag("background_unit");
  // Of methods that only Python runs; make_scorer refuses those by name.
  fields.check("blc_stages", 1, kMostWidth);
  fields.check("td_words", 1, kMostWidth);
  fields.check_flag("cosine_background");
  fields.read("method", config.method);
  fields.read("vector_dim", config.vector_dim, 1, kMostWidth);
  fields.read("joint_dim", config.joint_dim, 1, kMostWidth);
  fields.read("hidden_dim", config.hidden_dim, 1, kMostWidth);
  fields.read("conse_top", config.conse_top, 1, kMostWidth);
  fields.read("seen_activation", config.seen_activation, {"linear", "relu"});
  fields.read("fusion", config.fusion, {"softmax", "sigmoid", "raw"});
  fields.read("similarity_temperature", config.similarity_temperature, kTiny, kMost);
  fields.read("seen_scale", config.seen_scale, kTiny, 1000);
  fields.read("objectness_power", config.objectness_power, 0, kMost);
  fields.read("kernel_weight", config.kernel_weight, 0, kMost);
  fields.read("kernel_width", config.kernel_width, kTiny, kMost);
  fields.read("evidence", config.evidence, 0, kMost);
  fields.read("contest", config.contest, 0, kMost);
  fields.read("contest_margin", config.contest_margin, -kMost, kMost);
  fields.read("rivalry", config.rivalry, 0, kMost);
  fields.read("seen_evidence", config.seen_evidence);
  fields.read("center", config.center);
  fields.finish();
  if (config.center && config.background == "mean")
    throw BundleError(where +
                      ".background is 'mean', which is zero once center is true. Export the bundle "
                      "again.");
  return config;
}

DetectionConfig read_detection(const nlohmann::json& object, const std::string& where) {
  DetectionConfig config;
  Fields fields(object, where);
  fields.read("score_threshold", config.score_threshold, 0, 1);
  if (const auto* unseen = fields.take("unseen_threshold"); unseen && !unseen->is_null())
    fields.read("unseen_threshold", config.unseen_threshold.emplace(), 0, 1);
  fields.read("nms_threshold", config.nms_threshold, 0, 1);
  fields.read("max_detections", config.max_detections, 1, kMostDetections);
  fields.read("min_size", config.min_size, 0, kMost);
  fields.finish();
  return config;
}

CalibrationConfig read_calibration(const nlohmann::json& object, const std::string& where) {
  CalibrationConfig config;
  Fields fields(object, where);
  for (const auto& [key, role] : {std::pair{"seen", &config.seen}, {"unseen", &config.unseen}}) {
    const nlohmann::json* given = fields.take(key);
    if (!given || given->is_null()) continue;
    CalibrationConfig::Curve curve;
    read_numbers(fields, key, curve, false);
    if (!(curve[0] > 0 && curve[1] >= 0))
      throw fields.error(key,
                         "its first number must be above 0 and its second not negative, or a "
                         "better score would not become a larger probability");
    *role = curve;
  }
  fields.finish();
  return config;
}

// Parts of a model that do not go together; the same as ModelConfig of zsd_core/config.py, and the
// look as in runtime/bundle.py.
void check_parts(const ModelConfig& config, const std::string& where) {
  const RegionConfig& regions = config.regions;
  const auto refuse = [&](bool wrong, const std::string& what) {
    if (wrong) throw BundleError(where + what + " Export the bundle again.");
  };
  refuse((regions.look > 0) != (config.scoring.method == "prototypes"),
         ".regions.look is " + std::to_string(regions.look) + " and .scoring.method " +
             in_quotes(config.scoring.method) +
             "; a second look goes with 'prototypes', and they with it.");
  refuse(config.proposals.source == "queries" && !(regions.look && regions.from_image()),
         ".proposals.source is 'queries', whose regions the head sees in the image, but "
         "model.regions says otherwise.");
  refuse(regions.stride == 32 && regions.conv5 == "region",
         ".regions.stride is 32, but that map is conv5's output; conv5 must be 'map'.");
  refuse(regions.stride == 1 && regions.conv5 == "map",
         ".regions.stride is 1, which cuts regions from the image; conv5 must be 'region'.");
  refuse(regions.box_hidden > 0 && regions.stride != config.proposals.stride,
         ".regions.box_hidden is above 0, which cuts boxes from the proposal network's map, but "
         "the strides of regions and proposals differ.");
  refuse(config.scoring.background == "rpn" && config.proposals.objectness != "background",
         ".scoring.background is 'rpn', but .proposals.objectness is " +
             in_quotes(config.proposals.objectness) + ", which learns no a_0.");
}

}  // namespace

ModelConfig read_model(const nlohmann::json& model, const std::string& where) {
  ModelConfig config;
  Fields fields(model, where);
  if (const auto* part = fields.take("backbone")) check_backbone(*part, where + ".backbone");
  if (const auto* part = fields.take("preprocess"))
    config.preprocess = read_preprocess(*part, where + ".preprocess");
  if (const auto* part = fields.take("proposals"))
    config.proposals = read_proposals(*part, where + ".proposals");
  if (const auto* part = fields.take("regions"))
    config.regions = read_regions(*part, where + ".regions");
  if (const auto* part = fields.take("scoring"))
    config.scoring = read_scoring(*part, where + ".scoring");
  if (const auto* part = fields.take("detection"))
    config.detection = read_detection(*part, where + ".detection");
  if (const auto* part = fields.take("calibration"))
    config.calibration = read_calibration(*part, where + ".calibration");
  fields.finish();
  check_parts(config, where);
  return config;
}

PreprocessConfig::Size PreprocessConfig::resized(std::int64_t height, std::int64_t width) const {
  if (square) return {square, square};
  const double scale = std::min(double(shorter_edge) / double(std::min(height, width)),
                                double(longer_edge) / double(std::max(height, width)));
  const auto side = [scale](std::int64_t pixels) {
    return std::max<std::int64_t>(1, std::int64_t(std::floor(double(pixels) * scale + 0.5)));
  };
  return {side(height), side(width)};
}

PreprocessConfig::Size PreprocessConfig::padded(const Size& resized) const {
  const auto side = [this](std::int64_t pixels) {
    return (pixels + pad_multiple - 1) / pad_multiple * pad_multiple;
  };
  return {side(resized[0]), side(resized[1])};
}

std::vector<float> ProposalConfig::anchors() const {
  std::vector<float> result;
  for (const double aspect : aspect_ratios) {
    const float ratio = std::sqrt(float(aspect));
    for (const double size : anchor_sizes) {
      const float width = 1 / ratio * float(size), height = ratio * float(size);
      for (const float side : {-width, -height, width, height})
        result.push_back(std::nearbyint(side / 2));  // halves to even, as numpy rounds
    }
  }
  return result;
}

}  // namespace contrastzsd
