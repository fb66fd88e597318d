// The module zsd_core._compiled: numpy arrays in and out, checked by zsd_core/kernels.
//
// Every call unpacks pointers, releases the GIL and runs a host kernel. Arrays arrive contiguous
// and of the right dtype; shapes were checked in Python, where the error sentences are.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>

#include "kernels/calibrate_scores.h"
#include "kernels/cpu/block_cache.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/usable_threads.h"
#include "kernels/detect.h"
#include "kernels/fuse.h"
#include "kernels/linear.h"
#include "kernels/nms.h"
#include "kernels/preprocess.h"
#include "kernels/product_mlp.h"
#include "kernels/propose.h"
#include "kernels/roi_align.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Floats = Array<float>;
using Indices = Array<std::int32_t>;

using Size = std::array<std::int64_t, 2>;

constexpr std::size_t kLarge = std::size_t(128) << 10;  // from here on malloc asks the system

// A result, not zeroed.
template <typename T>
Array<T> make(const std::vector<py::ssize_t>& shape) {
  std::size_t bytes = sizeof(T);
  for (const py::ssize_t side : shape) bytes *= std::size_t(side);
  if (bytes < kLarge) return Array<T>(shape);
  using Block = zsd::BlockCache::Block;
  auto block = std::make_unique<Block>(zsd::block_cache().take(bytes));
  const py::capsule owner(block.get(), [](void* given) {
    const std::unique_ptr<Block> block(static_cast<Block*>(given));
    zsd::block_cache().give(*block);
  });
  return Array<T>(shape, static_cast<T*>(block.release()->data), owner);
}

// The first counts[b] entries of every image's `capacity`, one image after the other.
template <typename T>
Array<T> compact(const Array<T>& padded, const std::vector<std::int32_t>& counts,
                 std::int64_t capacity, std::int64_t width) {
  std::int64_t total = 0;
  for (const std::int32_t count : counts) total += count;
  Array<T> result = width == 1 ? make<T>({total}) : make<T>({total, width});
  T* to = result.mutable_data();
  for (std::size_t b = 0; b < counts.size(); ++b) {
    const T* from = padded.data() + std::int64_t(b) * capacity * width;
    to = std::copy(from, from + counts[b] * width, to);
  }
  return result;
}

Indices image_of_each(const std::vector<std::int32_t>& counts) {
  std::vector<std::int32_t> images;
  for (std::size_t b = 0; b < counts.size(); ++b)
    images.insert(images.end(), std::size_t(counts[b]), std::int32_t(b));
  Indices result = make<std::int32_t>({py::ssize_t(images.size())});
  std::copy(images.begin(), images.end(), result.mutable_data());
  return result;
}

Floats preprocess(const Array<std::uint8_t>& image, const Size& size, const Size& padded,
                  const std::array<float, 3>& mean, const std::array<float, 3>& std, bool bgr) {
  const zsd::PreprocessParams params{image.shape(0),
                                     image.shape(1),
                                     size[0],
                                     size[1],
                                     padded[0],
                                     padded[1],
                                     {mean[0], mean[1], mean[2]},
                                     {std[0], std[1], std[2]},
                                     bgr};
  Floats output = make<float>({3, padded[0], padded[1]});
  const std::uint8_t* from = image.data();
  float* to = output.mutable_data();
  const py::gil_scoped_release release;
  zsd::preprocess(params, from, to);
  return output;
}

py::tuple propose(const Floats& objectness, const Floats& deltas, const Floats& anchors,
                  const Floats& image_sizes, int stride, std::int64_t pre_nms_top,
                  std::int64_t post_nms_top, double nms_threshold, float min_size) {
  const std::int64_t batch = objectness.shape(0);
  const std::int64_t most = objectness.shape(1) * objectness.shape(2) * objectness.shape(3);
  const zsd::ProposeParams params{batch,
                                  objectness.shape(1),
                                  objectness.shape(2),
                                  objectness.shape(3),
                                  std::min(pre_nms_top, most),
                                  std::min(post_nms_top, most),
                                  stride,
                                  nms_threshold,
                                  min_size};
  Floats rois = make<float>({batch, params.post_nms_top, 4});
  Floats scores = make<float>({batch, params.post_nms_top});
  std::vector<std::int32_t> counts(std::size_t(batch), 0);
  const float *o = objectness.data(), *d = deltas.data(), *a = anchors.data();
  const float* s = image_sizes.data();
  float *r = rois.mutable_data(), *p = scores.mutable_data();
  {
    const py::gil_scoped_release release;
    zsd::propose(params, o, d, a, s, r, p, counts.data());
  }
  return py::make_tuple(compact(rois, counts, params.post_nms_top, 4), image_of_each(counts),
                        compact(scores, counts, params.post_nms_top, 1));
}

Floats roi_align(const Floats& features, const Floats& rois, const Indices& batch_indices,
                 const Size& output_size, float spatial_scale, int sampling_ratio, int bin_step) {
  const zsd::RoiAlignParams params{features.shape(0), features.shape(1), features.shape(2),
                                   features.shape(3), rois.shape(0),     output_size[0],
                                   output_size[1],    spatial_scale,     sampling_ratio};
  Floats output =
      make<float>({params.num_rois, params.channels, zsd::stepped(output_size[0], bin_step),
                   zsd::stepped(output_size[1], bin_step)});
  const float *f = features.data(), *r = rois.data();
  const std::int32_t* b = batch_indices.data();
  float* to = output.mutable_data();
  const py::gil_scoped_release release;
  zsd::roi_align(params, bin_step, f, r, b, to);
  return output;
}

Floats roi_align_backward(const Floats& gradient, const Floats& rois, const Indices& batch_indices,
                          const std::array<std::int64_t, 4>& shape, float spatial_scale,
                          int sampling_ratio) {
  const zsd::RoiAlignParams params{shape[0],          shape[1],      shape[2],
                                   shape[3],          rois.shape(0), gradient.shape(2),
                                   gradient.shape(3), spatial_scale, sampling_ratio};
  Floats features = make<float>({shape[0], shape[1], shape[2], shape[3]});
  const float *g = gradient.data(), *r = rois.data();
  const std::int32_t* b = batch_indices.data();
  float* to = features.mutable_data();
  const py::gil_scoped_release release;
  zsd::roi_align_backward(params, g, r, b, to);
  return features;
}

zsd::PackedLinear pack_linear(const Floats& weight) {
  const float* from = weight.data();
  const py::gil_scoped_release release;
  return zsd::PackedLinear(from, weight.shape(0), weight.shape(1));
}

Floats multiply(const zsd::PackedLinear& linear, const Floats& rows) {
  Floats output = make<float>({rows.shape(0), linear.outputs()});
  const float* from = rows.data();
  float* to = output.mutable_data();
  const std::int64_t num_rows = rows.shape(0);
  const py::gil_scoped_release release;
  linear.multiply(num_rows, from, to);
  return output;
}

zsd::PackedMlp pack_mlp(const Floats& weight1, const Floats& bias1, const Floats& weight2,
                        const Floats& bias2, bool int8) {
  const zsd::MlpWeights weights{weight1.data(), bias1.data(),     weight2.data(),
                                bias2.data(),   weight1.shape(1), weight1.shape(0)};
  const py::gil_scoped_release release;
  return zsd::PackedMlp(weights, int8 ? zsd::MlpPrecision::kInt8 : zsd::MlpPrecision::kFloat32);
}

// One array per scorer; scorer i scores the classes from first_classes[i] on. With `wanted`, only
// those pairs are written, into the arrays given.
std::vector<Floats> product_mlp(const Floats& regions, const Floats& prototypes,
                                const std::vector<const zsd::PackedMlp*>& scorers,
                                const std::vector<std::int64_t>& first_classes,
                                const std::optional<Array<bool>>& wanted,
                                std::vector<Floats> results) {
  std::vector<zsd::MlpOutput> outputs;
  const std::int64_t num_regions = regions.shape(0), num_classes = prototypes.shape(0);
  for (std::size_t i = 0; i < scorers.size(); ++i) {
    if (!wanted) results.push_back(make<float>({num_regions, num_classes - first_classes[i]}));
    outputs.push_back({scorers[i], first_classes[i], results[i].mutable_data()});
  }
  const float *r = regions.data(), *p = prototypes.data();
  const auto* w = wanted ? reinterpret_cast<const std::uint8_t*>(wanted->data()) : nullptr;
  const py::gil_scoped_release release;
  zsd::product_mlp(num_regions, num_classes, r, p, outputs, w);
  return results;
}

Floats fuse(const Floats& seen_logits, const Floats& unseen_probabilities,
            const Floats& seen_similarity, const std::string& fusion, float seen_scale,
            const std::optional<Floats>& objectness, float objectness_power, bool seen_evidence) {
  const zsd::FuseParams params{seen_logits.shape(0),
                               seen_similarity.shape(0),
                               seen_similarity.shape(1),
                               fusion == "softmax"   ? zsd::Fusion::kSoftmax
                               : fusion == "sigmoid" ? zsd::Fusion::kSigmoid
                                                     : zsd::Fusion::kRaw,
                               seen_scale,
                               objectness_power,
                               seen_evidence};
  Floats output = make<float>({params.regions, params.seen + params.unseen});
  const float *l = seen_logits.data(), *u = unseen_probabilities.data();
  const float *s = seen_similarity.data(), *o = objectness ? objectness->data() : nullptr;
  float* to = output.mutable_data();
  const py::gil_scoped_release release;
  zsd::fuse(params, l, u, s, o, to);
  return output;
}

Floats calibrate_scores(const Floats& scores, const Floats& parameters,
                        const std::optional<Floats>& floors) {
  const zsd::CalibrateParams params{scores.shape(0), scores.shape(1)};
  Floats output = make<float>({params.regions, params.classes});
  const float *s = scores.data(), *p = parameters.data();
  const float* f = floors ? floors->data() : nullptr;
  float* to = output.mutable_data();
  const py::gil_scoped_release release;
  zsd::calibrate_scores(params, s, p, f, to);
  return output;
}

py::tuple detect(const Floats& class_scores, const Floats& deltas, const Floats& rois,
                 const Indices& batch_indices, const Floats& image_sizes, const Floats& thresholds,
                 double nms_threshold, std::int64_t max_detections, float min_size) {
  const std::int64_t batch = image_sizes.shape(0), pairs = class_scores.size();
  const zsd::DetectParams params{class_scores.shape(0),           class_scores.shape(1), batch,
                                 std::min(max_detections, pairs), nms_threshold,         min_size};
  Floats boxes = make<float>({batch, params.max_detections, 4});
  Floats scores = make<float>({batch, params.max_detections});
  Indices columns = make<std::int32_t>({batch, params.max_detections});
  std::vector<std::int32_t> counts(std::size_t(batch), 0);
  const float *c = class_scores.data(), *d = deltas.data(), *r = rois.data();
  const float *s = image_sizes.data(), *t = thresholds.data();
  const std::int32_t* b = batch_indices.data();
  float *to_boxes = boxes.mutable_data(), *to_scores = scores.mutable_data();
  std::int32_t* to_columns = columns.mutable_data();
  {
    const py::gil_scoped_release release;
    zsd::detect(params, c, d, r, b, s, t, to_boxes, to_scores, to_columns, counts.data());
  }
  const std::int64_t capacity = params.max_detections;
  return py::make_tuple(compact(boxes, counts, capacity, 4), compact(scores, counts, capacity, 1),
                        compact(columns, counts, capacity, 1), image_of_each(counts));
}

Array<std::int64_t> nms(const Floats& boxes, const Floats& scores, double threshold) {
  const std::int64_t count = boxes.shape(0);
  const float *b = boxes.data(), *s = scores.data();
  std::vector<std::int64_t> order, kept(static_cast<std::size_t>(count));
  {
    const py::gil_scoped_release release;
    order = zsd::order_by_score(s, count);
    zsd::BoxColumns columns(count);
    for (const std::int64_t i : order)
      columns.push({b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]});
    kept.resize(std::size_t(zsd::nms_sorted(columns, threshold, count, kept.data())));
  }
  Array<std::int64_t> result = make<std::int64_t>({py::ssize_t(kept.size())});
  std::int64_t* to = result.mutable_data();
  for (const std::int64_t position : kept) *to++ = order[std::size_t(position)];
  return result;
}

py::dict build_info() {
  std::vector<std::string> paths;
  for (const zsd::SimdKernels* const* k = zsd::simd_available(); *k; ++k)
    paths.emplace_back((*k)->name);
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["simd"] = zsd::simd().name;
  info["simd_paths"] = paths;
  info["int8"] = zsd::simd().int8;
  info["threads"] = zsd::num_threads();
  return info;
}

// Bytes, for tests.
py::dict large_results() {
  py::dict bytes;
  bytes["used"] = zsd::block_cache().used_bytes();
  bytes["idle"] = zsd::block_cache().idle_bytes();
  return bytes;
}

}  // namespace

PYBIND11_MODULE(_compiled, module) {
  module.doc() = "Compiled kernels; zsd_core.kernels is the interface.";
  py::class_<zsd::PackedLinear>(module, "PackedLinear")
      .def(py::init(&pack_linear))
      .def("multiply", &multiply);
  py::class_<zsd::PackedMlp>(module, "PackedMlp")
      .def(py::init(&pack_mlp))
      .def_property_readonly("joint", &zsd::PackedMlp::joint)
      .def_property_readonly("hidden", &zsd::PackedMlp::hidden);
  module.def("preprocess", &preprocess);
  module.def("propose", &propose);
  module.def("roi_align", &roi_align);
  module.def("roi_align_backward", &roi_align_backward);
  module.def("product_mlp", &product_mlp);
  module.def("fuse", &fuse);
  module.def("calibrate_scores", &calibrate_scores);
  module.def("detect", &detect);
  module.def("nms", &nms);
  module.def("build_info", &build_info);
  module.def("large_results", &large_results);
  module.def("thread_limit", &zsd::thread_limit);
  module.def("usable_threads", &zsd::usable_threads);
  module.def("quota_cores", &zsd::quota_cores, py::arg("root") = "");
  module.def("get_threads", &zsd::num_threads);
  module.def("set_threads", &zsd::set_num_threads);
  module.def("set_simd", &zsd::set_simd);
}
