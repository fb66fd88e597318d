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

#include "kernels/launch.h"

namespace py = pybind11;
using namespace py::literals;

namespace zsd {
namespace bindings {

// The part of DLPack's unversioned binary interface that is read here.
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;  // null: contiguous
  std::uint64_t byte_offset;
};
#ifdef ZSD_CUDA_SHIM
constexpr int kDeviceType = 1;  // the CPU
#else
constexpr int kDeviceType = 2;  // CUDA; managed memory (13) is reachable too
#endif

[[noreturn]] void raise(const char* kind, const std::string& message) {
  const py::object type = py::module_::import("zsd_core.errors").attr(kind);
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

std::string text(const std::vector<std::int64_t>& shape) {
  std::string result = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    result += std::to_string(shape[i]) + (i + 1 < shape.size() ? ", " : "");
  }
  return result + (shape.size() == 1 ? ",)" : ")");
}

// A device array that one argument of an operator names.
struct Array {
  void* data = nullptr;
  std::vector<std::int64_t> shape;
  std::string type;  // numpy's name: float32, bfloat16, ...

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

std::string dlpack_type(int code, int bits) {
  const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat"};
  return (code < 5 ? kinds[code] : "unknown") + std::to_string(bits);
}

// Reads what one operator's arguments are and complains in its name.
class Arguments {
 public:
  explicit Arguments(const char* where) : where_(where) {}

  // The argument, whose type must be one of `types` and whose shape must be `shape`; -1 is any
  // size.
  Array read(const char* name, const py::object& object, const std::vector<std::string>& types,
             const std::vector<std::int64_t>& shape) const {
    const std::string place = std::string(where_) + ": " + name;
    Array array;
    if (py::hasattr(object, "__dlpack__")) {
      array = from_dlpack(place, object);
    } else if (py::hasattr(object, "__cuda_array_interface__")) {
      array = from_interface(place, object.attr("__cuda_array_interface__"));
    } else {
      raise("DeviceError",
            place + " is a " + std::string(py::str(py::type::of(object))) +
                ", must offer __dlpack__ or __cuda_array_interface__ (torch, cupy).");
    }
    std::string expected;
    bool agrees = false;
    for (const std::string& type : types) {
      agrees |= type == array.type;
      expected += (expected.empty() ? "" : " or ") + type;
    }
    if (!agrees) {
      raise("ShapeError", place + " is " + array.type + ", must be " + expected + ".");
    }
    agrees = shape.size() == array.shape.size();
    for (std::size_t i = 0; agrees && i < shape.size(); ++i) {
      agrees = shape[i] < 0 || shape[i] == array.shape[i];
    }
    if (!agrees) {
      raise("ShapeError", place + " has shape " + text(array.shape) + ", expected " + text(shape) +
                              " (-1: any size).");
    }
    return array;
  }

  void finish(cudaError_t status) const {
    if (status != cudaSuccess) {
      raise("DeviceError", std::string(where_) + ": CUDA could not launch the kernel (" +
                               cudaGetErrorString(status) +
                               "); is the module built for this GPU? See build_info().");
    }
  }

 private:
  static void check_contiguous(const std::string& place, const std::vector<std::int64_t>& shape,
                               const std::vector<std::int64_t>& strides, std::int64_t unit) {
    std::int64_t expected = unit;
    for (const std::int64_t size : shape) {
      if (size == 0) return;
    }
    for (std::size_t i = shape.size(); i-- > 0;) {
      if (shape[i] > 1 && strides[i] != expected) {
        raise("ShapeError", place + " is not contiguous; pass a contiguous copy of it.");
      }
      expected *= shape[i];
    }
  }

  static Array from_dlpack(const std::string& place, const py::object& object) {
    const py::tuple device = object.attr("__dlpack_device__")();
    const int type = device[0].cast<int>();
    if (type != kDeviceType && !(kDeviceType == 2 && type == 13)) {
      raise("DeviceError", place + " lies on DLPack device type " + std::to_string(type) +
                               ", must lie on " + std::to_string(kDeviceType) +
                               "; the CPU's kernels are in zsd_core.kernels.");
    }
    // -1: the producer need not synchronise any stream with ours.
    const py::object capsule =
        kDeviceType == 2 ? object.attr("__dlpack__")("stream"_a = -1) : object.attr("__dlpack__")();
    const auto* tensor =
        static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (!tensor) throw py::error_already_set();
    Array array;
    array.data = static_cast<char*>(tensor->data) + tensor->byte_offset;
    array.shape.assign(tensor->shape, tensor->shape + tensor->ndim);
    array.type = dlpack_type(tensor->code, tensor->bits);
    if (tensor->strides) {
      check_contiguous(place, array.shape, {tensor->strides, tensor->strides + tensor->ndim}, 1);
    }
    return array;
  }

  static Array from_interface(const std::string& place, const py::dict& interface) {
    Array array;
    array.data =
        reinterpret_cast<void*>(interface["data"].cast<py::tuple>()[0].cast<std::uintptr_t>());
    for (const py::handle size : interface["shape"]) {
      array.shape.push_back(size.cast<std::int64_t>());
    }
    const auto code = interface["typestr"].cast<std::string>();
    if (code.size() != 3 || code[0] == '>') {
      raise("ShapeError", place + " has the type code " + code + ", must be little-endian.");
    }
    const int bytes = code[2] - '0';
    array.type = dlpack_type(code[1] == 'i'   ? 0
                             : code[1] == 'u' ? 1
                             : code[1] == 'f' ? 2
                                              : 5,
                             8 * bytes);
    if (interface.contains("strides") && !interface["strides"].is_none()) {
      std::vector<std::int64_t> strides;
      for (const py::handle stride : interface["strides"]) {
        strides.push_back(stride.cast<std::int64_t>());
      }
      check_contiguous(place, array.shape, strides, bytes);
    }
    return array;
  }

  const char* where_;
};

cudaStream_t as_stream(std::uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

const std::vector<std::string> kFloat = {"float32"};
const std::vector<std::string> kInt = {"int32"};
const std::vector<std::string> kFloats = {"float32", "float16", "bfloat16"};

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

RoiAlignParams roi_align_params(const std::vector<std::int64_t>& features,
                                const std::vector<std::int64_t>& patches, double spatial_scale,
                                int sampling_ratio) {
  return {features[0],   features[1], features[2], features[3],
          patches[0],    patches[2],  patches[3],  static_cast<float>(spatial_scale),
          sampling_ratio};
}

void roi_align(const py::object& features, const py::object& rois, const py::object& batch_indices,
               const py::object& output, double spatial_scale, int sampling_ratio,
               std::uintptr_t stream) {
  const Arguments arguments("roi_align");
  const Array f = arguments.read("features", features, kFloats, {-1, -1, -1, -1});
  const Array boxes = arguments.read("rois", rois, kFloat, {-1, 4});
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {boxes.shape[0]});
  const Array out =
      arguments.read("output", output, {f.type}, {boxes.shape[0], f.shape[1], -1, -1});
  const RoiAlignParams p = roi_align_params(f.shape, out.shape, spatial_scale, sampling_ratio);
  const auto run = [&](auto type) {
    using T = decltype(type);
    return launch_roi_align<T>(p, f.as<T>(), boxes.as<float>(), images.as<std::int32_t>(),
                               out.as<T>(), as_stream(stream));
  };
  arguments.finish(f.type == "float32"   ? run(float{})
                   : f.type == "float16" ? run(half{})
                                         : run(bfloat16{}));
}

void roi_align_backward(const py::object& gradient, const py::object& rois,
                        const py::object& batch_indices, const py::object& features,
                        double spatial_scale, int sampling_ratio, std::uintptr_t stream) {
  const Arguments arguments("roi_align_backward");
  const Array g = arguments.read("gradient", gradient, kFloats, {-1, -1, -1, -1});
  const Array boxes = arguments.read("rois", rois, kFloat, {g.shape[0], 4});
  const Array images = arguments.read("batch_indices", batch_indices, kInt, {g.shape[0]});
  const Array f = arguments.read("features", features, kFloat, {-1, g.shape[1], -1, -1});
  const RoiAlignParams p = roi_align_params(f.shape, g.shape, spatial_scale, sampling_ratio);
  const auto run = [&](auto type) {
    using T = decltype(type);
    return launch_roi_align_backward<T>(p, g.as<T>(), boxes.as<float>(), images.as<std::int32_t>(),
                                        f.as<float>(), as_stream(stream));
  };
  arguments.finish(g.type == "float32"   ? run(float{})
                   : g.type == "float16" ? run(half{})
                                         : run(bfloat16{}));
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
  const auto run = [&](auto type) {
    using T = decltype(type);
    return launch_preprocess<T>(p, pixels.as<std::uint8_t>(), out.as<T>(), as_stream(stream));
  };
  arguments.finish(out.type == "float32"   ? run(float{})
                   : out.type == "float16" ? run(half{})
                                           : run(bfloat16{}));
}

void check_workspace(const char* where, const Array& workspace, std::size_t needed) {
  if (workspace.shape[0] < static_cast<std::int64_t>(needed) ||
      reinterpret_cast<std::uintptr_t>(workspace.data) % 16) {
    raise("ShapeError", std::string(where) + ": workspace has " +
                            std::to_string(workspace.shape[0]) + " bytes, needs " +
                            std::to_string(needed) + " aligned to 16; ask " + where +
                            "_workspace().");
  }
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
