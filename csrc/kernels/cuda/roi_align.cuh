// RoIAlign on a GPU: the samples of roi_align.h, directly at every bin.
//
// Work split  a block takes 1,024 neighbouring elements of one region's (C, PH, PW) patch.
// Backward    a thread spreads one gradient by float atomics into zeroed features; their order, and
//             with it the last bits, may differ from run to run.
// Edges       a region of an image outside [0, B) gives zeros and spreads nothing.
// Twin        zsd_core/kernels/reference.py::roi_align; change both in one commit.
#pragma once

#include <climits>

#include "launch.h"
#include "primitives.cuh"

namespace zsd {
namespace roi_align_cuda {

constexpr int kThreads = 256;
constexpr int kElements = 1024;  // of a block

// One region's place on the map.
struct Region {
  int image;  // -1: not in this batch
  RoiAxis<float> vertical, horizontal;
};

ZSD_DEVICE Region read_region(const RoiAlignParams& p, const float* rois,
                              const std::int32_t* batch_indices, int r) {
  const float* box = rois + 4 * std::int64_t{r};
  const int image = batch_indices[r];
  return {image >= 0 && image < p.batch ? image : -1,
          roi_axis<float>(box[1], box[3], p.spatial_scale, static_cast<int>(p.pooled_height),
                          static_cast<int>(p.height), p.sampling_ratio),
          roi_axis<float>(box[0], box[2], p.spatial_scale, static_cast<int>(p.pooled_width),
                          static_cast<int>(p.width), p.sampling_ratio)};
}

// Calls visit(region r, element of the patch, channel, bin row, bin column) for a block's share.
template <typename Visit>
ZSD_DEVICE void for_elements(const RoiAlignParams& p, Visit visit) {
  const int bins = static_cast<int>(p.pooled_height * p.pooled_width);
  const int patch = static_cast<int>(p.channels) * bins;
  const int blocks = (patch + kElements - 1) / kElements;  // of one region
  const int r = static_cast<int>(blockIdx.x) / blocks;
  const int first = static_cast<int>(blockIdx.x) % blocks * kElements;
  const int last = patch < first + kElements ? patch : first + kElements;
  for (int element = first + static_cast<int>(threadIdx.x); element < last; element += kThreads) {
    const int channel = element / bins, bin = element % bins;
    const int columns = static_cast<int>(p.pooled_width);
    visit(r, element, channel, bin / columns, bin % columns);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    roi_align_kernel(const RoiAlignParams p, const T* features, const float* rois,
                     const std::int32_t* batch_indices, T* output) {
  const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
  for_elements(p, [&](int r, int element, int channel, int row, int column) {
    const Region region = read_region(p, rois, batch_indices, r);
    const int rows = region.vertical.count, columns = region.horizontal.count;
    float sum = 0.f;
    if (region.image >= 0) {
      const T* plane = features + (region.image * p.channels + channel) * p.height * p.width;
      for (int i = 0; i < rows; ++i) {
        const float y = region.vertical.position(row, i);
        for (int j = 0; j < columns; ++j) {
          sum += sample_bilinear<T>(plane, height, width, y, region.horizontal.position(column, j));
        }
      }
    }
    const float mean = rows * columns > 0 ? sum / (static_cast<float>(rows) * columns) : 0.f;
    output[r * p.channels * p.pooled_height * p.pooled_width + element] = from_float<T>(mean);
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    roi_align_backward_kernel(const RoiAlignParams p, const T* gradient, const float* rois,
                              const std::int32_t* batch_indices, float* features) {
  const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
  for_elements(p, [&](int r, int element, int channel, int row, int column) {
    const Region region = read_region(p, rois, batch_indices, r);
    const int rows = region.vertical.count, columns = region.horizontal.count;
    if (region.image < 0 || rows * columns <= 0) return;
    const std::int64_t at = r * p.channels * p.pooled_height * p.pooled_width + element;
    const float share = to_float(gradient[at]) / (static_cast<float>(rows) * columns);
    float* plane = features + (region.image * p.channels + channel) * p.height * p.width;
    for (int i = 0; i < rows; ++i) {
      const auto v = sample_axis(region.vertical.position(row, i), height);
      for (int j = 0; j < columns; ++j) {
        const auto h = sample_axis(region.horizontal.position(column, j), width);
        const bool outside = (v.low_weight == 0.f && v.high_weight == 0.f) ||
                             (h.low_weight == 0.f && h.high_weight == 0.f);
        if (outside) continue;
        atomic_add(&plane[v.low * width + h.low], share * v.low_weight * h.low_weight);
        atomic_add(&plane[v.low * width + h.high], share * v.low_weight * h.high_weight);
        atomic_add(&plane[v.high * width + h.low], share * v.high_weight * h.low_weight);
        atomic_add(&plane[v.high * width + h.high], share * v.high_weight * h.high_weight);
      }
    }
  });
}

__global__ void __launch_bounds__(kThreads) zero_kernel(float* values, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) values[i] = 0.f;
}

// Blocks for all regions; 0: nothing to do; -1: sizes that the index arithmetic cannot hold.
inline std::int64_t blocks_of(const RoiAlignParams& p) {
  const std::int64_t patch = p.channels * p.pooled_height * p.pooled_width;
  const std::int64_t blocks = p.num_rois * ((patch + kElements - 1) / kElements);
  const bool fits = p.height > 0 && p.width > 0 && p.pooled_height > 0 && p.pooled_width > 0 &&
                    p.height * p.width <= INT_MAX && patch <= INT_MAX - kElements &&
                    p.num_rois >= 0 && blocks <= INT_MAX;
  return fits ? blocks : -1;
}

}  // namespace roi_align_cuda

template <typename T>
cudaError_t launch_roi_align(const RoiAlignParams& params, const T* features, const float* rois,
                             const std::int32_t* batch_indices, T* output, cudaStream_t stream) {
  using namespace roi_align_cuda;
  const std::int64_t blocks = blocks_of(params);
  if (blocks < 0) return cudaErrorInvalidValue;
  if (blocks == 0) return cudaSuccess;
  return launch(roi_align_kernel<T>, static_cast<unsigned>(blocks), kThreads, 0, stream, params,
                features, rois, batch_indices, output);
}

template <typename T>
cudaError_t launch_roi_align_backward(const RoiAlignParams& params, const T* gradient,
                                      const float* rois, const std::int32_t* batch_indices,
                                      float* features, cudaStream_t stream) {
  using namespace roi_align_cuda;
  const std::int64_t blocks = blocks_of(params);
  const std::int64_t cells = params.batch * params.channels * params.height * params.width;
  if (blocks < 0 || cells > std::int64_t{INT_MAX} * kThreads) return cudaErrorInvalidValue;
  if (cells == 0) return cudaSuccess;
  const auto fill = static_cast<unsigned>((cells + kThreads - 1) / kThreads);
  const cudaError_t status = launch(zero_kernel, fill, kThreads, 0, stream, features, cells);
  if (status != cudaSuccess || blocks == 0) return status;
  return launch(roi_align_backward_kernel<T>, static_cast<unsigned>(blocks), kThreads, 0, stream,
                params, gradient, rois, batch_indices, features);
}

}  // namespace zsd
