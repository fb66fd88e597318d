// Python's way to the CUDA kernels: arrays on a GPU in, work on the caller's stream, nothing waited
// for. The module is apart from the CPU's and loaded only when asked for.
//
// Arrays come by DLPack or __cuda_array_interface__; results go into arrays of the caller, so that
// a call allocates nothing and can be captured in a CUDA graph. They must stay alive until the
// stream has passed the call. Ordering with the stream that produced them is the caller's.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "device_array.h"
#include "kernels/cuda/launch.h"

namespace py = pybind11;
using namespace py::literals;

namespace zsd {
namespace bindings {

void add_given(py::module_& module);  // cuda_given_bindings.cpp

// Of int8 weights, as mlp_int8.h defines them; null for others.
struct Split {
  const float *weight_scale, *slope, *direction;
};

template <typename T, typename Weight>
cudaError_t run_product_mlp(const Array& regions, const Array& prototypes, const Array& weight1,
                            const Split& split, const Array& bias1, const Array& weight2,
                            const Array& bias2, const Array& output, cudaStream_t stream) {
  ProductMlpArguments<T, Weight> arguments{};
  arguments.regions = regions.as<T>();
  arguments.prototypes = prototypes.as<T>();
  arguments.weight1 = weight1.as<Weight>();
  arguments.weight_scale = split.weight_scale;
  arguments.slope = split.slope;
  arguments.direction = split.direction;
  arguments.bias1 = bias1.as<float>();
  arguments.weight2 = weight2.as<float>();
  arguments.bias2 = bias2.as<float>();
  arguments.output = output.as<float>();
  arguments.num_regions = static_cast<int>(regions.shape[0]);
  arguments.num_classes = static_cast<int>(prototypes.shape[0]);
  arguments.depth = static_cast<int>(regions.shape[1]);
  arguments.hidden = static_cast<int>(weight1.shape[0]);
  return launch_product_mlp(arguments, stream);
}

void product_mlp(const py::object& regions, const py::object& prototypes, const py::object& weight1,
                 const py::object& bias1, const py::object& weight2, const py::object& bias2,
                 const py::object& output, const py::object& weight_scale, const py::object& slope,
                 const py::object& direction, std::uintptr_t stream) {
  const Arguments arguments("product_mlp");
  const bool quantized = !weight_scale.is_none();
  const Array v = arguments.read(
      "regions", regions, quantized ? std::vector<std::string>{"float16"} : kFloats, {-1, -1});
  const Array a = arguments.read("prototypes", prototypes, {v.type}, {-1, v.shape[1]});
  const Array w1 =
      arguments.read("weight1", weight1, {quantized ? "int8" : v.type}, {-1, v.shape[1]});
  const std::int64_t hidden = w1.shape[0];
  const Array b1 = arguments.read("bias1", bias1, kFloat, {hidden});
  const Array w2 = arguments.read("weight2", weight2, kFloat, {hidden});
  const Array b2 = arguments.read("bias2", bias2, kFloat, {1});
  const Array out = arguments.read("output", output, kFloat, {v.shape[0], a.shape[0]});
  const cudaStream_t on = as_stream(stream);
  if (quantized) {
    const Array scale = arguments.read("weight_scale", weight_scale, kFloat, {hidden});
    const Array slopes = arguments.read("slope", slope, kFloat, {hidden});
    const Array along = arguments.read("direction", direction, kFloat, {v.shape[1]});
    const Split split{scale.as<float>(), slopes.as<float>(), along.as<float>()};
    arguments.finish(run_product_mlp<half, std::int8_t>(v, a, w1, split, b1, w2, b2, out, on));
  } else if (v.type == "float32") {
    arguments.finish(run_product_mlp<float, float>(v, a, w1, {}, b1, w2, b2, out, on));
  } else if (v.type == "float16") {
    arguments.finish(run_product_mlp<half, half>(v, a, w1, {}, b1, w2, b2, out, on));
  } else {
    arguments.finish(run_product_mlp<bfloat16, bfloat16>(v, a, w1, {}, b1, w2, b2, out, on));
  }
}

// What both directions of roi_align read: a map of features, patches cut from it, and the regions.
struct RoiAlignArrays {
  Array features, patches, rois, batch_indices;
  RoiAlignParams params;
};

RoiAlignArrays read_roi_align(const Arguments& arguments, Array features, Array patches,
                              const py::object& rois, const py::object& batch_indices,
                              double spatial_scale, int sampling_ratio) {
  const std::int64_t regions = patches.shape[0];
  const RoiAlignParams params{
      features.shape[0], features.shape[1], features.shape[2], features.shape[3],
      regions,           patches.shape[2],  patches.shape[3],  static_cast<float>(spatial_scale),
      sampling_ratio};
  return {std::move(features), std::move(patches),
          arguments.read("rois", rois, kFloat, {regions, 4}),
          arguments.read("batch_indices", batch_indices, kInt, {regions}), params};
}

void roi_align(const py::object& features, const py::object& rois, const py::object& batch_indices,
               const py::object& output, double spatial_scale, int sampling_ratio,
               std::uintptr_t stream) {
  const Arguments arguments("roi_align");
  Array f = arguments.read("features", features, kFloats, {-1, -1, -1, -1});
  Array out = arguments.read("output", output, {f.type}, {-1, f.shape[1], -1, -1});
  const RoiAlignArrays a = read_roi_align(arguments, std::move(f), std::move(out), rois,
                                          batch_indices, spatial_scale, sampling_ratio);
  arguments.finish(by_type(a.features.type, [&](auto type) {
    using T = decltype(type);
    return launch_roi_align<T>(a.params, a.features.as<T>(), a.rois.as<float>(),
                               a.batch_indices.as<std::int32_t>(), a.patches.as<T>(),
                               as_stream(stream));
  }));
}

void roi_align_backward(const py::object& gradient, const py::object& rois,
                        const py::object& batch_indices, const py::object& features,
                        double spatial_scale, int sampling_ratio, std::uintptr_t stream) {
  const Arguments arguments("roi_align_backward");
  Array g = arguments.read("gradient", gradient, kFloats, {-1, -1, -1, -1});
  Array f = arguments.read("features", features, kFloat, {-1, g.shape[1], -1, -1});
  const RoiAlignArrays a = read_roi_align(arguments, std::move(f), std::move(g), rois,
                                          batch_indices, spatial_scale, sampling_ratio);
  arguments.finish(by_type(a.patches.type, [&](auto type) {
    using T = decltype(type);
    return launch_roi_align_backward<T>(a.params, a.patches.as<T>(), a.rois.as<float>(),
                                        a.batch_indices.as<std::int32_t>(), a.features.as<float>(),
                                        as_stream(stream));
  }));
}

void fuse(const py::object& seen_logits, const py::object& unseen_logits,
          const py::object& seen_similarity, const py::object& output, const std::string& fusion,
          double seen_scale, const py::object& objectness, double objectness_power,
          bool seen_evidence, const py::object& in_use, bool rectify, std::uintptr_t stream) {
  const Arguments arguments("fuse");
  const Array s = arguments.read("seen_similarity", seen_similarity, kFloat, {-1, -1});
  const std::int64_t seen = s.shape[0], unseen = s.shape[1];
  const Array logits = arguments.read("seen_logits", seen_logits, kFloat, {-1, 1 + seen + unseen});
  const std::int64_t regions = logits.shape[0];
  const Array o = arguments.read("unseen_logits", unseen_logits, kFloat, {regions, unseen});
  const Array out = arguments.read("output", output, kFloat, {regions, seen + unseen});
  const float* weights = nullptr;
  if (!objectness.is_none()) {
    weights = arguments.read("objectness", objectness, kFloat, {regions}).as<float>();
  }
  const std::int32_t* counts = nullptr;
  if (!in_use.is_none()) {
    counts = arguments.read("in_use", in_use, kInt, {2}).as<std::int32_t>();
  }
  py::module_::import("zsd_core.kernels.fuse").attr("check_fusion")("fuse", fusion);
  const Fusion kind = fusion == "softmax"   ? Fusion::kSoftmax
                      : fusion == "sigmoid" ? Fusion::kSigmoid
                                            : Fusion::kRaw;
  const FuseParams p{regions,
                     seen,
                     unseen,
                     kind,
                     static_cast<float>(seen_scale),
                     static_cast<float>(objectness_power),
                     seen_evidence};
  const FuseInput input{logits.as<float>(), o.as<float>(), s.as<float>(), weights, counts, rectify};
  arguments.finish(launch_fuse(p, input, out.as<float>(), as_stream(stream)));
}

void calibrate_scores(const py::object& scores, const py::object& parameters,
                      const py::object& output, std::uintptr_t stream) {
  const Arguments arguments("calibrate_scores");
  const Array values = arguments.read("scores", scores, kFloat, {-1, -1});
  const CalibrateParams p{values.shape[0], values.shape[1]};
  const Array table = arguments.read("parameters", parameters, kFloat, {p.classes, 3});
  const Array out = arguments.read("output", output, kFloat, {p.regions, p.classes});
  arguments.finish(launch_calibrate_scores(p, values.as<float>(), table.as<float>(),
                                           out.as<float>(), as_stream(stream)));
}

void all_finite(const py::object& values, const py::object& finite, const py::object& owners,
                std::uintptr_t stream) {
  const Arguments arguments("all_finite");
  const Array numbers = arguments.read("values", values, kFloat, {-1, -1});
  const Array out = arguments.read("finite", finite, kInt, {1});
  FiniteInput input{numbers.as<float>(), nullptr, numbers.shape[0], numbers.shape[1]};
  if (!owners.is_none())
    input.owners = arguments.read("owners", owners, kInt, {input.rows}).as<std::int32_t>();
  arguments.finish(launch_all_finite(input, out.as<std::int32_t>(), as_stream(stream)));
}

void preprocess(const py::object& image, const py::object& output,
                std::pair<std::int64_t, std::int64_t> size, std::array<float, 3> mean,
                std::array<float, 3> std, const std::string& color, std::uintptr_t stream) {
  const Arguments arguments("preprocess");
  const Array pixels = arguments.read("image", image, {"uint8"}, {-1, -1, 3});
  const Array out = arguments.read("output", output, kFloats, {3, -1, -1});
  py::module_::import("zsd_core.kernels.preprocess").attr("check_color")("preprocess", color);
  const PreprocessParams p{pixels.shape[0],
                           pixels.shape[1],
                           size.first,
                           size.second,
                           out.shape[1],
                           out.shape[2],
                           {mean[0], mean[1], mean[2]},
                           {std[0], std[1], std[2]},
                           color == "bgr"};
  arguments.finish(by_type(out.type, [&](auto type) {
    using T = decltype(type);
    return launch_preprocess<T>(p, pixels.as<std::uint8_t>(), out.as<T>(), as_stream(stream));
  }));
}

ProposeParams propose_params(std::int64_t batch, std::int64_t anchors, std::int64_t height,
                             std::int64_t width, std::int64_t pre_nms_top,
                             std::int64_t post_nms_top) {
  ProposeParams p{};
  p.batch = batch;
  p.anchors = anchors;
  p.height = height;
  p.width = width;
  p.pre_nms_top = pre_nms_top;
  p.post_nms_top = post_nms_top;
  return p;
}

void propose(const py::object& objectness, const py::object& deltas, const py::object& anchors,
             const py::object& image_sizes, const py::object& rois, const py::object& batch_indices,
             const py::object& scores, const py::object& count, const py::object& workspace,
             int stride, std::int64_t pre_nms_top, std::int64_t post_nms_top, double nms_threshold,
             float min_size, std::uintptr_t stream) {
  const Arguments arguments("propose");
  const Array logits = arguments.read("objectness", objectness, kFloat, {-1, -1, -1, -1});
  const std::int64_t batch = logits.shape[0], per_cell = logits.shape[1];
  const Array offsets = arguments.read("deltas", deltas, kFloat,
                                       {batch, 4 * per_cell, logits.shape[2], logits.shape[3]});
  const Array cell = arguments.read("anchors", anchors, kFloat, {per_cell, 4});
  const Array sizes = arguments.read("image_sizes", image_sizes, kFloat, {batch, 2});
  const std::int64_t capacity = batch * post_nms_top;
  const Array out = arguments.read("rois", rois, kFloat, {capacity, 4});
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {capacity});
  const Array out_scores = arguments.read("scores", scores, kFloat, {capacity});
  const Array total = arguments.read("count", count, kInt, {1});
  const Array memory = arguments.read("workspace", workspace, {"uint8"}, {-1});
  ProposeParams p =
      propose_params(batch, per_cell, logits.shape[2], logits.shape[3], pre_nms_top, post_nms_top);
  p.stride = stride;
  p.nms_threshold = nms_threshold;
  p.min_size = min_size;
  check_workspace("propose", memory, propose_workspace(p));
  const ProposeOutput output{out.as<float>(), images.as<std::int32_t>(), out_scores.as<float>(),
                             total.as<std::int32_t>()};
  arguments.finish(launch_propose(p, logits.as<float>(), offsets.as<float>(), cell.as<float>(),
                                  sizes.as<float>(), output, memory.data, as_stream(stream)));
}

void detect(const py::object& class_scores, const py::object& deltas, const py::object& rois,
            const py::object& batch_indices, const py::object& image_sizes,
            const py::object& thresholds, const py::object& boxes, const py::object& scores,
            const py::object& columns, const py::object& output_batch_indices,
            const py::object& count, const py::object& workspace, double nms_threshold,
            std::int64_t max_detections, float min_size, std::uintptr_t stream) {
  const Arguments arguments("detect");
  const Array class_score = arguments.read("class_scores", class_scores, kFloat, {-1, -1});
  const std::int64_t regions = class_score.shape[0], classes = class_score.shape[1];
  const Array offsets = arguments.read("deltas", deltas, kFloat, {regions, 4});
  const Array regions_in = arguments.read("rois", rois, kFloat, {regions, 4});
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {regions});
  const Array sizes = arguments.read("image_sizes", image_sizes, kFloat, {-1, 2});
  const Array limits = arguments.read("thresholds", thresholds, kFloat, {classes});
  const std::int64_t capacity = sizes.shape[0] * max_detections;
  const Array out = arguments.read("boxes", boxes, kFloat, {capacity, 4});
  const Array out_scores = arguments.read("scores", scores, kFloat, {capacity});
  const Array out_columns = arguments.read("columns", columns, kInt, {capacity});
  const Array out_images =
      arguments.read("output_batch_indices", output_batch_indices, kInt, {capacity});
  const Array total = arguments.read("count", count, kInt, {1});
  const Array memory = arguments.read("workspace", workspace, {"uint8"}, {-1});
  if (regions > kMostDetectRegions) {
    raise("ShapeError", "detect: " + std::to_string(regions) + " regions, at most " +
                            std::to_string(kMostDetectRegions) +
                            " fit one call; pass fewer images at a time.");
  }
  const DetectParams p{regions, classes, sizes.shape[0], max_detections, nms_threshold, min_size};
  check_workspace("detect", memory, detect_workspace(p));
  const DetectOutput output{out.as<float>(), out_scores.as<float>(), out_columns.as<std::int32_t>(),
                            out_images.as<std::int32_t>(), total.as<std::int32_t>()};
  arguments.finish(launch_detect(p, class_score.as<float>(), offsets.as<float>(),
                                 regions_in.as<float>(), images.as<std::int32_t>(),
                                 sizes.as<float>(), limits.as<float>(), output, memory.data,
                                 as_stream(stream)));
}

#ifndef ZSD_CUDA_ARCHITECTURES
#define ZSD_CUDA_ARCHITECTURES ""
#endif

py::dict build_info() {
  py::dict info;
  info["architectures"] = ZSD_CUDA_ARCHITECTURES;
#ifdef ZSD_CUDA_SHIM
  info["toolkit"] = "none: fibers on the CPU";
#else
  info["toolkit"] =
      std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
#endif
  return info;
}

}  // namespace bindings
}  // namespace zsd

PYBIND11_MODULE(_compiled_cuda, module) {
  zsd::bindings::add_given(module);
  module.doc() = "The CUDA kernels: device arrays in, results into arrays of the caller.";
  module.def("build_info", &zsd::bindings::build_info,
             "Architectures and toolkit it was built for.");
  module.def("product_mlp", &zsd::bindings::product_mlp, "regions"_a, "prototypes"_a, "weight1"_a,
             "bias1"_a, "weight2"_a, "bias2"_a, "output"_a, py::kw_only(),
             "weight_scale"_a = py::none(), "slope"_a = py::none(), "direction"_a = py::none(),
             "stream"_a = 0);
  module.def("roi_align", &zsd::bindings::roi_align, "features"_a, "rois"_a, "batch_indices"_a,
             "output"_a, py::kw_only(), "spatial_scale"_a, "sampling_ratio"_a = 2, "stream"_a = 0);
  module.def("roi_align_backward", &zsd::bindings::roi_align_backward, "gradient"_a, "rois"_a,
             "batch_indices"_a, "features"_a, py::kw_only(), "spatial_scale"_a,
             "sampling_ratio"_a = 2, "stream"_a = 0);
  module.def("fuse", &zsd::bindings::fuse, "seen_logits"_a, "unseen_logits"_a, "seen_similarity"_a,
             "output"_a, py::kw_only(), "fusion"_a, "seen_scale"_a = 1.0,
             "objectness"_a = py::none(), "objectness_power"_a = 0.0, "seen_evidence"_a = false,
             "in_use"_a = py::none(), "rectify"_a = false, "stream"_a = 0);
  module.def("calibrate_scores", &zsd::bindings::calibrate_scores, "scores"_a, "parameters"_a,
             "output"_a, py::kw_only(), "stream"_a = 0);
  module.def("all_finite", &zsd::bindings::all_finite, "values"_a, "finite"_a, py::kw_only(),
             "owners"_a = py::none(), "stream"_a = 0);
  module.def("preprocess", &zsd::bindings::preprocess, "image"_a, "output"_a, py::kw_only(),
             "size"_a, "mean"_a, "std"_a, "color"_a = "rgb", "stream"_a = 0);
  module.def("propose", &zsd::bindings::propose, "objectness"_a, "deltas"_a, "anchors"_a,
             "image_sizes"_a, "rois"_a, "batch_indices"_a, "scores"_a, "count"_a, "workspace"_a,
             py::kw_only(), "stride"_a, "pre_nms_top"_a, "post_nms_top"_a, "nms_threshold"_a,
             "min_size"_a, "stream"_a = 0);
  module.def(
      "propose_workspace",
      [](std::int64_t batch, std::int64_t anchors, std::int64_t height, std::int64_t width,
         std::int64_t pre_nms_top, std::int64_t post_nms_top) {
        return zsd::propose_workspace(zsd::bindings::propose_params(batch, anchors, height, width,
                                                                    pre_nms_top, post_nms_top));
      },
      "batch"_a, "anchors"_a, "height"_a, "width"_a, py::kw_only(), "pre_nms_top"_a,
      "post_nms_top"_a, "Bytes of workspace that propose needs.");
  module.def("detect", &zsd::bindings::detect, "class_scores"_a, "deltas"_a, "rois"_a,
             "batch_indices"_a, "image_sizes"_a, "thresholds"_a, "boxes"_a, "scores"_a, "columns"_a,
             "output_batch_indices"_a, "count"_a, "workspace"_a, py::kw_only(), "nms_threshold"_a,
             "max_detections"_a, "min_size"_a, "stream"_a = 0);
  module.def(
      "detect_workspace",
      [](std::int64_t regions, std::int64_t classes, std::int64_t batch,
         std::int64_t max_detections) {
        return zsd::detect_workspace({regions, classes, batch, max_detections, 0.0, 0.f});
      },
      "regions"_a, "classes"_a, "batch"_a, py::kw_only(), "max_detections"_a,
      "Bytes of workspace that detect needs.");
}
