// From a photograph to network input: resize, scale to [0, 1], normalise, zero-pad.
//
//   image   (H, W, 3)    uint8  channels RGB, or BGR when `bgr`
//   output  (3, PH, PW)  float  channels RGB, 0 outside (height, width)
//
// Meaning     an axis that shrinks to a half or less is averaged over whole blocks first (the last
//             may be partial), then bilinear with half-pixel centres and clamped edges.
// Twin        zsd_core/kernels/reference.py::preprocess; change both in one commit.
#pragma once

#include <cstdint>

#include "common.h"

namespace zsd {

struct PreprocessParams {
  std::int64_t image_height, image_width;    // of the image
  std::int64_t height, width;                // after resizing
  std::int64_t padded_height, padded_width;  // of the output
  float mean[3], std[3];                     // RGB, of values in [0, 1]
  bool bgr;
};

// One axis of the resize: `blocks` blocks of `block` pixels, the last of `last` pixels.
struct ResizeAxis {
  std::int64_t length, size, block, blocks, last;
};

ZSD_HD ResizeAxis resize_axis(std::int64_t length, std::int64_t size) {
  const std::int64_t block = length / size > 1 ? length / size : 1;
  const std::int64_t blocks = (length + block - 1) / block;
  return {length, size, block, blocks, length - (blocks - 1) * block};
}

// The two blocks around output position `index`, and the weight of the second.
struct ResizeSample {
  std::int64_t low, high;
  float fraction;
};

ZSD_HD ResizeSample resize_sample(const ResizeAxis& axis, std::int64_t index) {
  // Exact in the original image even when the last block is partial.
  double position =
      (double(index) + 0.5) * (double(axis.length) / double(axis.size)) / double(axis.block) - 0.5;
  const double last = double(axis.blocks - 1);
  position = position < 0.0 ? 0.0 : (position > last ? last : position);
  const std::int64_t low = std::int64_t(position);
  return {low, low < axis.blocks - 1 ? low + 1 : low, float(position - double(low))};
}

// A channel's mean over a block, 0 .. 255, as the network reads it.
ZSD_HD float normalised(float value, float mean, float std) {
  return (value / 255.0f - mean) / std;
}

void preprocess(const PreprocessParams& params, const std::uint8_t* image, float* output);

}  // namespace zsd
