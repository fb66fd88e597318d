// RoIAlign, average pooling: one definition of the arithmetic, for host and device.
//
//   features       (B, C, H, W)    T      contiguous
//   rois           (R, 4)          float  x1 y1 x2 y2, pixels of the network input
//   batch_indices  (R,)            int32  in [0, B)
//   output         (R, C, PH, PW)  T
//
// Meaning     bilinear sampling is separable: a patch is Wy F Wx', with one row of weights per bin
//             and axis. The host computes it so; a device may sample directly (sample_bilinear).
// Precision   coordinates and sums are float for every T but double: a half stores pixel 1025.5
//             as 1026.
// Edges       a sample outside [-1, H] x [-1, W], or NaN, counts as 0.
// Twin        zsd_core/kernels/reference.py::roi_align; change both in one commit.
#pragma once

#include <cmath>
#include <cstdint>

#include "common.h"

namespace zsd {

struct RoiAlignParams {
  std::int64_t batch, channels, height, width;  // of features
  std::int64_t num_rois, pooled_height, pooled_width;
  float spatial_scale;
  int sampling_ratio;  // 0 or less: by the size of each box
};

// The two cells around a real-valued position along one axis, and the weight of the second.
// Not inside the map: both weights are 0.
template <typename A>
struct AxisSample {
  int low, high;
  A low_weight, high_weight;
};

template <typename A>
ZSD_HD AxisSample<A> sample_axis(A position, int cells) {
  // Written as "not inside" so that a NaN position is outside.
  if (!(position >= A(-1) && position <= A(cells))) return {0, 0, A(0), A(0)};
  position = position > A(0) ? position : A(0);
  const int low = int(position) < cells - 1 ? int(position) : cells - 1;
  const int high = low < cells - 1 ? low + 1 : low;
  const A fraction = low < cells - 1 ? position - A(low) : A(0);
  return {low, high, A(1) - fraction, fraction};
}

// Value of plane (H, W) at a real-valued cell position.
template <typename T>
ZSD_HD acc_t<T> sample_bilinear(const T* plane, int height, int width, acc_t<T> y, acc_t<T> x) {
  using A = acc_t<T>;
  const AxisSample<A> v = sample_axis<A>(y, height), h = sample_axis<A>(x, width);
  const A top = A(plane[v.low * width + h.low]) * h.low_weight +
                A(plane[v.low * width + h.high]) * h.high_weight;
  const A low = A(plane[v.high * width + h.low]) * h.low_weight +
                A(plane[v.high * width + h.high]) * h.high_weight;
  return top * v.low_weight + low * v.high_weight;
}

// One axis of one region: where its bins start and how they are sampled.
template <typename A>
struct RoiAxis {
  A start, bin;
  int count;  // samples per bin; 0 leaves every bin 0

  ZSD_HD A position(int index, int sample) const {
    return start + A(index) * bin + (A(sample) + A(0.5)) * bin / A(count);
  }
};

template <typename A>
ZSD_HD RoiAxis<A> roi_axis(A from, A to, A scale, int bins, int cells, int sampling_ratio) {
  const A start = from * scale - A(0.5);
  const A bin = (to * scale - A(0.5) - start) / A(bins);
  int count = sampling_ratio;
  if (count <= 0) {  // a box larger than the map by orders of magnitude must not run for ever
    const A most = A(4) * A(cells);
    count = bin > A(0) ? int(ceil(bin < most ? bin : most)) : 0;
  }
  return {start, bin, count};
}

// Bins that a step leaves of an axis.
inline std::int64_t stepped(std::int64_t bins, int step) { return (bins + step - 1) / step; }

// Host, float: `output` and the gradient's `features` are overwritten. Deterministic.
// Of either axis every `bin_step`-th bin is computed, from the first: `output` is
// (R, C, ceil(PH / bin_step), ceil(PW / bin_step)).
void roi_align(const RoiAlignParams& params, int bin_step, const float* features, const float* rois,
               const std::int32_t* batch_indices, float* output);
void roi_align_backward(const RoiAlignParams& params, const float* gradient, const float* rois,
                        const std::int32_t* batch_indices, float* features);

}  // namespace zsd
