// The part of Python's way to the CUDA kernels that detectors of somebody else's need: the regions
// they offer, the second look at some, and scoring by prototypes.
#include <pybind11/pybind11.h>

#include "device_array.h"
#include "kernels/cuda/launch.h"

namespace zsd {
namespace bindings {

void top_regions(const py::object& boxes, const py::object& logits, const py::object& image_sizes,
                 const py::object& rois, const py::object& batch_indices,
                 const py::object& objectness, const py::object& output_logits,
                 const py::object& count_out, const py::object& workspace, std::int64_t count,
                 float min_size, std::uintptr_t stream) {
  const Arguments arguments("top_regions");
  const Array shares = arguments.read("boxes", boxes, kFloat, {-1, -1, 4});
  const std::int64_t batch = shares.shape[0], queries = shares.shape[1];
  const Array scores = arguments.read("logits", logits, kFloat, {batch, queries, -1});
  const std::int64_t classes = scores.shape[2];
  const Array sizes = arguments.read("image_sizes", image_sizes, kFloat, {batch, 2});
  const std::int64_t capacity = batch * count;
  const Array out = arguments.read("rois", rois, kFloat, {capacity, 4});
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {capacity});
  const Array likely = arguments.read("objectness", objectness, kFloat, {capacity});
  const Array kept = arguments.read("output_logits", output_logits, kFloat, {capacity, classes});
  const Array total = arguments.read("count", count_out, kInt, {1});
  const Array memory = arguments.read("workspace", workspace, {"uint8"}, {-1});
  const TopRegionsParams p{batch, queries, classes, count, min_size};
  check_workspace("top_regions", memory, top_regions_workspace(p));
  const TopRegionsOutput output{out.as<float>(), images.as<std::int32_t>(), likely.as<float>(),
                                kept.as<float>(), total.as<std::int32_t>()};
  arguments.finish(launch_top_regions(p, shares.as<float>(), scores.as<float>(), sizes.as<float>(),
                                      output, memory.data, as_stream(stream)));
}

void second_look(const py::object& rois, const py::object& batch_indices,
                 const py::object& num_regions, const py::object& positions,
                 const py::object& look_rois, const py::object& look_batch_indices,
                 const py::object& count_out, const py::object& workspace, std::int64_t batch,
                 std::int64_t count, double nms_threshold, std::uintptr_t stream) {
  const Arguments arguments("second_look");
  const Array regions = arguments.read("rois", rois, kFloat, {-1, 4});
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {regions.shape[0]});
  const Array number = arguments.read("num_regions", num_regions, kInt, {1});
  const std::int64_t capacity = batch * count;
  const Array places = arguments.read("positions", positions, kInt, {capacity});
  const Array out = arguments.read("look_rois", look_rois, kFloat, {capacity, 4});
  const Array owners = arguments.read("look_batch_indices", look_batch_indices, kInt, {capacity});
  const Array total = arguments.read("count", count_out, kInt, {1});
  const Array memory = arguments.read("workspace", workspace, {"uint8"}, {-1});
  if (regions.shape[0] > kMostDetectRegions) {
    raise("ShapeError", "second_look: " + std::to_string(regions.shape[0]) + " regions, at most " +
                            std::to_string(kMostDetectRegions) +
                            " fit one call; pass fewer images at a time.");
  }
  const SecondLookParams p{regions.shape[0], batch, count, nms_threshold};
  check_workspace("second_look", memory, second_look_workspace(p));
  const SecondLookOutput output{places.as<std::int32_t>(), out.as<float>(),
                                owners.as<std::int32_t>(), total.as<std::int32_t>()};
  arguments.finish(launch_second_look(p, regions.as<float>(), images.as<std::int32_t>(),
                                      number.as<std::int32_t>(), output, memory.data,
                                      as_stream(stream)));
}

void spoken_for(const py::object& rois, const py::object& batch_indices,
                const py::object& positions, const py::object& deltas, const py::object& places,
                const py::object& offsets, double threshold, std::uintptr_t stream) {
  const Arguments arguments("spoken_for");
  const Array boxes = arguments.read("rois", rois, kFloat, {-1, 4});
  const std::int64_t regions = boxes.shape[0];
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {regions});
  const Array chosen = arguments.read("positions", positions, kInt, {-1});
  const Array moved = arguments.read("deltas", deltas, kFloat, {chosen.shape[0], 4});
  const Array out = arguments.read("places", places, kInt, {regions});
  const Array spread = arguments.read("offsets", offsets, kFloat, {regions, 4});
  const SpokenForParams p{regions, chosen.shape[0], iou_limit(threshold)};
  const SpokenForInput input{boxes.as<Box>(), images.as<std::int32_t>(), chosen.as<std::int32_t>(),
                             moved.as<float>()};
  arguments.finish(
      launch_spoken_for(p, input, out.as<std::int32_t>(), spread.as<float>(), as_stream(stream)));
}

void score_prototypes(const py::object& logits, const py::object& objectness,
                      const py::object& embeddings, const py::object& places,
                      const py::object& prototypes, const py::object& thresholds,
                      const py::object& output, const py::object& workspace, double seen_scale,
                      double objectness_power, double contest, double contest_margin,
                      double rivalry, const py::object& in_use, std::uintptr_t stream) {
  const Arguments arguments("score_prototypes");
  const Array offered = arguments.read("logits", logits, kFloat, {-1, -1});
  const std::int64_t regions = offered.shape[0], seen = offered.shape[1];
  const Array likely = arguments.read("objectness", objectness, kFloat, {regions});
  const Array looks = arguments.read("embeddings", embeddings, kFloat, {-1, -1});
  const Array held = arguments.read("places", places, kInt, {regions});
  const Array rows = arguments.read("prototypes", prototypes, kFloat, {-1, looks.shape[1]});
  const std::int64_t classes = rows.shape[0];
  if (classes < seen) {
    raise("ShapeError", "score_prototypes: prototypes has " + std::to_string(classes) +
                            " rows, must have one for each of the " + std::to_string(seen) +
                            " seen classes, then the others.");
  }
  const Array limits = arguments.read("thresholds", thresholds, kFloat, {classes});
  const Array out = arguments.read("output", output, kFloat, {regions, classes});
  const Array memory = arguments.read("workspace", workspace, {"uint8"}, {-1});
  const std::int32_t* counts = nullptr;
  if (!in_use.is_none()) {
    counts = arguments.read("in_use", in_use, kInt, {2}).as<std::int32_t>();
  }
  PrototypeParams p{};
  p.regions = regions;
  p.looked = looks.shape[0];
  p.seen = seen;
  p.unseen = classes - seen;
  p.width = looks.shape[1];
  p.seen_scale = static_cast<float>(seen_scale);
  p.objectness_power = static_cast<float>(objectness_power);
  p.contest = static_cast<float>(contest);
  p.contest_margin = static_cast<float>(contest_margin);
  p.rivalry = static_cast<float>(rivalry);
  check_workspace("score_prototypes", memory, score_prototypes_workspace(p));
  const PrototypeInput input{offered.as<float>(),
                             likely.as<float>(),
                             looks.as<float>(),
                             held.as<std::int32_t>(),
                             rows.as<float>(),
                             limits.as<float>(),
                             counts};
  arguments.finish(
      launch_score_prototypes(p, input, out.as<float>(), memory.data, as_stream(stream)));
}

void add_given(py::module_& module) {
  module.def("top_regions", &top_regions, "boxes"_a, "logits"_a, "image_sizes"_a, "rois"_a,
             "batch_indices"_a, "objectness"_a, "output_logits"_a, "output_count"_a, "workspace"_a,
             py::kw_only(), "count"_a, "min_size"_a, "stream"_a = 0);
  module.def(
      "top_regions_workspace",
      [](std::int64_t batch, std::int64_t queries, std::int64_t count) {
        return zsd::top_regions_workspace({batch, queries, 0, count, 0.f});
      },
      "batch"_a, "queries"_a, py::kw_only(), "count"_a,
      "Bytes of workspace that top_regions needs.");
  module.def("second_look", &second_look, "rois"_a, "batch_indices"_a, "num_regions"_a,
             "positions"_a, "look_rois"_a, "look_batch_indices"_a, "output_count"_a, "workspace"_a,
             py::kw_only(), "batch"_a, "count"_a, "nms_threshold"_a, "stream"_a = 0);
  module.def(
      "second_look_workspace",
      [](std::int64_t regions, std::int64_t batch, std::int64_t count) {
        return zsd::second_look_workspace({regions, batch, count, 0.0});
      },
      "regions"_a, py::kw_only(), "batch"_a, "count"_a,
      "Bytes of workspace that second_look needs.");
  module.def("spoken_for", &spoken_for, "rois"_a, "batch_indices"_a, "positions"_a, "deltas"_a,
             "places"_a, "offsets"_a, py::kw_only(), "threshold"_a, "stream"_a = 0);
  module.def("score_prototypes", &score_prototypes, "logits"_a, "objectness"_a, "embeddings"_a,
             "places"_a, "prototypes"_a, "thresholds"_a, "output"_a, "workspace"_a, py::kw_only(),
             "seen_scale"_a = 1.0, "objectness_power"_a = 0.0, "contest"_a = 0.0,
             "contest_margin"_a = 0.0, "rivalry"_a = 0.0, "in_use"_a = py::none(), "stream"_a = 0);
  module.def(
      "score_prototypes_workspace",
      [](std::int64_t looked, std::int64_t classes) {
        PrototypeParams p{};
        p.looked = looked;
        p.seen = classes;
        return zsd::score_prototypes_workspace(p);
      },
      "looked"_a, "classes"_a, "Bytes of workspace that score_prototypes needs.");
}

}  // namespace bindings
}  // namespace zsd
